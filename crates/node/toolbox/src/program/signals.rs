//! Signals. The first process of a container gets only those it handles, and is the parent of all orphans.
//!
//! The standard library has no way to handle a signal, so that this module declares one function of the C library.
#![allow(unsafe_code)]

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::sync::OnceLock;

const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;
const SIGCHLD: i32 = 17;
const SIG_IGN: usize = 1;

unsafe extern "C" {
    fn signal(number: i32, action: usize) -> usize;
}

static WAKE: OnceLock<PipeWriter> = OnceLock::new();

extern "C" fn wake(_: i32) {
    if let Some(mut pipe) = WAKE.get() {
        // One write(2), which a handler may do. A full pipe has woken the reader already.
        let _ = pipe.write(&[1]);
    }
}

extern "C" fn nothing(_: i32) {}

fn handle(number: i32, handler: extern "C" fn(i32)) {
    // SAFETY: `handler` is a function of the type signal(2) asks for, and does nothing but one write(2) at most.
    unsafe { signal(number, handler as *const () as usize) };
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
    // SAFETY: SIG_IGN is a valid action; with it the kernel keeps no zombies.
    unsafe { signal(SIGCHLD, SIG_IGN) };
}

/// Ctrl-C ends the command in the foreground, not the shell. (A handler, not SIG_IGN: commands must not inherit it.)
pub fn keep_on_interrupt() {
    handle(SIGINT, nothing);
}
