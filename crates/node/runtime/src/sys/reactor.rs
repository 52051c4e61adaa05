//! Registering descriptors with the asynchronous runtime.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Watches a non-blocking descriptor, which the result owns.
pub fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd stays open and names the same descriptor until it is dropped, and AsyncFd drops it only
    // after taking it out of the reactor.
    Ok(unsafe { AsyncFd::register(fd) }?)
}
