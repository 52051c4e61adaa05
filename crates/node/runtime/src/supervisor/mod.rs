//! The supervisor: one per node, parent and subreaper of all containers.
//!
//! It is a single thread around `epoll`: the agents' connections, the containers' output, SIGCHLD. It holds no image,
//! no network, no policy; it forks, copies output and remembers how things ended. It survives its agent, and
//! replaces itself by `execve` with children and descriptors in place. When it is killed itself, containers go on:
//! their output goes into FIFOs that they hold open for reading too, so that a successor finds it there.

mod calls;
mod child;
mod connection;
mod output;
mod procfs;
mod recover;
mod rootfs;
mod sandbox;
mod start;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::event::epoll;

use crate::cgroup;
use crate::paths::{StateDir, write_json};
use crate::protocol::{Exit, Message, Run, fingerprint};
use crate::spec::PidNamespace;
use crate::sys::process;
use connection::Connection;
use output::{LineSplitter, Listener, Stream};

/// Name of the socket in the state directory.
pub const SOCKET: &str = "supervisor.sock";

/// A container that was started.
struct Container {
    run: Run,
    cgroups: Vec<(String, PathBuf)>,
    pidns: PidNamespace,
    log_path: Option<PathBuf>,
    log: Option<File>,
    /// FIFOs of stdout and stderr, or the pty master as stdout.
    streams: [Option<OwnedFd>; 2],
    lines: [LineSplitter; 2],
    tty: bool,
    /// Our end of stdin: while it is open, the container sees no end of file.
    stdin: Option<OwnedFd>,
    listeners: Vec<Listener>,
    pidfd: Option<OwnedFd>,
    oom_before: u64,
}

/// An exec'd process.
struct Exec {
    connection: RawFd,
    number: u64,
    container: String,
}

/// A child between fork and `execve`.
struct Pending {
    pid: i32,
    connection: RawFd,
    request: u64,
    container: String,
    is_exec: bool,
    errors: OwnedFd,
    text: Vec<u8>,
    console: Option<OwnedFd>,
}

/// What a descriptor in the epoll set means.
#[derive(Clone)]
enum Source {
    Listener,
    Signals,
    Connection,
    Output(String, Stream),
    Errors,
    Adopted(String),
}

struct Supervisor {
    state: StateDir,
    cgroup_root: String,
    build: String,
    own_exe: (u64, u64),
    boot_id: String,
    pid_namespace: OwnedFd,
    epoll: OwnedFd,
    listener: OwnedFd,
    lock: File,
    signals: OwnedFd,
    sources: HashMap<RawFd, Source>,
    connections: HashMap<RawFd, Connection>,
    containers: HashMap<String, Container>,
    execs: HashMap<i32, Exec>,
    pending: HashMap<RawFd, Pending>,
    next_program: Option<PathBuf>,
    stopping: bool,
}

/// Runs the supervisor with the arguments behind `supervisor` on the command line:
/// `--state-dir DIR --cgroup-root NAME`, or `--pause`.
///
/// It returns in the starter as soon as the socket accepts connections, the supervisor itself lives on detached.
pub fn supervisor_main(args: impl IntoIterator<Item = String>) -> ExitCode {
    let result = match Options::parse(args) {
        Ok(Options { pause: true, .. }) => sandbox::pause_main().map_err(|e| e.to_string()),
        Ok(options) => recover::launch(&options),
        Err(text) => Err(text),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("supervisor: {text}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug, Default)]
struct Options {
    state_dir: PathBuf,
    cgroup_root: String,
    handoff: bool,
    pause: bool,
}

impl Options {
    fn parse(args: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut options = Self::default();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--state-dir" => options.state_dir = value()?.into(),
                "--cgroup-root" => options.cgroup_root = value()?,
                "--handoff" => options.handoff = true,
                "--pause" => options.pause = true,
                other => return Err(format!("unknown argument {other:?}")),
            }
        }
        if !options.pause && (!options.state_dir.is_absolute() || options.cgroup_root.is_empty()) {
            return Err("--state-dir (absolute) and --cgroup-root are needed".into());
        }
        Ok(options)
    }
}

impl Supervisor {
    fn new(options: &Options, listener: OwnedFd, lock: File) -> io::Result<Self> {
        let exe = std::fs::metadata("/proc/self/exe")?;
        let mut supervisor = Self {
            state: StateDir::new(&options.state_dir),
            cgroup_root: options.cgroup_root.clone(),
            build: fingerprint(Path::new("/proc/self/exe"))?,
            own_exe: (exe.dev(), exe.ino()),
            boot_id: procfs::boot_id(),
            pid_namespace: File::open("/proc/self/ns/pid")?.into(),
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            listener,
            lock,
            signals: process::signalfd(&[libc::SIGCHLD])?,
            sources: HashMap::new(),
            connections: HashMap::new(),
            containers: HashMap::new(),
            execs: HashMap::new(),
            pending: HashMap::new(),
            next_program: None,
            stopping: false,
        };
        process::become_subreaper()?;
        let (listener, signals) = (supervisor.listener.as_raw_fd(), supervisor.signals.as_raw_fd());
        register(&supervisor.epoll, supervisor.listener.as_fd(), epoll::EventFlags::IN)?;
        register(&supervisor.epoll, supervisor.signals.as_fd(), epoll::EventFlags::IN)?;
        supervisor.sources.insert(listener, Source::Listener);
        supervisor.sources.insert(signals, Source::Signals);
        Ok(supervisor)
    }

    /// Serves until told to stop.
    fn serve(&mut self) -> io::Result<()> {
        let mut buffer = Vec::with_capacity(32);
        self.reap();
        while !self.stopping {
            buffer.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut buffer), None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            for event in &buffer {
                let fd = event.data.u64() as RawFd;
                // An earlier event of this round may have closed it.
                if let Some(source) = self.sources.get(&fd).cloned() {
                    self.handle(fd, source, event.flags);
                }
            }
            if self.pending.is_empty()
                && let Some(program) = self.next_program.take()
            {
                self.replace_program(&program);
            }
        }
        Ok(())
    }

    fn handle(&mut self, fd: RawFd, source: Source, flags: epoll::EventFlags) {
        match source {
            Source::Listener => self.accept(),
            Source::Signals => {
                let mut buffer = [0; 1024];
                while rustix::io::read(&self.signals, &mut buffer).is_ok_and(|n| n > 0) {}
                self.reap();
            }
            Source::Connection => self.serve_connection(fd, flags),
            Source::Output(id, stream) => self.read_output(&id, stream, false),
            Source::Errors => self.read_errors(fd),
            Source::Adopted(id) => self.container_ended(&id, None),
        }
    }

    /// Puts a descriptor into the epoll set.
    fn watch(&mut self, fd: BorrowedFd<'_>, source: Source) -> io::Result<()> {
        register(&self.epoll, fd, epoll::EventFlags::IN)?;
        self.sources.insert(fd.as_raw_fd(), source);
        Ok(())
    }

    /// Takes a descriptor out, which closing alone does not while a forked child still has a copy.
    fn unwatch(&mut self, fd: BorrowedFd<'_>) {
        if self.sources.remove(&fd.as_raw_fd()).is_some()
            && let Err(error) = epoll::delete(&self.epoll, fd)
        {
            eprintln!("epoll delete {}: {error}", fd.as_raw_fd());
        }
    }

    fn reap(&mut self) {
        while let Some((pid, status)) = process::reap() {
            let pending = self.pending.iter().find(|(_, p)| p.pid == pid).map(|(fd, _)| *fd);
            if let Some(fd) = pending {
                self.read_errors(fd);
            }
            if let Some(exec) = self.execs.remove(&pid) {
                let (code, _) = process::decode_status(status);
                self.send(exec.connection, &Message::ExecExited { exec: exec.number, code }, &[]);
            } else {
                let ended = |c: &&Container| c.run.pid == pid && c.run.exit.is_none();
                let id = self.containers.values().find(ended).map(|c| c.run.id.clone());
                if let Some(id) = id {
                    self.container_ended(&id, Some(status));
                }
            }
        }
    }

    /// Records the end of a container; without a status the process was not our child.
    fn container_ended(&mut self, id: &str, status: Option<i32>) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.read_output(id, stream, true);
        }
        let Some(mut container) = self.containers.remove(id) else { return };
        if container.pidns != PidNamespace::Own {
            // With a namespace of its own the kernel has killed the rest already.
            kill_group(&container.cgroups);
        }
        self.close_streams(&mut container);
        let (code, signal) = status.map_or((255, None), process::decode_status);
        let oom = cgroup::oom_kills(&container.cgroups) > container.oom_before;
        let (reason, message) = match (status, code) {
            (None, _) => {
                ("Unknown", "the supervisor was restarted while the container ran: exit code unknown")
            }
            (_, 0) => ("Completed", ""),
            (..) if oom => ("OOMKilled", ""),
            (..) => ("Error", ""),
        };
        let exit = Exit { at: now(), code, signal, reason: reason.into(), message: message.into() };
        container.run.exit = Some(exit);
        let run = container.run.clone();
        self.containers.insert(id.to_owned(), container);
        self.publish(&run);
    }

    fn close_streams(&mut self, container: &mut Container) {
        for fd in container.streams.iter_mut().filter_map(Option::take) {
            self.unwatch(fd.as_fd());
        }
        if let Some(pidfd) = container.pidfd.take() {
            self.unwatch(pidfd.as_fd());
        }
        container.stdin = None;
        container.log = None;
        container.listeners.clear();
    }

    /// Writes a run down and tells the subscribers.
    fn publish(&mut self, run: &Run) {
        if let Err(error) = write_json(&self.state.container(&run.id).join("run.json"), run) {
            eprintln!("write state of container {}: {error}", run.id);
        }
        let message = Message::Run(Box::new(run.clone()));
        let subscribers: Vec<RawFd> =
            self.connections.iter().filter(|(_, c)| c.subscribed).map(|(fd, _)| *fd).collect();
        for fd in subscribers {
            self.send(fd, &message, &[]);
        }
    }

    /// Reads one chunk of output, or with `all` everything that is there, and the end.
    fn read_output(&mut self, id: &str, stream: Stream, all: bool) {
        let index = stream as usize;
        let Some(container) = self.containers.get_mut(id) else { return };
        let mut buffer = [0_u8; 32 * 1024];
        let mut ended = all;
        while let Some(fd) = &container.streams[index] {
            match rustix::io::read(fd, &mut buffer) {
                Ok(0) => ended = true,
                Ok(length) => {
                    let mut entries = Vec::new();
                    let data = &buffer[..length];
                    container.lines[index].push(stream, &output::timestamp(), data, &mut entries);
                    let log = container.log.as_mut();
                    output::deliver(log, &entries, &mut container.listeners, stream, data);
                    if all {
                        continue;
                    }
                }
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::AGAIN) => {}
                // EIO: no process has the terminal open any more.
                Err(_) => ended = true,
            }
            break;
        }
        if !ended {
            return;
        }
        let mut entries = Vec::new();
        container.lines[index].finish(stream, &output::timestamp(), &mut entries);
        output::deliver(container.log.as_mut(), &entries, &mut vec![], stream, &[]);
        // A terminal may be opened again; a FIFO never ends: both stay until the container does. Only a hung-up
        // terminal would wake us without end.
        if !all && let Some(fd) = container.streams[index].take() {
            container.streams[index] = None;
            self.unwatch(fd.as_fd());
        }
    }
}

fn register(epoll: &OwnedFd, fd: BorrowedFd<'_>, flags: epoll::EventFlags) -> io::Result<()> {
    let data = epoll::EventData::new_u64(fd.as_raw_fd() as u64);
    Ok(epoll::add(epoll, fd, data, flags)?)
}

/// Kills everything in a container's group and below, in whichever hierarchy it is found.
fn kill_group(cgroups: &[(String, PathBuf)]) {
    for (_, path) in cgroups {
        cgroup::kill(path);
    }
}

/// Nanoseconds since the epoch.
fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| d.as_nanos() as u64)
}
