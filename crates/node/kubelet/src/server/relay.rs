//! One forwarded connection: bytes between a client's stream and a pod's port.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

/// Copies in both directions until the pod has closed its side, and passes the end of either side on.
///
/// The pod's end is the end of all: kubectl then resets its stream and waits for the error stream, which older ones
/// want to see closed before they close the connection that they forward. A client that resets its stream or has left
/// is no failure; the pod sees the end of its input.
///
/// # Errors
/// What reading from the pod fails with.
pub(super) async fn relay(
    client: &mut (impl AsyncRead + AsyncWrite + Unpin),
    pod: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> io::Result<()> {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (from_pod, mut to_pod) = tokio::io::split(pod);
    let mut from_pod = FromPod { stream: from_pod, failure: None };
    let inward = async {
        // Whichever side broke off, the pod is told that nothing more comes.
        let _ = tokio::io::copy(&mut from_client, &mut to_pod).await;
        let _ = to_pod.shutdown().await;
        // What the pod still has to say goes on.
        std::future::pending::<()>().await;
    };
    let outward = async {
        let _ = tokio::io::copy(&mut from_pod, &mut to_client).await;
        let _ = to_client.shutdown().await;
    };
    tokio::select! {
        () = inward => {}
        () = outward => {}
    }
    from_pod.failure.map_or(Ok(()), Err)
}

/// Keeps the error of a read apart from those of the writes that it is copied to.
struct FromPod<R> {
    stream: R,
    failure: Option<io::Error>,
}

impl<R: AsyncRead + Unpin> AsyncRead for FromPod<R> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        let read = std::task::ready!(std::pin::Pin::new(&mut self.stream).poll_read(cx, buf));
        std::task::Poll::Ready(read.map_err(|error| {
            let kind = error.kind();
            self.failure = Some(error);
            kind.into()
        }))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::io::{AsyncReadExt, duplex, join};

    use super::*;

    /// A stream that the other side has reset.
    struct Reset;

    impl AsyncRead for Reset {
        fn poll_read(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            _: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            std::task::Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        }
    }

    #[tokio::test]
    async fn the_pods_end_is_the_end() {
        let (mut client, mut near) = duplex(64);
        let (mut pod, mut far) = duplex(64);
        client.write_all(b"question").await.unwrap();
        let serving = tokio::spawn(async move {
            let mut question = [0; 8];
            far.read_exact(&mut question).await.unwrap();
            far.write_all(b"answer").await.unwrap();
            question
        });
        // The client never closes its side.
        relay(&mut near, &mut pod).await.unwrap();
        assert_eq!(&serving.await.unwrap(), b"question");
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");
    }

    #[tokio::test]
    async fn a_client_that_has_asked_all_still_gets_the_answer() {
        let (mut client, mut near) = duplex(64);
        let (mut pod, mut far) = duplex(64);
        client.shutdown().await.unwrap();
        let serving = tokio::spawn(async move {
            let mut question = String::new();
            far.read_to_string(&mut question).await.unwrap();
            far.write_all(b"answer").await.unwrap();
        });
        relay(&mut near, &mut pod).await.unwrap();
        serving.await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");
    }

    #[tokio::test]
    async fn a_reset_of_the_client_is_no_failure() {
        let (mut seen, written) = duplex(64);
        let (mut pod, mut far) = duplex(64);
        let mut near = join(Reset, written);
        let serving = tokio::spawn(async move {
            // The reset ends the pod's input.
            let mut question = String::new();
            far.read_to_string(&mut question).await.unwrap();
            far.write_all(b"rest").await.unwrap();
        });
        relay(&mut near, &mut pod).await.unwrap();
        serving.await.unwrap();
        drop(near);
        let mut rest = String::new();
        seen.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "rest");
    }

    #[tokio::test]
    async fn a_pod_that_breaks_off_is_a_failure() {
        let (_client, mut near) = duplex(64);
        let mut pod = join(Reset, tokio::io::sink());
        let error = relay(&mut near, &mut pod).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
