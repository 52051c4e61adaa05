//! Descriptors as asynchronous byte streams.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A pipe end or a pty master.
pub struct FdStream {
    fd: Option<Arc<AsyncFd<OwnedFd>>>,
}

impl FdStream {
    /// Makes the descriptor non-blocking and wraps it.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Self { fd: Some(Arc::new(crate::sys::reactor::register(fd)?)) })
    }

    /// A second stream on the same descriptor, for the other direction of a terminal.
    pub fn share(&self) -> Self {
        Self { fd: self.fd.clone() }
    }

    /// Reads what is there now, without waiting.
    pub fn read_available(&self, limit: usize, into: &mut Vec<u8>) {
        let Some(fd) = &self.fd else { return };
        let mut buffer = [0; 8192];
        while let Ok(length @ 1..) = rustix::io::read(fd.get_ref(), &mut buffer) {
            into.extend_from_slice(&buffer[..length.min(limit.saturating_sub(into.len()))]);
        }
    }
}

impl AsyncRead for FdStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(fd) = &self.fd else { return Poll::Ready(Ok(())) };
        loop {
            let mut guard = ready!(fd.poll_read_ready(cx))?;
            let read = guard.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), out.initialize_unfilled())?));
            match read {
                Ok(Ok(length)) => {
                    out.advance(length);
                    return Poll::Ready(Ok(()));
                }
                // EIO is how a pty says that the last process has closed the terminal.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for FdStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let Some(fd) = &self.fd else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        loop {
            let mut guard = ready!(fd.poll_write_ready(cx))?;
            match guard.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), data)?)) {
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Closes the descriptor: end of file for a pipe's reader.
    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.fd = None;
        Poll::Ready(Ok(()))
    }
}
