//! Forking containers and execs, and learning whether they got through `execve`.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;

use libc::{CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUTS};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::pipe::PipeFlags;

use super::child::{self, Prepared, Stdio};
use super::output::{LineSplitter, Stream, open_log};
use super::sandbox::Pause;
use super::{Container, Exec, Pending, Source, Supervisor, kill_group, now, procfs};
use crate::cgroup;
use crate::paths::read_json;
use crate::protocol::{Answer, ExecCall, Exit, Failure, Run};
use crate::spec::{ContainerSpec, PidNamespace, ProcessSpec};
use crate::sys::process::{self, Fork};
use crate::{seccomp, wire};

fn failed<E: std::fmt::Display>(what: &str) -> impl FnOnce(E) -> Failure {
    let what = what.to_owned();
    move |error| Failure::Other(format!("{what}: {error}"))
}

/// A FIFO, opened for reading and writing: so it has no end, and survives whoever is at the other side.
pub(super) fn open_fifo(path: &Path, nonblocking: bool) -> io::Result<OwnedFd> {
    let mut flags = OFlags::RDWR | OFlags::CLOEXEC;
    if nonblocking {
        flags |= OFlags::NONBLOCK;
    }
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

fn make_fifo(path: &Path, process: &ProcessSpec) -> io::Result<()> {
    match rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    std::os::unix::fs::chown(path, Some(process.uid), Some(process.gid))
}

/// Both sides of a container's streams: the child's, and those that we keep.
struct Streams {
    stdio: Stdio,
    ours: [Option<OwnedFd>; 2],
    stdin: Option<OwnedFd>,
    console: Option<OwnedFd>,
}

impl Supervisor {
    fn read_spec(&self, id: &str) -> Result<ContainerSpec, Failure> {
        match read_json(&self.state.container(id).join("spec.json")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Failure::NotFound(id.to_owned())),
            other => other.map_err(failed("read spec")),
        }
    }

    /// Starts a container; the response follows when it has passed `execve`, or has not.
    pub(super) fn start(&mut self, connection: RawFd, request: u64, id: &str) -> Result<(), Failure> {
        if self.containers.contains_key(id) {
            return Err(Failure::State(format!("container {id} was started before")));
        }
        let spec = self.read_spec(id)?;
        let log = match &spec.log_path {
            Some(path) => Some(open_log(path).map_err(failed(&format!("open log {}", path.display())))?),
            None => None,
        };
        let streams = self.open_streams(&spec)?;
        let mut namespaces = Vec::new();
        for (path, kind) in
            [(&spec.netns, CLONE_NEWNET), (&spec.ipcns, CLONE_NEWIPC), (&spec.utsns, CLONE_NEWUTS)]
        {
            if let Some(path) = path {
                let file = File::open(path).map_err(failed(&format!("open {}", path.display())))?;
                namespaces.push((OwnedFd::from(file), kind));
            }
        }
        let (errors, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(failed("pipe"))?;
        let prepared = self.prepare(&spec.process, streams.stdio, writer, namespaces)?;
        let mut flags = CLONE_NEWNS;
        let mut target = None;
        match spec.pidns {
            PidNamespace::Own => flags |= CLONE_NEWPID,
            PidNamespace::Host => {}
            PidNamespace::Sandbox => target = Some(self.pause_pidfd(&spec.sandbox_id)?),
        }
        let oom_before = cgroup::oom_kills(&spec.cgroups);
        let state = self.state.clone();
        let pid = self.fork_into(flags, target.as_ref(), || child::run_container(&spec, &state, prepared))?;
        let run = Run {
            id: id.to_owned(),
            sandbox_id: spec.sandbox_id.clone(),
            pid,
            start_ticks: procfs::start_ticks(pid).unwrap_or(0),
            boot_id: self.boot_id.clone(),
            started_at: now(),
            exit: None,
        };
        let container = Container {
            run,
            cgroups: spec.cgroups,
            pidns: spec.pidns,
            log_path: spec.log_path,
            log,
            streams: [None, None],
            lines: [LineSplitter::default(), LineSplitter::default()],
            tty: spec.process.tty,
            stdin: streams.stdin,
            listeners: vec![],
            pidfd: None,
            oom_before,
        };
        self.containers.insert(id.to_owned(), container);
        for (fd, stream) in streams.ours.into_iter().zip([Stream::Stdout, Stream::Stderr]) {
            if let Some(fd) = fd {
                self.watch_output(id, stream, fd);
            }
        }
        self.await_exec(connection, request, pid, id, errors, streams.console, false)
    }

    fn open_streams(&self, spec: &ContainerSpec) -> Result<Streams, Failure> {
        let what = "open container streams";
        if spec.process.tty {
            let (ours, theirs) = wire::pair().map_err(failed(what))?;
            return Ok(Streams {
                stdio: Stdio::Console(theirs),
                ours: [None, None],
                stdin: None,
                console: Some(ours),
            });
        }
        let directory = self.state.container(&spec.id);
        let fifo = |name: &str, nonblocking| {
            let path = directory.join(name);
            make_fifo(&path, &spec.process).and_then(|()| open_fifo(&path, nonblocking)).map_err(failed(what))
        };
        let (mut stdin, mut keep) = (None, None);
        if spec.stdin {
            keep = Some(fifo("stdin", true)?);
            // Read-only for the container: it must see the end when the last writer leaves.
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let path = directory.join("stdin");
            stdin = Some(rustix::fs::open(&path, flags, Mode::empty()).map_err(failed(what))?);
            // And our end must be a writer only, or the container would never be the last reader either.
            let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            keep = keep.and(Some(rustix::fs::open(&path, flags, Mode::empty()).map_err(failed(what))?));
        }
        let ours = [Some(fifo("stdout", true)?), Some(fifo("stderr", true)?)];
        let theirs = [stdin, Some(fifo("stdout", false)?), Some(fifo("stderr", false)?)];
        Ok(Streams { stdio: Stdio::Files(theirs), ours, stdin: keep, console: None })
    }

    pub(super) fn watch_output(&mut self, id: &str, stream: Stream, fd: OwnedFd) {
        if let Err(error) = self.watch(fd.as_fd(), Source::Output(id.to_owned(), stream)) {
            eprintln!("watch output of {id}: {error}");
        }
        if let Some(container) = self.containers.get_mut(id) {
            container.streams[stream as usize] = Some(fd);
        }
    }

    fn prepare(
        &self,
        process: &ProcessSpec,
        stdio: Stdio,
        errors: OwnedFd,
        namespaces: Vec<(OwnedFd, i32)>,
    ) -> Result<Prepared, Failure> {
        let seccomp = match &process.seccomp {
            Some(path) => Some(seccomp::load_program(path).map_err(failed("read seccomp filter"))?),
            None => None,
        };
        Ok(Prepared { stdio, errors, seccomp, namespaces, first: None, own_exe: self.own_exe })
    }

    fn pause_pidfd(&self, sandbox: &str) -> Result<OwnedFd, Failure> {
        let pause: Pause =
            read_json(&self.state.sandbox(sandbox).join("pause.json")).map_err(failed("pause process"))?;
        let pidfd = process::pidfd_open(pause.pid).map_err(failed("pause process"))?;
        if procfs::start_ticks(pause.pid) != Some(pause.start_ticks) {
            return Err(Failure::State(format!("the pause process of sandbox {sandbox} is gone")));
        }
        Ok(pidfd)
    }

    /// Forks, into the PID namespace of `target` if given.
    fn fork_into(&self, flags: i32, target: Option<&OwnedFd>, child: impl FnOnce()) -> Result<i32, Failure> {
        // setns with CLONE_NEWPID moves only later children, and may be taken back.
        if let Some(target) = target {
            process::setns(target.as_fd(), CLONE_NEWPID).map_err(failed("join PID namespace"))?;
        }
        let forked = process::fork(flags as u64);
        if let Ok(Fork::Child) = forked {
            child();
            process::exit_now(2);
        }
        if target.is_some() {
            process::setns(self.pid_namespace.as_fd(), CLONE_NEWPID)
                .map_err(failed("leave PID namespace"))?;
        }
        match forked {
            Ok(Fork::Parent(pid)) => Ok(pid),
            Ok(Fork::Child) => Err(Failure::Other("invariant: a forked child never returns".into())),
            Err(error) => Err(failed("clone")(error)),
        }
    }

    /// Runs a command in a container; the response follows as for [`Self::start`].
    pub(super) fn exec(
        &mut self,
        connection: RawFd,
        request: u64,
        call: ExecCall,
        fds: Vec<OwnedFd>,
    ) -> Result<(), Failure> {
        let container = self.containers.get(&call.id).ok_or_else(|| Failure::NotFound(call.id.clone()))?;
        let not_running = || Failure::State(format!("container {} is not running", call.id));
        if container.run.exit.is_some() {
            return Err(not_running());
        }
        let target = process::pidfd_open(container.run.pid).map_err(|_| not_running())?;
        if procfs::start_ticks(container.run.pid) != Some(container.run.start_ticks) {
            return Err(not_running());
        }
        let spec = self.read_spec(&call.id)?;
        let mut wanted = spec.process.clone();
        wanted.argv.clone_from(&call.argv);
        wanted.tty = call.tty;
        if call.tty && !wanted.env.iter().any(|e| e.starts_with("TERM=")) {
            wanted.env.push("TERM=xterm".into());
        }
        let stdio = exec_stdio(&call, fds)?;
        let kinds = CLONE_NEWNS
            | if spec.netns.is_some() { CLONE_NEWNET | CLONE_NEWUTS } else { 0 }
            | if spec.ipcns.is_some() { CLONE_NEWIPC } else { 0 }
            | if spec.cgroups.len() == 1 { CLONE_NEWCGROUP } else { 0 };
        let namespaces = vec![(target.try_clone().map_err(failed("pidfd"))?, kinds)];
        let (errors, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(failed("pipe"))?;
        let mut prepared = self.prepare(&wanted, stdio, writer, namespaces)?;
        prepared.first = Some(container.run.pid);
        let joined = (spec.pidns != PidNamespace::Host).then_some(&target);
        let pid = self.fork_into(0, joined, || child::run_exec(&spec, &wanted, prepared))?;
        self.execs.insert(pid, Exec { connection, number: call.exec, container: call.id.clone() });
        self.await_exec(connection, request, pid, &call.id, errors, None, true)
    }

    #[allow(clippy::too_many_arguments)] // The fields of one struct that is made in two places.
    fn await_exec(
        &mut self,
        connection: RawFd,
        request: u64,
        pid: i32,
        id: &str,
        errors: OwnedFd,
        console: Option<OwnedFd>,
        is_exec: bool,
    ) -> Result<(), Failure> {
        rustix::io::ioctl_fionbio(&errors, true).map_err(failed("error pipe"))?;
        self.watch(errors.as_fd(), Source::Errors).map_err(failed("error pipe"))?;
        let fd = errors.as_raw_fd();
        let container = id.to_owned();
        let text = Vec::new();
        self.pending
            .insert(fd, Pending { pid, connection, request, container, is_exec, errors, text, console });
        Ok(())
    }

    /// Reads from a child's error pipe. Its end is either `execve` or the child's.
    pub(super) fn read_errors(&mut self, fd: RawFd) {
        let Some(pending) = self.pending.get_mut(&fd) else { return };
        let mut buffer = [0; 1024];
        loop {
            match rustix::io::read(&pending.errors, &mut buffer) {
                Ok(0) => break,
                Ok(length) => pending.text.extend_from_slice(&buffer[..length]),
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
        }
        let Some(pending) = self.pending.remove(&fd) else { return };
        self.unwatch(pending.errors.as_fd());
        let text = String::from_utf8_lossy(&pending.text).into_owned();
        let result = match (text.is_empty(), pending.is_exec) {
            (true, true) => Ok(Answer::Done),
            (true, false) => {
                self.started(&pending);
                Ok(Answer::Done)
            }
            (false, true) => {
                self.execs.remove(&pending.pid);
                Err(Failure::Start(text))
            }
            (false, false) => {
                self.start_failed(&pending.container, &text);
                Err(Failure::Start(text))
            }
        };
        self.respond(pending.connection, pending.request, result);
    }

    fn started(&mut self, pending: &Pending) {
        if let Some(console) = &pending.console {
            match wire::receive(console.as_fd()) {
                Ok(Some((_, mut fds))) if fds.len() == 1 => {
                    let master = fds.remove(0);
                    if let Err(error) = rustix::io::ioctl_fionbio(&master, true) {
                        eprintln!("terminal of {}: {error}", pending.container);
                    }
                    self.watch_output(&pending.container, Stream::Stdout, master);
                }
                other => eprintln!("terminal of {} did not arrive: {other:?}", pending.container),
            }
        }
        if let Some(container) = self.containers.get_mut(&pending.container) {
            container.run.started_at = now();
            let run = container.run.clone();
            self.publish(&run);
        }
    }

    fn start_failed(&mut self, id: &str, text: &str) {
        let Some(mut container) = self.containers.remove(id) else { return };
        self.close_streams(&mut container);
        kill_group(&container.cgroups);
        container.run.exit = Some(Exit {
            at: now(),
            code: 128,
            signal: None,
            reason: "StartError".into(),
            message: format!("unable to start container process: {text}"),
        });
        let run = container.run.clone();
        self.containers.insert(id.to_owned(), container);
        self.publish(&run);
    }
}

fn exec_stdio(call: &ExecCall, fds: Vec<OwnedFd>) -> Result<Stdio, Failure> {
    let wrong = || Failure::Other("exec: wrong number of descriptors".into());
    let mut fds = fds.into_iter();
    if call.tty {
        return fds.next().map(Stdio::Console).ok_or_else(wrong);
    }
    let mut files = [None, None, None];
    for (file, wanted) in files.iter_mut().zip([call.stdin, call.stdout, call.stderr]) {
        if wanted {
            *file = Some(fds.next().ok_or_else(wrong)?);
        }
    }
    Ok(Stdio::Files(files))
}
