//! Signals and processes. The first process of a container gets only those signals it handles, and is the parent of
//! all orphans.
//!
//! The standard library has no way to handle a signal or to split a process, so that this module declares functions
//! of the C library, all of which are the same in all of them (POSIX.1-2017).
#![allow(unsafe_code)]

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;
const SIGCHLD: i32 = 17;
const SIG_DFL: usize = 0;
const SIG_IGN: usize = 1;
const F_DUPFD_CLOEXEC: i32 = 1030;
/// Descriptors that a shell keeps for itself begin here.
const FIRST_KEPT: i32 = 10;

/// Names of signals by number.
pub const NAMES: &[(&str, i32)] = &[
    ("EXIT", 0),
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ABRT", 6),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("WINCH", 28),
];

unsafe extern "C" {
    fn signal(number: i32, action: usize) -> usize;
    fn siginterrupt(number: i32, flag: i32) -> i32;
    fn fork() -> i32;
    fn waitpid(pid: i32, status: *mut i32, options: i32) -> i32;
    #[link_name = "kill"]
    fn c_kill(pid: i32, number: i32) -> i32;
    fn _exit(code: i32) -> !;
    fn dup2(from: i32, to: i32) -> i32;
    #[link_name = "close"]
    fn c_close(descriptor: i32) -> i32;
    fn fcntl(descriptor: i32, command: i32, argument: i32) -> i32;
    #[link_name = "umask"]
    fn c_umask(mask: u32) -> u32;
}

static WAKE: OnceLock<PipeWriter> = OnceLock::new();
/// Signals that came and whose traps have not run yet, a bit each.
static PENDING: AtomicU64 = AtomicU64::new(0);

extern "C" fn wake(_: i32) {
    if let Some(mut pipe) = WAKE.get() {
        // One write(2), which a handler may do. A full pipe has woken the reader already.
        let _ = pipe.write(&[1]);
    }
}

extern "C" fn note(number: i32) {
    PENDING.fetch_or(1 << number, Ordering::SeqCst);
}

extern "C" fn end(number: i32) {
    // SAFETY: _exit(2) may be called in a handler.
    unsafe { _exit(128 + number) }
}

extern "C" fn nothing(_: i32) {}

fn handle(number: i32, handler: extern "C" fn(i32)) {
    // SAFETY: `handler` is a function of the type signal(2) asks for, and does no more than a handler may.
    unsafe { signal(number, handler as *const () as usize) };
}

fn act(number: i32, action: usize) {
    // SAFETY: called with the two constants that are valid actions only.
    unsafe { signal(number, action) };
}

/// Waits for SIGTERM or SIGINT, from the moment it was made.
pub struct Stop(PipeReader);

impl Stop {
    /// Starts to listen.
    pub fn listen() -> Result<Self, String> {
        let (reader, writer) = std::io::pipe().map_err(|e| format!("pipe: {e}"))?;
        WAKE.get_or_init(|| writer);
        handle(SIGTERM, wake);
        handle(SIGINT, wake);
        Ok(Self(reader))
    }

    /// Blocks until a signal comes.
    pub fn wait(mut self) {
        // An error could only mean that no signal can come any more.
        let _ = self.0.read_exact(&mut [0]);
    }
}

/// Lets the kernel bury children that nobody waits for.
pub fn reap_orphans() {
    act(SIGCHLD, SIG_IGN);
}

/// Ctrl-C ends the command in the foreground, not the shell. (A handler, not SIG_IGN: commands must not inherit it.)
pub fn keep_on_interrupt() {
    handle(SIGINT, nothing);
}

/// As the first process of a container, ends on SIGTERM as any other process would, rather than ignore it.
pub fn end_on_terminate() {
    handle(SIGTERM, end);
}

/// What a shell does when a signal comes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// What the system does.
    Default,
    /// Nothing.
    Ignore,
    /// Note it for [`pending`]; a wait in progress ends.
    Note,
}

/// Sets what happens when a signal comes.
pub fn on(number: i32, action: Action) {
    match action {
        Action::Default => act(number, SIG_DFL),
        Action::Ignore => act(number, SIG_IGN),
        Action::Note => {
            handle(number, note);
            // SAFETY: changes only whether system calls go on after a handler.
            unsafe { siginterrupt(number, 1) };
        }
    }
}

/// A signal that came since the last call.
pub fn pending() -> Option<i32> {
    let all = PENDING.load(Ordering::SeqCst);
    let number = (all != 0).then(|| all.trailing_zeros())?;
    PENDING.fetch_and(!(1 << number), Ordering::SeqCst);
    i32::try_from(number).ok()
}

/// Whether a signal has come.
pub fn is_pending() -> bool {
    PENDING.load(Ordering::SeqCst) != 0
}

/// Splits the process: 0 in the child, the child's number in the parent. Only for processes of one thread.
pub fn split() -> io::Result<i32> {
    // SAFETY: the callers have no other threads, whose locks the child could find taken for ever.
    checked(unsafe { fork() })
}

/// Waits for a child, any of them for -1. `None` if `hang` is false and none has ended. The second number is the exit
/// code, or 128 and the signal.
pub fn reap(pid: i32, hang: bool) -> io::Result<Option<(i32, u8)>> {
    const WNOHANG: i32 = 1;
    let mut status = 0;
    // SAFETY: `status` is a place for one number.
    let pid = checked(unsafe { waitpid(pid, &raw mut status, if hang { 0 } else { WNOHANG }) })?;
    let signal = status & 0x7f;
    let code = if signal == 0 { (status >> 8) & 0xff } else { 128 + signal };
    Ok((pid > 0).then(|| (pid, u8::try_from(code).unwrap_or(255))))
}

/// Sends a signal, 0 to see whether the process exists.
pub fn kill(pid: i32, number: i32) -> io::Result<()> {
    // SAFETY: takes two numbers.
    checked(unsafe { c_kill(pid, number) }).map(drop)
}

/// Ends at once, without whatever the parent would do at its end.
pub fn leave(code: u8) -> ! {
    // SAFETY: takes a number.
    unsafe { _exit(code.into()) }
}

/// A copy of a descriptor that commands do not inherit, out of the way of those that scripts name.
pub fn keep(descriptor: i32) -> io::Result<i32> {
    // SAFETY: takes numbers; the copy belongs to the caller.
    checked(unsafe { fcntl(descriptor, F_DUPFD_CLOEXEC, FIRST_KEPT) })
}

/// Makes `to` the same as `from`. Commands inherit it.
pub fn put(from: i32, to: i32) -> io::Result<()> {
    // SAFETY: takes numbers. What `to` was is no object's own: scripts name 0 to 9 only.
    checked(unsafe { dup2(from, to) }).map(drop)
}

/// Closes a descriptor by its number.
pub fn close(descriptor: i32) {
    // SAFETY: the callers close what no object owns.
    unsafe { c_close(descriptor) };
}

/// Sets the mode bits that new files do not get, and returns the former ones.
pub fn umask(mask: u32) -> u32 {
    // SAFETY: takes a number.
    unsafe { c_umask(mask) }
}

fn checked(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The number of a signal by name (with or without `SIG`) or number.
pub fn number_of(name: &str) -> Option<i32> {
    let plain = name.to_ascii_uppercase();
    let plain = plain.strip_prefix("SIG").unwrap_or(&plain);
    let named = NAMES.iter().find(|(known, _)| *known == plain).map(|(_, number)| *number);
    named.or_else(|| plain.parse().ok().filter(|number| (0..64).contains(number)))
}
