//! Namespaces of a sandbox, held by bind mounts, and the pause process of a shared PID namespace.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use libc::{CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWPID, CLONE_NEWUTS, MS_NODEV, MS_NOEXEC, MS_NOSUID};
use serde::{Deserialize, Serialize};

use super::rootfs::{Step, step};
use crate::paths::{StateDir, write_json};
use crate::protocol::SandboxSpec;
use crate::sys::mount;
use crate::sys::process::{self, Fork};

/// The pause process of a sandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pause {
    /// Its pid on the node.
    pub pid: i32,
    /// Start time in clock ticks since boot.
    pub start_ticks: u64,
}

/// Makes a sandbox's namespaces. On failure nothing stays behind.
pub fn create(spec: &SandboxSpec, state: &StateDir) -> Step<()> {
    let made = create_all(spec, state);
    if made.is_err() {
        release(&spec.id, state);
    }
    made
}

fn create_all(spec: &SandboxSpec, state: &StateDir) -> Step<()> {
    let what = || format!("make sandbox {}", spec.id);
    step(std::fs::create_dir_all(state.sandbox_ns(&spec.id)), what)?;
    step(std::fs::create_dir_all(state.sandbox(&spec.id)), what)?;
    let mut flags = 0;
    if spec.net {
        flags |= CLONE_NEWNET | CLONE_NEWUTS;
    }
    if spec.ipc {
        flags |= CLONE_NEWIPC;
    }
    run_child(flags as u64, || {
        // The sandbox's sysctls go in here: /proc/sys shows the namespaces of who opens it.
        prepare_namespaces(spec)?;
        hold(spec, state)
    })?;
    if spec.pause {
        let pause = step(start_pause(spec), || "start pause process".into())?;
        step(write_json(&state.sandbox(&spec.id).join("pause.json"), &pause), what)?;
    }
    Ok(())
}

/// Runs `act` in a forked child with new namespaces and waits for it. It is short and touches nothing that can hang.
fn run_child(flags: u64, act: impl FnOnce() -> Step<()>) -> Step<()> {
    let pipe = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(io::Error::from);
    let (reader, writer) = step(pipe, || "pipe".into())?;
    match step(process::fork(flags), || "clone".into())? {
        Fork::Child => {
            let result = act();
            if let Err(text) = &result
                && File::from(writer).write_all(text.as_bytes()).is_err()
            {
                process::exit_now(2);
            }
            process::exit_now(result.is_err().into())
        }
        Fork::Parent(pid) => {
            drop(writer);
            let mut text = String::new();
            step(File::from(reader).read_to_string(&mut text), || "read".into())?;
            let status = step(process::wait(pid), || "wait".into())?;
            match process::decode_status(status) {
                (0, None) => Ok(()),
                _ if text.is_empty() => Err("namespace helper died".into()),
                _ => Err(text),
            }
        }
    }
}

fn prepare_namespaces(spec: &SandboxSpec) -> Step<()> {
    if spec.net {
        if !spec.hostname.is_empty() {
            step(process::set_hostname(&spec.hostname), || format!("set host name {:?}", spec.hostname))?;
        }
        let up = (|| {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
            process::loopback_up(socket.as_fd())
        })();
        step(up, || "bring loopback up".into())?;
    }
    for (name, value) in &spec.sysctls {
        let own = match name.split_once('.').map(|(first, _)| first) {
            Some("net") => spec.net,
            Some("kernel" | "fs") => spec.ipc,
            _ => false,
        };
        if !own || name.contains("..") || name.contains('/') {
            return Err(format!("sysctl {name:?} does not belong to a namespace of the pod"));
        }
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        step(std::fs::write(&path, value), || format!("set sysctl {name}={value}"))?;
    }
    Ok(())
}

fn hold(spec: &SandboxSpec, state: &StateDir) -> Step<()> {
    let directory = state.sandbox_ns(&spec.id);
    let kinds = [("net", spec.net), ("uts", spec.net), ("ipc", spec.ipc)];
    for (kind, _) in kinds.iter().filter(|(_, own)| *own) {
        let path = directory.join(kind);
        step(File::create(&path).map(drop), || format!("create {}", path.display()))?;
        let source = format!("/proc/self/ns/{kind}");
        step(mount::bind(Path::new(&source), &path), || format!("hold {kind} namespace"))?;
    }
    if spec.ipc {
        let shm = state.sandbox(&spec.id).join("shm");
        step(std::fs::create_dir_all(&shm), || format!("mkdir {}", shm.display()))?;
        let flags = MS_NOSUID | MS_NOEXEC | MS_NODEV;
        step(mount::mount("shm", &shm, "tmpfs", flags, "mode=1777,size=65536k"), || "mount shm".into())?;
    }
    Ok(())
}

/// Releases what [`create`] made. Idempotent; what cannot be released is written to the log.
pub fn release(id: &str, state: &StateDir) {
    let directory = state.sandbox_ns(id);
    for path in
        ["net", "uts", "ipc"].map(|k| directory.join(k)).iter().chain([&state.sandbox(id).join("shm")])
    {
        if let Err(error) = mount::detach(path) {
            eprintln!("unmount {}: {error}", path.display());
        }
    }
    if let Err(error) = crate::paths::remove_tree(&directory) {
        eprintln!("remove {}: {error}", directory.display());
    }
}

/// Forks the pause process and lets it become a fresh, small image of our program.
fn start_pause(spec: &SandboxSpec) -> io::Result<Pause> {
    match process::fork(CLONE_NEWPID as u64)? {
        Fork::Child => {
            process::reset_signals();
            process::new_session();
            for path in &spec.cgroups {
                if std::fs::write(path.join("cgroup.procs"), "0").is_err() {
                    process::exit_now(3);
                }
            }
            let closed = process::cloexec_from(3);
            let argv = [c"pause".to_owned(), c"supervisor".to_owned(), c"--pause".to_owned()];
            if closed.is_ok() {
                process::execve(&c"/proc/self/exe".to_owned(), &argv, &[]);
            }
            process::exit_now(4)
        }
        Fork::Parent(pid) => {
            let start_ticks = super::procfs::start_ticks(pid).unwrap_or(0);
            Ok(Pause { pid, start_ticks })
        }
    }
}

/// The pause process: process 1 of a pod's PID namespace. It gives up everything it has, then reaps.
pub fn pause_main() -> io::Result<()> {
    process::unshare(libc::CLONE_NEWNS)?;
    mount::mount("", Path::new("/"), "", libc::MS_REC | libc::MS_PRIVATE, "")?;
    // Members of the pod can look into /proc/1/root: it must be empty.
    mount::mount("pause", Path::new("/sys"), "tmpfs", MS_NOSUID | MS_NOEXEC | MS_NODEV, "size=0k,mode=555")?;
    let signals = process::signalfd(&[libc::SIGCHLD])?;
    mount::pivot_root(Path::new("/sys"))?;
    (0..41).try_for_each(process::drop_bounding)?;
    process::set_groups(65_535, &[])?;
    process::set_user(65_535)?;
    process::set_dumpable(false)?;
    loop {
        while process::reap().is_some() {}
        let mut fds = [rustix::event::PollFd::new(&signals, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut fds, None)?;
        let mut buffer = [0; 128];
        if rustix::io::read(&signals, &mut buffer).is_err() {
            eprintln!("signalfd {} cannot be read", signals.as_raw_fd());
        }
    }
}
