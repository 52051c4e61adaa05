//! The few kernel calls that no safe crate offers. All `unsafe` of this crate is here.

pub mod bpf;
pub mod mount;
pub mod process;
pub mod reactor;

use std::io;

/// Turns the result of a raw system call into a `Result`.
fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
