//! What agents ask for.

use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};

use super::output::{Listener, Stream, open_log};
use super::sandbox::{self, Pause};
use super::{Supervisor, kill_group, procfs};
use crate::paths::read_json;
use crate::protocol::{Answer, Call, Failure, Message, Request};
use crate::sys::process;

fn other(error: impl std::fmt::Display) -> Failure {
    Failure::Other(error.to_string())
}

impl Supervisor {
    /// Carries a request out; `None` when the response comes later or has been sent.
    pub(super) fn call(
        &mut self,
        connection: RawFd,
        request: Request,
        fds: Vec<OwnedFd>,
    ) -> Option<Result<Answer, Failure>> {
        let number = request.id;
        let result = match request.call {
            Call::Hello => Ok(Answer::Hello { build: self.build.clone(), pid: std::process::id() as i32 }),
            Call::Subscribe => {
                self.subscribe(connection);
                Ok(Answer::Done)
            }
            Call::CreateSandbox(spec) => {
                sandbox::create(&spec, &self.state).map(|()| Answer::Done).map_err(Failure::Start)
            }
            Call::StopSandbox { id } => {
                self.stop_sandbox(&id);
                Ok(Answer::Done)
            }
            Call::Start { id } => return self.start(connection, number, &id).err().map(Err),
            Call::Exec(exec) => return self.exec(connection, number, exec, fds).err().map(Err),
            Call::Signal { id, signal } => self.signal(&id, signal),
            Call::KillAll { id } => self.kill_all(&id),
            Call::Remove { id } => self.remove(&id),
            Call::KillExec { exec } => {
                let found = self.execs.iter().find(|(_, e)| e.connection == connection && e.number == exec);
                if let Some((pid, exec)) = found {
                    self.kill_exec(*pid, &exec.container);
                }
                Ok(Answer::Done)
            }
            Call::Attach { id, stdout, stderr } => {
                return self.attach(connection, number, &id, [stdout, stderr], fds).err().map(Err);
            }
            Call::ReleaseStdin { id } => self
                .containers
                .get_mut(&id)
                .map(|c| c.stdin = None)
                .ok_or(Failure::NotFound(id))
                .map(|()| Answer::Done),
            Call::ReopenLog { id } => self.reopen_log(id),
            Call::Reexec { exe } => {
                self.next_program = Some(exe);
                Ok(Answer::Done)
            }
            Call::Shutdown => {
                self.shutdown();
                Ok(Answer::Done)
            }
        };
        Some(result)
    }

    fn subscribe(&mut self, connection: RawFd) {
        let runs: Vec<_> = self.containers.values().map(|c| c.run.clone()).collect();
        for run in runs {
            self.send(connection, &Message::Run(Box::new(run)), &[]);
        }
        if let Some(connection) = self.connections.get_mut(&connection) {
            connection.subscribed = true;
        }
    }

    fn signal(&mut self, id: &str, signal: i32) -> Result<Answer, Failure> {
        let container = self.containers.get(id).ok_or_else(|| Failure::NotFound(id.to_owned()))?;
        if container.run.exit.is_some() {
            return Ok(Answer::Done);
        }
        let sent = match &container.pidfd {
            Some(pidfd) => process::pidfd_signal(pidfd.as_fd(), signal),
            None => process::kill(container.run.pid, signal),
        };
        match sent {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(Answer::Done),
            other_result => other_result.map(|()| Answer::Done).map_err(other),
        }
    }

    fn kill_all(&mut self, id: &str) -> Result<Answer, Failure> {
        let container = self.containers.get(id).ok_or_else(|| Failure::NotFound(id.to_owned()))?;
        kill_group(&container.cgroups);
        self.signal(id, libc::SIGKILL)
    }

    fn remove(&mut self, id: &str) -> Result<Answer, Failure> {
        let Some(container) = self.containers.get(id) else { return Ok(Answer::Done) };
        if container.run.exit.is_none() {
            return Err(Failure::State(format!("container {id} is running")));
        }
        if let Some(mut container) = self.containers.remove(id) {
            self.close_streams(&mut container);
        }
        Ok(Answer::Done)
    }

    fn attach(
        &mut self,
        connection: RawFd,
        number: u64,
        id: &str,
        [stdout, stderr]: [bool; 2],
        fds: Vec<OwnedFd>,
    ) -> Result<(), Failure> {
        let container = self.containers.get_mut(id).ok_or_else(|| Failure::NotFound(id.to_owned()))?;
        if container.run.exit.is_some() {
            return Err(Failure::State(format!("container {id} is not running")));
        }
        let wanted = [(stdout, Stream::Stdout), (stderr, Stream::Stderr)];
        let streams: Vec<Stream> = wanted.iter().filter(|(on, _)| *on).map(|(_, s)| *s).collect();
        if streams.len() != fds.len() {
            return Err(other("attach: wrong number of descriptors"));
        }
        for (stream, pipe) in streams.into_iter().zip(fds) {
            rustix::io::ioctl_fionbio(&pipe, true).map_err(other)?;
            container.listeners.push(Listener { stream, pipe });
        }
        let master = match &container.streams[0] {
            Some(master) if container.tty => Some(master.try_clone().map_err(other)?),
            _ => None,
        };
        let message = Message::Response { id: number, result: Ok(Answer::Done) };
        self.send(connection, &message, master.as_ref().as_slice());
        Ok(())
    }

    fn reopen_log(&mut self, id: String) -> Result<Answer, Failure> {
        let container = self.containers.get_mut(&id).ok_or(Failure::NotFound(id))?;
        if let Some(path) = &container.log_path
            && container.run.exit.is_none()
        {
            container.log = Some(open_log(path).map_err(|e| other(format!("open {}: {e}", path.display())))?);
        }
        Ok(Answer::Done)
    }

    fn stop_sandbox(&mut self, id: &str) {
        for container in self.containers.values().filter(|c| c.run.sandbox_id == id && c.run.exit.is_none()) {
            kill_group(&container.cgroups);
        }
        let file = self.state.sandbox(id).join("pause.json");
        match read_json::<Pause>(&file) {
            Ok(pause) => {
                let same = procfs::start_ticks(pause.pid) == Some(pause.start_ticks);
                if same && let Err(error) = process::kill(pause.pid, libc::SIGKILL) {
                    eprintln!("kill pause process {}: {error}", pause.pid);
                }
                if let Err(error) = std::fs::remove_file(&file) {
                    eprintln!("remove {}: {error}", file.display());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => eprintln!("read {}: {error}", file.display()),
        }
        sandbox::release(id, &self.state);
    }

    /// Kills what runs and releases every sandbox; the state directory's own mount goes last.
    fn shutdown(&mut self) {
        for container in self.containers.values().filter(|c| c.run.exit.is_none()) {
            kill_group(&container.cgroups);
        }
        let Ok(entries) = std::fs::read_dir(self.state.sandboxes()) else {
            self.stopping = true;
            return;
        };
        let ids: Vec<_> =
            entries.filter_map(Result::ok).filter_map(|e| e.file_name().into_string().ok()).collect();
        for id in ids {
            self.stop_sandbox(&id);
        }
        self.stopping = true;
    }
}
