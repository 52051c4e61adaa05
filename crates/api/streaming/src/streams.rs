//! The byte streams that come out of every protocol.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;

/// Bytes from the other side; ends when it closed the stream.
pub type ReadStream = Box<dyn AsyncRead + Send + Unpin>;
/// Bytes to the other side; shutting it down closes the stream.
pub type WriteStream = Box<dyn AsyncWrite + Send + Unpin>;

/// Largest piece of one stream put on the wire at once, in bytes.
pub(crate) const CHUNK: usize = 32 * 1024;
/// Pieces that wait in one stream's queue before its sender has to wait.
pub(crate) const QUEUE: usize = 16;

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// Why streams could not be set up or broke.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The connection failed.
    #[error("streaming connection: {0}")]
    Io(#[from] io::Error),
    /// The other side did not open the streams it announced in its request in time.
    #[error("timed out waiting for the client to open its streams")]
    Timeout,
    /// The other side left.
    #[error("the connection was closed by the other side")]
    Closed,
    /// The other side broke the protocol.
    #[error("protocol error: {0}")]
    Protocol(String),
    /// The negotiated protocol does not carry what is asked for.
    #[error("{0}")]
    Unsupported(String),
}

/// Reads a queue of pieces as a byte stream.
pub(crate) struct QueueReader {
    queue: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl QueueReader {
    pub(crate) fn new(queue: mpsc::Receiver<Bytes>) -> Self {
        Self { queue, current: Bytes::new() }
    }
}

impl AsyncRead for QueueReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.current.is_empty() {
            match self.queue.poll_recv(cx) {
                Poll::Ready(Some(piece)) => self.current = piece,
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        }
        let n = self.current.len().min(buf.remaining());
        buf.put_slice(&self.current.split_to(n));
        Poll::Ready(Ok(()))
    }
}

/// A piece of one channel on its way out; an empty `closes` piece is the end of the channel.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) channel: u8,
    pub(crate) bytes: Bytes,
    pub(crate) closes: bool,
}

/// Writes a byte stream as pieces of one channel into a shared queue.
pub(crate) struct QueueWriter {
    channel: u8,
    queue: PollSender<Outgoing>,
    shut: bool,
}

impl QueueWriter {
    pub(crate) fn new(channel: u8, queue: mpsc::Sender<Outgoing>) -> Self {
        Self { channel, queue: PollSender::new(queue), shut: false }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8], closes: bool) -> Poll<io::Result<usize>> {
        match self.queue.poll_reserve(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(_)) => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Poll::Ready(Ok(())) => {}
        }
        let n = bytes.len().min(CHUNK);
        let piece = Outgoing { channel: self.channel, bytes: Bytes::copy_from_slice(&bytes[..n]), closes };
        Poll::Ready(self.queue.send_item(piece).map(|()| n).map_err(|_| io::ErrorKind::BrokenPipe.into()))
    }
}

impl AsyncWrite for QueueWriter {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.shut {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.poll_send(cx, buf, false)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.shut {
            return Poll::Ready(Ok(()));
        }
        match self.poll_send(cx, &[], true) {
            Poll::Pending => Poll::Pending,
            // Closing what the other side has left already is no failure.
            Poll::Ready(_) => {
                self.shut = true;
                self.queue.close();
                Poll::Ready(Ok(()))
            }
        }
    }
}
