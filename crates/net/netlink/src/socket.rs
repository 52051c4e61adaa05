//! A netlink socket with request, dump and batch.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::message::{self, ACK, DUMP, Message, REQUEST};

/// `NETLINK_ROUTE`.
pub const ROUTE: u32 = 0;
/// `NETLINK_NETFILTER`.
pub const NETFILTER: u32 = 12;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const FLAG_DUMP_INTERRUPTED: u16 = 0x10;
const FLAG_CAPPED: u16 = 0x100;
const FLAG_ACK_TLVS: u16 = 0x200;
const ATTR_MESSAGE: u16 = 1;
/// Tries of a dump that a concurrent change interrupted.
const DUMP_TRIES: u32 = 16;
/// Room for one datagram; the kernel sends dumps in pieces of at most 32 KiB (`netlink_dump`).
const RECEIVE_BUFFER: usize = 64 * 1024;

/// Why a request to the kernel failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A socket call failed.
    #[error("netlink {operation}: {source}")]
    Io {
        /// The call or request.
        operation: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The kernel refused the request.
    #[error("{operation}: {source}{}", hint(.message))]
    Refused {
        /// The request.
        operation: String,
        /// The kernel's explanation (extended acknowledgement), often empty.
        message: String,
        /// The error number.
        #[source]
        source: io::Error,
    },
    /// The answer was not understood.
    #[error("{operation}: the kernel's answer was malformed")]
    Malformed {
        /// The request.
        operation: String,
    },
    /// A dump was interrupted by changes again and again.
    #[error("{operation}: the listing kept changing while it was read")]
    Unstable {
        /// The request.
        operation: String,
    },
}

impl Error {
    /// The kernel's error number, if it refused the request.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } | Self::Io { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    /// Whether the object asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self.errno(), Some(libc::ENOENT | libc::ENODEV | libc::ESRCH | libc::EADDRNOTAVAIL))
    }

    /// Whether the object exists already.
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(libc::EEXIST)
    }
}

/// One message's failure inside a batch.
#[derive(Debug)]
pub struct Refusal {
    /// Sequence number of the message.
    pub seq: u32,
    /// Positive error number.
    pub errno: i32,
    /// The kernel's explanation, often empty.
    pub message: String,
}

/// A netlink socket of one protocol, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Socket {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    fd: OwnedFd,
    seq: u32,
    send_buffer: usize,
}

impl Socket {
    /// Opens a socket of `protocol` in the calling thread's network namespace.
    pub fn open(protocol: u32) -> Result<Self, Error> {
        let protocol = std::num::NonZeroU32::new(protocol).map(Protocol::from_raw);
        let fd =
            rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
                .map_err(|errno| io_error("socket", errno))?;
        // Both only make errors richer and shorter; kernels without them still work.
        enable(&fd, libc::NETLINK_CAP_ACK);
        enable(&fd, libc::NETLINK_EXT_ACK);
        Ok(Self { inner: Mutex::new(Inner { fd, seq: 0, send_buffer: 0 }) })
    }

    /// Sends one request and waits for its acknowledgement.
    pub fn request(&self, operation: &str, message: Message) -> Result<(), Error> {
        self.get(operation, message, |_, _| {})
    }

    /// Sends one request, hands what is answered to `each`, and waits for the acknowledgement.
    pub fn get(
        &self,
        operation: &str,
        mut message: Message,
        mut each: impl FnMut(u16, &[u8]),
    ) -> Result<(), Error> {
        message.flag(REQUEST | ACK);
        let mut inner = self.lock();
        let seq = inner.send(&[message])?;
        let mut buffer = vec![0; RECEIVE_BUFFER];
        loop {
            let len = inner.receive(&mut buffer, RecvFlags::empty())?;
            for received in message::messages(&buffer[..len]) {
                if received.seq != seq {
                    continue;
                }
                if received.kind != NLMSG_ERROR {
                    each(received.kind, received.body);
                    continue;
                }
                return match refusal(&received) {
                    Some(found) => Err(refused(operation, found)),
                    None => Ok(()),
                };
            }
        }
    }

    /// Sends a dump request and hands the body of every answer to `each`, which may see part of the list twice
    /// when it changed meanwhile: `restart` is called before each new try.
    pub fn dump(
        &self,
        operation: &str,
        mut message: Message,
        mut restart: impl FnMut(),
        mut each: impl FnMut(u16, &[u8]),
    ) -> Result<(), Error> {
        message.flag(REQUEST | DUMP);
        let mut inner = self.lock();
        for _ in 0..DUMP_TRIES {
            restart();
            if inner.dump_once(operation, &message, &mut each)? {
                return Ok(());
            }
        }
        Err(Error::Unstable { operation: operation.to_owned() })
    }

    /// Sends `messages` in one datagram, the last but one asking for an acknowledgement, and returns the sequence
    /// number of the first message and all refusals. Everything is decided when `sendmsg` returns.
    pub fn batch(&self, messages: &[Message]) -> Result<(u32, Vec<Refusal>), Error> {
        let mut inner = self.lock();
        let last = inner.send(messages)?;
        let count = u32::try_from(messages.len()).expect("invariant: a batch is bounded");
        let first = last.wrapping_sub(count - 1);
        let mut refusals = Vec::new();
        let mut buffer = vec![0; RECEIVE_BUFFER];
        loop {
            let len = match inner.receive(&mut buffer, RecvFlags::DONTWAIT) {
                Ok(len) => len,
                Err(error) if error.errno() == Some(libc::EAGAIN) => return Ok((first, refusals)),
                Err(error) => return Err(error),
            };
            for received in message::messages(&buffer[..len]) {
                if received.seq.wrapping_sub(first) < count && received.kind == NLMSG_ERROR {
                    refusals.extend(refusal(&received));
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while the lock was held leaves at most unread answers, which the sequence numbers filter out.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn send(&mut self, messages: &[Message]) -> Result<u32, Error> {
        let mut out = Vec::with_capacity(messages.iter().map(Message::len).sum());
        for message in messages {
            self.seq = self.seq.wrapping_add(1);
            message.write(self.seq, &mut out);
        }
        self.grow(out.len());
        let sent = retry(|| rustix::net::send(&self.fd, &out, SendFlags::empty()))
            .map_err(|errno| io_error("send", errno))?;
        if sent != out.len() {
            return Err(io_error("send", rustix::io::Errno::MSGSIZE));
        }
        Ok(self.seq)
    }

    /// `netlink_sendmsg` refuses a datagram larger than the send buffer with `EMSGSIZE`.
    fn grow(&mut self, datagram: usize) {
        let wanted = datagram.saturating_mul(2).max(256 * 1024);
        if wanted <= self.send_buffer {
            return;
        }
        let value = libc::c_int::try_from(wanted).unwrap_or(libc::c_int::MAX);
        if set_option(&self.fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, value).is_ok() {
            self.send_buffer = wanted;
        }
        // Refusals come one per message; room for them keeps the first from being lost.
        let _ = set_option(&self.fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 4 * 1024 * 1024);
    }

    fn receive(&self, buffer: &mut [u8], flags: RecvFlags) -> Result<usize, Error> {
        let (len, _) = retry(|| rustix::net::recv(&self.fd, &mut *buffer, flags))
            .map_err(|errno| io_error("receive", errno))?;
        Ok(len)
    }

    /// One try; `Ok(false)` when the list changed meanwhile.
    fn dump_once(
        &mut self,
        operation: &str,
        message: &Message,
        each: &mut impl FnMut(u16, &[u8]),
    ) -> Result<bool, Error> {
        let seq = self.send(std::slice::from_ref(message))?;
        let mut whole = true;
        let mut buffer = vec![0; RECEIVE_BUFFER];
        loop {
            let len = self.receive(&mut buffer, RecvFlags::empty())?;
            for received in message::messages(&buffer[..len]) {
                if received.seq != seq {
                    continue;
                }
                whole &= received.flags & FLAG_DUMP_INTERRUPTED == 0;
                match received.kind {
                    NLMSG_DONE => return dump_end(operation, &received, whole),
                    NLMSG_ERROR => match refusal(&received) {
                        Some(found) if found.errno == libc::EINTR => return Ok(false),
                        Some(found) => return Err(refused(operation, found)),
                        None => return Ok(whole),
                    },
                    kind => each(kind, received.body),
                }
            }
        }
    }
}

fn dump_end(operation: &str, received: &message::Received<'_>, whole: bool) -> Result<bool, Error> {
    let code = received.body.get(..4).and_then(|bytes| message::u32_at(bytes, 0)).unwrap_or(0).cast_signed();
    match -code {
        errno if errno == libc::EINTR => Ok(false),
        errno if errno > 0 => {
            Err(refused(operation, Refusal { seq: received.seq, errno, message: String::new() }))
        }
        _ => Ok(whole),
    }
}

fn refusal(received: &message::Received<'_>) -> Option<Refusal> {
    let errno = -message::u32_at(received.body, 0)?.cast_signed();
    if errno == 0 {
        return None;
    }
    let mut explained = String::new();
    if received.flags & FLAG_ACK_TLVS != 0 {
        // Without the cap flag the offending message is echoed whole before the attributes.
        let echoed = if received.flags & FLAG_CAPPED != 0 {
            message::HEADER_LEN
        } else {
            usize::try_from(message::u32_at(received.body, 4)?).ok()?.next_multiple_of(4)
        };
        let attrs = received.body.get(4 + echoed..).unwrap_or(&[]);
        explained = message::find(attrs, ATTR_MESSAGE).map(message::text).unwrap_or_default();
    }
    Some(Refusal { seq: received.seq, errno, message: explained })
}

fn refused(operation: &str, refusal: Refusal) -> Error {
    Error::Refused {
        operation: operation.to_owned(),
        message: refusal.message,
        source: io::Error::from_raw_os_error(refusal.errno),
    }
}

fn hint(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" ({message})") }
}

fn io_error(operation: &'static str, errno: rustix::io::Errno) -> Error {
    Error::Io { operation, source: errno.into() }
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            other => return other,
        }
    }
}

fn enable(fd: &OwnedFd, option: libc::c_int) {
    let _ = set_option(fd, libc::SOL_NETLINK, option, 1);
}

#[allow(unsafe_code)]
fn set_option(fd: &OwnedFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let size = libc::socklen_t::try_from(size_of_val(&value)).expect("invariant: an int is small");
    // SAFETY: the pointer is to a live int and the length is that of an int; the kernel only reads it.
    let code = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const value).cast(), size) };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
