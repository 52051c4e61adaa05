//! One stream: headers, a half to read and a half to write.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::PollSender;

use super::flow::{Queue, Shared};
use super::frame::{CANCEL, Control};
use super::headers::Headers;
use crate::streams::CHUNK;

/// Data on its way out.
pub(super) struct Data {
    pub(super) stream: u32,
    pub(super) bytes: Bytes,
    pub(super) fin: bool,
}

/// An open stream.
pub struct SpdyStream {
    pub(super) id: u32,
    pub(super) headers: Headers,
    pub(super) reader: SpdyReader,
    pub(super) writer: SpdyWriter,
    pub(super) shared: Arc<Shared>,
    pub(super) replied: Option<oneshot::Receiver<()>>,
}

impl SpdyStream {
    /// Number of the stream; odd for streams of the client.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// First value of a header the stream was opened with.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Waits until the other side has accepted the stream. Streams of the other side are accepted already.
    ///
    /// # Errors
    /// `ConnectionRefused` when it was not accepted.
    pub async fn accepted(&mut self) -> io::Result<()> {
        match self.replied.take() {
            Some(reply) => reply.await.map_err(|_| io::ErrorKind::ConnectionRefused.into()),
            None => Ok(()),
        }
    }

    /// Ends the stream at once in both directions.
    pub fn reset(self) {
        self.shared.push(Control::RstStream { stream: self.id, status: CANCEL });
        self.shared.reset(self.id);
    }

    /// Splits the stream. Dropping the reader throws further data away; dropping the writer closes its direction.
    pub fn into_split(self) -> (SpdyReader, SpdyWriter) {
        (self.reader, self.writer)
    }
}

impl AsyncRead for SpdyStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(cx, buf)
    }
}

impl AsyncWrite for SpdyStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_shutdown(cx)
    }
}

/// Reads a stream. Ends when the other side closes it; a reset is `ConnectionReset`.
pub struct SpdyReader {
    pub(super) id: u32,
    pub(super) queue: Queue,
    pub(super) current: Bytes,
    pub(super) reset: Arc<AtomicBool>,
    pub(super) shared: Arc<Shared>,
}

impl AsyncRead for SpdyReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.current.is_empty() {
            match ready!(self.queue.queue.poll_recv(cx)) {
                Some(piece) => self.current = piece,
                None if self.reset.load(Ordering::Acquire) => {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                }
                None => return Poll::Ready(Ok(())),
            }
        }
        let n = self.current.len().min(buf.remaining());
        buf.put_slice(&self.current.split_to(n));
        self.queue.read(n);
        self.shared.consumed(self.id, n);
        Poll::Ready(Ok(()))
    }
}

impl Drop for SpdyReader {
    fn drop(&mut self) {
        // What was queued counts as read, or the connection's window would shrink for ever.
        let left = self.current.len() + self.queue.close();
        self.shared.consumed(self.id, left);
    }
}

/// Writes a stream.
pub struct SpdyWriter {
    pub(super) id: u32,
    pub(super) queue: PollSender<Data>,
    pub(super) shared: Arc<Shared>,
    pub(super) shut: bool,
}

impl AsyncWrite for SpdyWriter {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if ready!(self.queue.poll_reserve(cx)).is_err() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let shared = self.shared.clone();
        let mut state = shared.lock();
        let n = match state.allowance(self.id) {
            None => {
                self.queue.abort_send();
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            Some(0) => {
                self.queue.abort_send();
                state.wait(cx.waker());
                return Poll::Pending;
            }
            Some(room) => room.min(buf.len()).min(CHUNK),
        };
        state.spend(self.id, n);
        drop(state);
        let data = Data { stream: self.id, bytes: Bytes::copy_from_slice(&buf[..n]), fin: false };
        let sent = self.queue.send_item(data);
        Poll::Ready(sent.map(|()| n).map_err(|_| io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.shut {
            return Poll::Ready(Ok(()));
        }
        if ready!(self.queue.poll_reserve(cx)).is_ok() {
            let fin = Data { stream: self.id, bytes: Bytes::new(), fin: true };
            // The connection may be gone, which closes the stream as well.
            let _ = self.queue.send_item(fin);
        }
        self.shut = true;
        self.shared.half_closed(self.id, true);
        Poll::Ready(Ok(()))
    }
}

impl Drop for SpdyWriter {
    fn drop(&mut self) {
        if self.shut || *self.shared.closing.borrow() {
            return;
        }
        self.shared.half_closed(self.id, true);
        self.queue.abort_send();
        let fin = Data { stream: self.id, bytes: Bytes::new(), fin: true };
        let Some(queue) = self.queue.get_ref().cloned() else { return };
        if let Err(mpsc::error::TrySendError::Full(fin)) = queue.try_send(fin)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            // Ends with the connection at the latest, when the queue's receiver goes.
            runtime.spawn(async move { queue.send(fin).await });
        }
    }
}
