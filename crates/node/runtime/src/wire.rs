//! Packets with descriptors over a `SOCK_SEQPACKET` socket.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sockopt,
};

use crate::protocol::MAX_MESSAGE;

/// Sends one packet. `WouldBlock` means that nothing was sent.
pub fn send(socket: BorrowedFd<'_>, packet: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors in one message"));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    rustix::net::sendmsg(socket, &[IoSlice::new(packet)], &mut control, flags)?;
    Ok(())
}

/// Receives one packet with its descriptors; `None` is the end of the connection.
pub fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let peek = RecvFlags::PEEK | RecvFlags::TRUNC | RecvFlags::DONTWAIT;
    let (_, size) = rustix::net::recv(socket, &mut [0_u8; 1], peek)?;
    if size == 0 {
        return Ok(None);
    }
    if size > MAX_MESSAGE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "message is too large"));
    }
    let mut packet = vec![0; size];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut packet)], &mut control, flags)?;
    packet.truncate(received.bytes);
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    Ok(Some((packet, fds)))
}

/// A listening socket at `path`, for root only. A stale file is replaced: the caller holds the lock.
pub fn listen(path: &Path) -> io::Result<OwnedFd> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = new_socket()?;
    with_short_path(path, |address| Ok(rustix::net::bind(&socket, address)?))?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    rustix::net::listen(&socket, 64)?;
    Ok(socket)
}

/// Connects to the socket at `path`.
pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    let socket = new_socket()?;
    with_short_path(path, |address| Ok(rustix::net::connect(&socket, address)?))?;
    Ok(socket)
}

/// Accepts a connection.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let socket = rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    enlarge(&socket);
    Ok(socket)
}

/// A connected pair, for handing a pty master over.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

fn new_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    enlarge(&socket);
    Ok(socket)
}

/// A packet must fit the send buffer. Being refused only lowers the largest possible message.
fn enlarge(socket: &OwnedFd) {
    if sockopt::set_socket_send_buffer_size_force(socket, 2 * MAX_MESSAGE).is_err() {
        tracing::debug!("send buffer of the supervisor's socket could not be enlarged");
    }
}

/// Socket addresses hold 107 bytes; a directory descriptor makes any path short.
fn with_short_path<T>(path: &Path, act: impl FnOnce(&SocketAddrUnix) -> io::Result<T>) -> io::Result<T> {
    use std::os::fd::AsRawFd;
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "socket path has no directory or name");
    let directory = std::fs::File::open(path.parent().ok_or_else(invalid)?)?;
    let name = path.file_name().and_then(|n| n.to_str()).ok_or_else(invalid)?;
    let short = format!("/proc/self/fd/{}/{name}", directory.as_fd().as_raw_fd());
    act(&SocketAddrUnix::new(short)?)
}
