//! Exec and attach, server side.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::tungstenite::protocol::Role as WsRole;

use crate::channels::Channels;
use crate::spdy::{Role, Session, SpdyStream, SpdyWriter, WINDOW};
use crate::streams::QueueReader;
use crate::{Io, Outcome, Protocol, ReadStream, StreamError, TerminalSize, Wire, WriteStream};

/// How long a client may take to open its streams (SPDY); the kubelet's default.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// Terminal sizes that may wait; older ones do not matter.
const RESIZES: usize = 8;
/// A terminal size is not longer than this many bytes.
const MAX_RESIZE: usize = 1024;

pub(crate) const STDIN: u8 = 0;
pub(crate) const STDOUT: u8 = 1;
pub(crate) const STDERR: u8 = 2;
pub(crate) const ERROR: u8 = 3;
pub(crate) const RESIZE: u8 = 4;

/// Which streams the request asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error. With a terminal there is none.
    pub stderr: bool,
    /// A terminal.
    pub tty: bool,
}

/// The streams of one client.
pub struct RemoteStreams {
    /// What the client types, if asked for.
    pub stdin: Option<ReadStream>,
    /// What the client sees, if asked for.
    pub stdout: Option<WriteStream>,
    /// The other thing the client sees, if asked for and there is no terminal.
    pub stderr: Option<WriteStream>,
    /// Sizes of the client's terminal. Never yields without a terminal.
    pub resize: mpsc::Receiver<TerminalSize>,
    /// Tells the client how it ended.
    pub status: StatusSender,
    /// Becomes true when the client has left.
    pub closed: watch::Receiver<bool>,
}

/// Ends the session. Dropping it without [`StatusSender::finish`] closes the connection without a word.
pub struct StatusSender {
    version: u8,
    end: End,
}

enum End {
    Spdy { session: Session, error: Box<SpdyStream> },
    WebSocket(Channels),
}

impl StatusSender {
    /// Sends the outcome after everything that was written before, and closes the connection. Writers should have been
    /// shut down or at least not be written to any more.
    pub async fn finish(self, outcome: &Outcome) {
        let message = outcome.encode(self.version);
        match self.end {
            End::Spdy { session, mut error } => {
                // A client that has left does not need to know.
                let _ = error.write_all(&message).await;
                let _ = error.shutdown().await;
                session.close().await;
            }
            End::WebSocket(channels) => {
                if !message.is_empty() {
                    channels.send(ERROR, message.into()).await;
                }
                channels.close().await;
            }
        }
    }
}

/// Sets up the streams on an upgraded connection.
///
/// # Errors
/// A SPDY client that does not open the streams it asked for within 30 seconds, or leaves before.
pub async fn serve<T: Io>(
    io: T,
    protocol: Protocol,
    mut options: Options,
) -> Result<RemoteStreams, StreamError> {
    options.stderr &= !options.tty;
    match protocol.wire {
        Wire::Spdy => serve_spdy(io, protocol.version, options).await,
        Wire::WebSocket | Wire::WebSocketBase64 => Ok(serve_websocket(io, protocol, options).await),
        Wire::WebSocketTunnel => Err(StreamError::Unsupported("exec has no tunnelled protocol".to_owned())),
    }
}

async fn serve_websocket<T: Io>(io: T, protocol: Protocol, options: Options) -> RemoteStreams {
    let (channels, mut inbound) = Channels::start(io, WsRole::Server, protocol, &[STDIN, RESIZE]).await;
    // Tells the client that the streams are there; clients of the base64 and older protocols wait for it.
    let first = if options.stdout {
        STDOUT
    } else if options.stderr {
        STDERR
    } else {
        ERROR
    };
    channels.send(first, Bytes::new()).await;
    let mut reader = |channel| {
        let queue = inbound.remove(&channel).expect("invariant: the channel was asked for above");
        Box::new(QueueReader::new(queue)) as ReadStream
    };
    let resize = terminal_sizes(options.tty.then(|| reader(RESIZE)));
    let writer = |channel, wanted: bool| wanted.then(|| Box::new(channels.writer(channel)) as WriteStream);
    RemoteStreams {
        stdin: options.stdin.then(|| reader(STDIN)),
        stdout: writer(STDOUT, options.stdout),
        stderr: writer(STDERR, options.stderr),
        resize,
        closed: channels.closed(),
        status: StatusSender { version: protocol.version, end: End::WebSocket(channels) },
    }
}

async fn serve_spdy<T: Io>(io: T, version: u8, options: Options) -> Result<RemoteStreams, StreamError> {
    let mut session = Session::start(io, Role::Server, WINDOW);
    let mut opened = Opened::default();
    let want_resize = options.tty && version >= 3;
    let all = tokio::time::timeout(OPEN_TIMEOUT, async {
        while !opened.complete(options, want_resize) {
            let incoming = session.accept().await.ok_or(StreamError::Closed)?;
            let slot = match incoming.header("streamtype") {
                Some("error") => &mut opened.error,
                Some("stdin") if options.stdin => &mut opened.stdin,
                Some("stdout") if options.stdout => &mut opened.stdout,
                Some("stderr") => &mut opened.stderr,
                Some("resize") if want_resize => &mut opened.resize,
                other => {
                    return Err(StreamError::Protocol(format!("unexpected stream type {other:?}")));
                }
            };
            *slot = Some(incoming.accept());
        }
        Ok(())
    });
    all.await.map_err(|_| StreamError::Timeout)??;
    session.refuse_further();
    let error = opened.error.take().expect("invariant: complete");
    let output = |stream: Option<SpdyStream>, wanted: bool| {
        stream.filter(|_| wanted).map(|s| Box::new(write_half(s)) as WriteStream)
    };
    Ok(RemoteStreams {
        stdin: opened.stdin.map(|s| Box::new(s) as ReadStream),
        stdout: output(opened.stdout, options.stdout),
        stderr: output(opened.stderr, options.stderr),
        resize: terminal_sizes(opened.resize.map(|s| Box::new(s) as ReadStream)),
        closed: session.closed(),
        status: StatusSender { version, end: End::Spdy { session, error: Box::new(error) } },
    })
}

fn write_half(stream: SpdyStream) -> SpdyWriter {
    stream.into_split().1
}

#[derive(Default)]
struct Opened {
    error: Option<SpdyStream>,
    stdin: Option<SpdyStream>,
    stdout: Option<SpdyStream>,
    stderr: Option<SpdyStream>,
    resize: Option<SpdyStream>,
}

impl Opened {
    fn complete(&self, options: Options, resize: bool) -> bool {
        self.error.is_some()
            && self.stdin.is_some() >= options.stdin
            && self.stdout.is_some() >= options.stdout
            && self.stderr.is_some() >= options.stderr
            && self.resize.is_some() >= resize
    }
}

/// What clients send for a terminal size.
#[derive(Deserialize)]
struct WireSize {
    #[serde(alias = "Width", default)]
    width: u16,
    #[serde(alias = "Height", default)]
    height: u16,
}

/// Reads a stream of JSON objects, one after the other, with or without white space between them.
fn terminal_sizes(stream: Option<ReadStream>) -> mpsc::Receiver<TerminalSize> {
    let (sender, receiver) = mpsc::channel(RESIZES);
    if let Some(mut stream) = stream {
        tokio::spawn(async move {
            let mut pending = Vec::new();
            while pending.len() < MAX_RESIZE && stream.read_buf(&mut pending).await.is_ok_and(|n| n > 0) {
                for size in take_sizes(&mut pending) {
                    if sender.send(size).await.is_err() {
                        return;
                    }
                }
            }
        });
    }
    receiver
}

fn take_sizes(pending: &mut Vec<u8>) -> Vec<TerminalSize> {
    let mut sizes = Vec::new();
    let mut objects = serde_json::Deserializer::from_slice(pending).into_iter::<WireSize>();
    let mut taken = 0;
    while let Some(Ok(size)) = objects.next() {
        taken = objects.byte_offset();
        sizes.push(TerminalSize { width: size.width, height: size.height });
    }
    pending.drain(..taken);
    sizes
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn sizes_come_in_any_pieces() {
        let mut pending = br#"{"Width":80,"Height":24}
{"width":100,"height":30}{"Wi"#
            .to_vec();
        let sizes = take_sizes(&mut pending);
        assert_eq!(sizes, [TerminalSize { width: 80, height: 24 }, TerminalSize { width: 100, height: 30 }]);
        assert_eq!(pending, br#"{"Wi"#);
    }
}
