//! `bpf(2)`: device filters of control groups.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::check;

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
/// `BPF_PROG_TYPE_CGROUP_DEVICE`.
const TYPE_CGROUP_DEVICE: u32 = 15;
/// `BPF_CGROUP_DEVICE`.
const ATTACH_DEVICE: u32 = 6;
/// `BPF_F_ALLOW_MULTI`.
const ALLOW_MULTI: u32 = 2;

/// `union bpf_attr` of `BPF_PROG_LOAD`, as far as we use it.
#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
}

/// `union bpf_attr` of `BPF_PROG_ATTACH`, as far as we use it.
#[repr(C)]
struct AttachAttr {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

/// Loads a device filter; every element of `program` is a `struct bpf_insn` in native byte order. The verifier
/// writes what it thinks into `log`, ended by a NUL byte; it does less if `log` is empty.
///
/// Needs `CAP_BPF` and `CAP_NET_ADMIN`, or `CAP_SYS_ADMIN`.
pub fn load_device_filter(program: &[u64], log: &mut [u8]) -> io::Result<OwnedFd> {
    let mut attr = LoadAttr {
        prog_type: TYPE_CGROUP_DEVICE,
        insn_cnt: program.len() as u32,
        insns: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        ..LoadAttr::default()
    };
    if !log.is_empty() {
        (attr.log_level, attr.log_size, attr.log_buf) = (1, log.len() as u32, log.as_mut_ptr() as u64);
    }
    // SAFETY: `attr` is a valid prefix of `union bpf_attr` of the given size. The kernel reads `insn_cnt` instructions
    // and a NUL-terminated string, writes at most `log_size` bytes into `log`, and keeps no pointer.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw mut attr, size_of::<LoadAttr>()) };
    let fd = check(fd)?;
    // SAFETY: the kernel returned a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Attaches a device filter to the control group whose directory `group` is, beside those of its ancestors: a device
/// may be used if none of them objects. The group keeps the program alive.
pub fn attach_device_filter(group: BorrowedFd<'_>, program: &OwnedFd) -> io::Result<()> {
    let mut attr = AttachAttr {
        target_fd: group.as_raw_fd() as u32,
        attach_bpf_fd: program.as_fd().as_raw_fd() as u32,
        attach_type: ATTACH_DEVICE,
        attach_flags: ALLOW_MULTI,
    };
    // SAFETY: `attr` is a valid prefix of `union bpf_attr` of the given size; it holds no pointers.
    check(unsafe { libc::syscall(libc::SYS_bpf, PROG_ATTACH, &raw mut attr, size_of::<AttachAttr>()) })
        .map(drop)
}
