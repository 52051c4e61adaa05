//! How a supervisor begins: from nothing, after a predecessor that died, or as its own successor.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::output::{LineSplitter, Stream, open_log};
use super::{Container, Options, SOCKET, Source, Supervisor, procfs};
use crate::cgroup::Cgroups;
use crate::paths::{StateDir, read_json, write_json};
use crate::protocol::Run;
use crate::spec::ContainerSpec;
use crate::sys::{mount, process};
use crate::wire;

/// Descriptors handed over `execve`, and what was read but not yet written.
#[derive(Debug, Serialize, Deserialize)]
struct Handoff {
    listener: i32,
    lock: i32,
    containers: Vec<ContainerHandoff>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ContainerHandoff {
    id: String,
    master: Option<i32>,
    stdin: Option<i32>,
    partial: [Vec<u8>; 2],
}

/// Starts, or goes on as, the supervisor.
pub(super) fn launch(options: &Options) -> Result<(), String> {
    let state = StateDir::new(&options.state_dir);
    let fail = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    if options.handoff {
        let file = state.file("handoff.json");
        let handoff: Handoff = read_json(&file).map_err(fail("read handoff"))?;
        std::fs::remove_file(&file).map_err(fail("remove handoff"))?;
        let listener = take(handoff.listener).map_err(fail("adopt listener"))?;
        let lock = File::from(take(handoff.lock).map_err(fail("adopt lock"))?);
        let mut supervisor = Supervisor::new(options, listener, lock).map_err(fail("start"))?;
        supervisor.adopt_containers(handoff.containers);
        return supervisor.run_to_end().map_err(fail("serve"));
    }
    std::fs::create_dir_all(state.root()).map_err(fail("make state directory"))?;
    let (mut ready, mut tell) = std::io::pipe().map_err(fail("pipe"))?;
    // The starter waits for the child to listen: afterwards connecting works at the first attempt.
    match process::fork(0).map_err(fail("fork"))? {
        process::Fork::Parent(_) => {
            drop(tell);
            let mut text = String::new();
            ready.read_to_string(&mut text).map_err(fail("wait for supervisor"))?;
            if text == "ready" { Ok(()) } else { Err(text) }
        }
        process::Fork::Child => {
            drop(ready);
            process::new_session();
            let mut supervisor = match begin(options, &state) {
                Ok(supervisor) => supervisor,
                Err(text) => {
                    if tell.write_all(text.as_bytes()).is_err() {
                        eprintln!("supervisor: {text}");
                    }
                    process::exit_now(1)
                }
            };
            tell.write_all(b"ready").map_err(fail("tell starter"))?;
            drop(tell);
            supervisor.run_to_end().map_err(fail("serve"))
        }
    }
}

fn begin(options: &Options, state: &StateDir) -> Result<Supervisor, String> {
    let fail = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    let lock = File::options().create(true).append(true).open(state.file("supervisor.lock"));
    let lock = lock.map_err(fail("open lock"))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| "another supervisor runs in this state directory".to_owned())?;
    std::env::set_current_dir("/").map_err(fail("chdir /"))?;
    process::ignore_signal(libc::SIGPIPE);
    process::ignore_signal(libc::SIGHUP);
    process::ignore_signal(libc::SIGINT);
    let cgroups = Cgroups::detect(&options.cgroup_root).map_err(|e| e.to_string())?;
    cgroups.enter("supervisor").map_err(|e| e.to_string())?;
    own_mount(state.root()).map_err(fail("make state directory a private mount"))?;
    for directory in [state.namespaces(), state.sandboxes(), state.containers()] {
        std::fs::create_dir_all(directory).map_err(fail("make state directory"))?;
    }
    let listener = wire::listen(&state.file(SOCKET)).map_err(fail("listen"))?;
    let mut supervisor = Supervisor::new(options, listener, lock).map_err(fail("start"))?;
    supervisor.adopt_containers(vec![]);
    Ok(supervisor)
}

/// Makes the state directory a private mount, so that what is mounted in it does not spread into containers that
/// see the node's mounts and stay busy there.
fn own_mount(root: &Path) -> io::Result<()> {
    if procfs::is_mount_point(root) {
        return Ok(());
    }
    mount::bind(root, root)?;
    mount::mount("", root, "", libc::MS_PRIVATE, "")
}

fn take(fd: i32) -> io::Result<OwnedFd> {
    let fd = process::adopt_fd(fd)?;
    process::set_cloexec(fd.as_fd(), true)?;
    Ok(fd)
}

impl Supervisor {
    fn run_to_end(&mut self) -> io::Result<()> {
        self.serve()?;
        match std::fs::remove_file(self.state.file(SOCKET)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        mount::detach(self.state.root())
    }

    /// Takes up every container that the state directory knows.
    fn adopt_containers(&mut self, mut handed: Vec<ContainerHandoff>) {
        let entries = match std::fs::read_dir(self.state.containers()) {
            Ok(entries) => entries,
            Err(error) => return eprintln!("read containers: {error}"),
        };
        let own = std::process::id() as i32;
        for entry in entries.filter_map(Result::ok) {
            let Ok(run) = read_json::<Run>(&entry.path().join("run.json")) else { continue };
            let spec: ContainerSpec = match read_json(&entry.path().join("spec.json")) {
                Ok(spec) => spec,
                Err(error) => {
                    eprintln!("container {}: {error}", run.id);
                    continue;
                }
            };
            let given = handed.iter().position(|h| h.id == run.id).map(|at| handed.swap_remove(at));
            let (id, pid, ended) = (run.id.clone(), run.pid, run.exit.is_some());
            let alive =
                !ended && run.boot_id == self.boot_id && procfs::start_ticks(pid) == Some(run.start_ticks);
            let is_child = procfs::parent_and_session(pid).is_some_and(|(parent, _)| parent == own);
            self.adopt(run, spec, given, alive);
            if ended {
                continue;
            }
            if !alive {
                self.container_ended(&id, None);
            } else if !is_child {
                self.watch_adopted(&id, pid);
            }
        }
    }

    fn adopt(&mut self, run: Run, spec: ContainerSpec, given: Option<ContainerHandoff>, alive: bool) {
        let id = run.id.clone();
        let (master, stdin, partial) = given.map_or((None, None, [vec![], vec![]]), |g| {
            let own = |fd: Option<i32>| fd.and_then(|fd| take(fd).ok());
            (own(g.master), own(g.stdin), g.partial)
        });
        let log = spec.log_path.as_ref().filter(|_| alive).and_then(|path| open_log(path).ok());
        let [out, err] = partial;
        let container = Container {
            oom_before: 0,
            run,
            cgroups: spec.cgroups,
            pidns: spec.pidns,
            log_path: spec.log_path,
            log,
            streams: [None, None],
            lines: [LineSplitter::resume(out), LineSplitter::resume(err)],
            tty: spec.process.tty,
            stdin,
            listeners: vec![],
            pidfd: None,
        };
        self.containers.insert(id.clone(), container);
        if !alive {
            return;
        }
        if let Some(master) = master {
            return self.watch_output(&id, Stream::Stdout, master);
        }
        for (stream, name) in [(Stream::Stdout, "stdout"), (Stream::Stderr, "stderr")] {
            match super::start::open_fifo(&self.state.container(&id).join(name), true) {
                Ok(fd) => self.watch_output(&id, stream, fd),
                Err(_) if spec.process.tty => {}
                Err(error) => eprintln!("open {name} of {id}: {error}"),
            }
        }
    }

    fn watch_adopted(&mut self, id: &str, pid: i32) {
        let watched = process::pidfd_open(pid).and_then(|pidfd| {
            self.watch(pidfd.as_fd(), Source::Adopted(id.to_owned()))?;
            Ok(pidfd)
        });
        match (watched, self.containers.get_mut(id)) {
            (Ok(pidfd), Some(container)) => container.pidfd = Some(pidfd),
            _ => self.container_ended(id, None),
        }
    }

    /// Becomes another program with the same children and descriptors. Returns only when that fails, and then goes
    /// on as before.
    pub(super) fn replace_program(&mut self, program: &Path) {
        // Their streams end with the connections.
        let connections: Vec<_> = self.connections.keys().copied().collect();
        connections.into_iter().for_each(|fd| self.close(fd));
        if let Err(error) = self.hand_over(program) {
            eprintln!("replace program with {}: {error}", program.display());
        }
    }

    fn hand_over(&self, program: &Path) -> io::Result<()> {
        let mut kept = vec![self.listener.as_fd(), self.lock.as_fd()];
        let mut containers = Vec::new();
        for container in self.containers.values().filter(|c| c.run.exit.is_none()) {
            let master = container.streams[0].as_ref().filter(|_| container.tty);
            kept.extend(master.map(AsFd::as_fd));
            kept.extend(container.stdin.iter().map(AsFd::as_fd));
            containers.push(ContainerHandoff {
                id: container.run.id.clone(),
                master: master.map(AsRawFd::as_raw_fd),
                stdin: container.stdin.as_ref().map(AsRawFd::as_raw_fd),
                partial: [container.lines[0].partial().to_vec(), container.lines[1].partial().to_vec()],
            });
        }
        let handoff =
            Handoff { listener: self.listener.as_raw_fd(), lock: self.lock.as_raw_fd(), containers };
        write_json(&self.state.file("handoff.json"), &handoff)?;
        kept.iter().try_for_each(|fd| process::set_cloexec(*fd, false))?;
        let text = |path: &Path| std::ffi::CString::new(path.as_os_str().as_encoded_bytes());
        let path = text(program)?;
        let argv = [
            c"xebec".to_owned(),
            c"supervisor".to_owned(),
            c"--state-dir".to_owned(),
            text(self.state.root())?,
            c"--cgroup-root".to_owned(),
            std::ffi::CString::new(self.cgroup_root.as_str())?,
            c"--handoff".to_owned(),
        ];
        let error = process::execve(&path, &argv, &[]);
        kept.iter().try_for_each(|fd| process::set_cloexec(*fd, true))?;
        Err(error)
    }
}
