//! A byte stream inside binary WebSocket messages (KEP-4006): message borders mean nothing.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::Io;
use crate::streams::CHUNK;

/// Largest message that is taken, in bytes.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// Speaks WebSocket on a connection whose handshake is done.
pub(crate) async fn websocket<T: Io>(io: T, role: Role) -> WebSocketStream<T> {
    let config =
        WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
    WebSocketStream::from_raw_socket(io, role, Some(config)).await
}

/// The good end of a connection (RFC 6455, section 7.4.1).
pub(crate) fn normal_closure() -> CloseFrame {
    CloseFrame { code: CloseCode::Normal, reason: "".into() }
}

pub(crate) fn io_error(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::ConnectionClosed | Error::AlreadyClosed => io::ErrorKind::BrokenPipe.into(),
        other => io::Error::other(other),
    }
}

/// The byte stream.
pub(crate) struct Tunnel<T> {
    ws: WebSocketStream<T>,
    current: Bytes,
    said_goodbye: bool,
}

impl<T: Io> Tunnel<T> {
    pub(crate) async fn new(io: T, role: Role) -> Self {
        Self { ws: websocket(io, role).await, current: Bytes::new(), said_goodbye: false }
    }
}

impl<T: Io> AsyncRead for Tunnel<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.current.is_empty() {
            match ready!(Pin::new(&mut self.ws).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.current = bytes,
                Some(Ok(Message::Text(_))) => {
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "text message in a tunnel",
                    )));
                }
                Some(Ok(_)) => {}
                None | Some(Err(Error::ConnectionClosed | Error::AlreadyClosed)) => {
                    return Poll::Ready(Ok(()));
                }
                Some(Err(error)) => return Poll::Ready(Err(io_error(error))),
            }
        }
        let n = self.current.len().min(buf.remaining());
        buf.put_slice(&self.current.split_to(n));
        Poll::Ready(Ok(()))
    }
}

impl<T: Io> AsyncWrite for Tunnel<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.ws).poll_ready(cx)).map_err(io_error)?;
        let n = buf.len().min(CHUNK);
        let message = Message::Binary(Bytes::copy_from_slice(&buf[..n]));
        Pin::new(&mut self.ws).start_send(message).map_err(io_error)?;
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.ws).poll_flush(cx).map_err(io_error)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.said_goodbye && ready!(Pin::new(&mut self.ws).poll_ready(cx)).is_ok() {
            // An error means that the other side was faster, which closing finds out as well.
            let _ = Pin::new(&mut self.ws).start_send(Message::Close(Some(normal_closure())));
        }
        self.said_goodbye = true;
        match ready!(Pin::new(&mut self.ws).poll_close(cx)) {
            // The other side was faster.
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => Poll::Ready(Ok(())),
            other => Poll::Ready(other.map_err(io_error)),
        }
    }
}
