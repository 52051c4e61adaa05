//! What forked children do until `execve`: a container's first process, an exec'd one.
//!
//! They run as copies of the single-threaded supervisor, so that the heap is whole and allocation is safe. They end
//! in `execve` or with a message on the error pipe, whose close-on-exec end tells the supervisor of success.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::rootfs::{self, Step, plain, step};
use crate::cgroup;
use crate::paths::StateDir;
use crate::spec::{ContainerSpec, ProcessSpec};
use crate::sys::{mount, process};
use crate::wire;

/// Where the standard streams go.
pub enum Stdio {
    /// To these: stdin, stdout, stderr; `/dev/null` where there is none.
    Files([Option<OwnedFd>; 3]),
    /// To a terminal, whose master is sent over this socket.
    Console(OwnedFd),
}

/// What was opened before the fork, while errors could still be told plainly.
pub struct Prepared {
    /// Streams.
    pub stdio: Stdio,
    /// Error pipe.
    pub errors: OwnedFd,
    /// Compiled seccomp filter.
    pub seccomp: Option<Vec<u64>>,
    /// Namespaces to join: descriptor and kinds.
    pub namespaces: Vec<(OwnedFd, i32)>,
    /// For an exec: the container's first process.
    pub first: Option<i32>,
    /// Device and inode of our own program, which no container may run.
    pub own_exe: (u64, u64),
}

/// The first process of a container. Never returns.
pub fn run_container(spec: &ContainerSpec, state: &StateDir, prepared: Prepared) -> ! {
    let errors = File::from(prepared.errors);
    let error = (|| -> Step<std::convert::Infallible> {
        begin(spec, &spec.process, &prepared.namespaces, prepared.first)?;
        rootfs::build(spec, state)?;
        enter(&spec.process, prepared.stdio, true)?;
        finish(&spec.process, prepared.seccomp.as_deref(), prepared.own_exe)
    })();
    fail(errors, error)
}

/// A process that joins a running container. Never returns.
pub fn run_exec(spec: &ContainerSpec, process: &ProcessSpec, prepared: Prepared) -> ! {
    let errors = File::from(prepared.errors);
    let error = (|| -> Step<std::convert::Infallible> {
        begin(spec, process, &prepared.namespaces, prepared.first)?;
        enter(process, prepared.stdio, false)?;
        finish(process, prepared.seccomp.as_deref(), prepared.own_exe)
    })();
    fail(errors, error)
}

fn fail(mut errors: File, error: Step<std::convert::Infallible>) -> ! {
    let Err(text) = error;
    let written = errors.write_all(text.as_bytes());
    process::exit_now(if written.is_ok() { 1 } else { 2 })
}

/// cgroups, namespaces, and what must be written while the node's `/proc` is visible.
fn begin(
    spec: &ContainerSpec,
    wanted: &ProcessSpec,
    namespaces: &[(OwnedFd, i32)],
    first: Option<i32>,
) -> Step<()> {
    process::reset_signals();
    process::set_umask(0o022);
    process::new_session();
    step(process::set_dumpable(false), || "protect process".into())?;
    for (_, path) in &spec.cgroups {
        step(join_cgroup(path, first), || format!("join cgroup {}", path.display()))?;
    }
    if let Some(adjustment) = wanted.oom_score_adj {
        match std::fs::write("/proc/self/oom_score_adj", adjustment.to_string()) {
            // A node inside a container may not go below its own value.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            other => step(other, || "set oom_score_adj".into())?,
        }
    }
    if let Some(profile) = &wanted.apparmor {
        let file = "/proc/self/attr/apparmor/exec";
        step(std::fs::write(file, format!("exec {profile}")), || format!("apparmor profile {profile}"))?;
    }
    for (descriptor, kinds) in namespaces {
        step(process::setns(descriptor.as_fd(), *kinds), || "join namespace".into())?;
    }
    if spec.cgroups.len() == 1
        && spec.cgroups[0].0 == "v2"
        && !namespaces.iter().any(|(_, k)| k & libc::CLONE_NEWNS != 0)
    {
        step(process::unshare(libc::CLONE_NEWCGROUP), || "unshare cgroup namespace".into())?;
    }
    Ok(())
}

/// A v2 group takes no process once it has given its controllers to groups below (Control Group v2, "No Internal
/// Process Constraint"), as systemd in a container does: then an exec goes where the container's first process is.
fn join_cgroup(path: &Path, first: Option<i32>) -> io::Result<()> {
    let join = |path: &Path| std::fs::write(path.join("cgroup.procs"), "0");
    match (join(path), first) {
        (Err(error), Some(first)) if error.kind() == io::ErrorKind::ResourceBusy => {
            cgroup::unified_group_of(first, path).map_or(Err(error), |below| join(&below))
        }
        (result, _) => result,
    }
}

/// Standard streams; everything else is closed by `execve`.
fn enter(wanted: &ProcessSpec, stdio: Stdio, is_first: bool) -> Step<()> {
    let what = || "set up standard streams".to_owned();
    match stdio {
        Stdio::Console(socket) => terminal(wanted, &socket, is_first)?,
        Stdio::Files(files) => {
            for (number, file) in files.into_iter().enumerate() {
                let file = match file {
                    Some(file) => file,
                    None => step(null(), what)?,
                };
                // Lifted above the standard numbers first: one of the sources may have such a number itself.
                let lifted = rustix::io::fcntl_dupfd_cloexec(&file, 10).map_err(io::Error::from);
                step(process::dup_onto(step(lifted, what)?.as_fd(), number as i32), what)?;
            }
        }
    }
    step(process::cloexec_from(3), what)
}

fn null() -> io::Result<OwnedFd> {
    Ok(File::options().read(true).write(true).open("/dev/null")?.into())
}

fn terminal(wanted: &ProcessSpec, socket: &OwnedFd, is_first: bool) -> Step<()> {
    let slave = (|| -> io::Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let master = rustix::fs::open("/dev/ptmx", flags, Mode::empty())?;
        rustix::pty::unlockpt(&master)?;
        let name = rustix::pty::ptsname(&master, Vec::new())?;
        let slave = rustix::fs::open(name.as_c_str(), flags, Mode::empty())?;
        std::os::unix::fs::fchown(&slave, Some(wanted.uid), None)?;
        if is_first && let Ok(path) = name.to_str() {
            File::create("/dev/console")?;
            mount::bind(Path::new(path), Path::new("/dev/console"))?;
        }
        wire::send(socket.as_fd(), b"pty", &[master.as_fd()])?;
        process::set_controlling_terminal(slave.as_fd())?;
        Ok(slave)
    })();
    let slave = step(slave, || "open terminal".into())?;
    (0..3).try_for_each(|n| step(process::dup_onto(slave.as_fd(), n), || "connect terminal".into()))
}

/// Credentials and `execve`. Without `no_new_privs` the filter must go in while we are still privileged.
fn finish(
    wanted: &ProcessSpec,
    seccomp: Option<&[u64]>,
    own_exe: (u64, u64),
) -> Step<std::convert::Infallible> {
    step(std::env::set_current_dir(&wanted.cwd), || format!("chdir to cwd ({:?})", wanted.cwd))?;
    let path = find_program(wanted)?;
    let meta = step(std::fs::metadata(&path), || format!("exec: {:?}", wanted.argv[0]))?;
    // A link to /proc/self/exe would run, and so expose, the node's own binary (CVE-2019-5736).
    if (meta.dev(), meta.ino()) == own_exe {
        return Err(format!("exec: {:?}: is the container runtime itself", wanted.argv[0]));
    }
    let (path, argv, env) = (c_string(&path)?, c_strings(&wanted.argv)?, c_strings(&wanted.env)?);

    for capability in (0..64).filter(|c| wanted.capabilities & 1 << c == 0) {
        match process::drop_bounding(capability) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break, // Beyond the last one.
            other => step(other, || "drop capability".into())?,
        }
    }
    step(process::clear_ambient(), || "clear ambient capabilities".into())?;
    step(process::set_groups(wanted.gid, &wanted.groups), || "set groups".into())?;
    if let Some(program) = seccomp.filter(|_| !wanted.no_new_privs) {
        step(process::install_seccomp(program), || "install seccomp filter".into())?;
    }
    step(process::set_user(wanted.uid), || "set user".into())?;
    if wanted.uid == 0 {
        step(process::set_capabilities(wanted.capabilities), || "set capabilities".into())?;
    }
    if wanted.no_new_privs {
        step(process::set_no_new_privs(), || "set no_new_privs".into())?;
        if let Some(program) = seccomp {
            step(process::install_seccomp(program), || "install seccomp filter".into())?;
        }
    }
    let error = process::execve(&path, &argv, &env);
    Err(format!("exec {:?}: {}", path, plain(&error)))
}

fn c_string(text: &str) -> Step<CString> {
    CString::new(text).map_err(|_| format!("{text:?} contains a NUL byte"))
}

fn c_strings(texts: &[String]) -> Step<Vec<CString>> {
    texts.iter().map(|t| c_string(t)).collect()
}

/// Looks the program up as execvp(3) does, with errors in the words that Kubernetes users know.
fn find_program(wanted: &ProcessSpec) -> Step<String> {
    let name = &wanted.argv[0];
    let executable = |path: &str| match std::fs::metadata(path) {
        Ok(meta) if meta.is_dir() || meta.permissions().mode() & 0o111 == 0 => {
            Err(io::Error::from(io::ErrorKind::PermissionDenied))
        }
        other => other.map(drop),
    };
    if name.contains('/') {
        return match executable(name) {
            Ok(()) => Ok(name.clone()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(format!("exec: {name:?}: permission denied"))
            }
            Err(error) => Err(format!("exec: {name:?}: stat {name}: {}", plain(&error))),
        };
    }
    let path = wanted.env.iter().rev().find_map(|e| e.strip_prefix("PATH=")).unwrap_or("");
    path.split(':')
        .map(|dir| format!("{}/{name}", if dir.is_empty() { "." } else { dir }))
        .find(|candidate| executable(candidate).is_ok())
        .ok_or_else(|| format!("exec: {name:?}: executable file not found in $PATH"))
}
