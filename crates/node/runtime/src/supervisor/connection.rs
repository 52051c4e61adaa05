//! Connections of agents.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use rustix::event::epoll::{self, EventFlags};

use super::{Source, Supervisor, procfs};
use crate::protocol::{Answer, Failure, Message, Request};
use crate::spec::ContainerSpec;
use crate::sys::process;
use crate::wire;

/// Most messages that wait for a slow agent; more, and it is cut off and has to list again.
const MAX_QUEUE: usize = 4096;

/// An agent's connection.
pub struct Connection {
    socket: OwnedFd,
    queue: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
    /// Gets every run.
    pub subscribed: bool,
}

impl Supervisor {
    pub(super) fn accept(&mut self) {
        match wire::accept(self.listener.as_fd()) {
            Ok(socket) => {
                let fd = socket.as_raw_fd();
                if let Err(error) = self.watch(socket.as_fd(), Source::Connection) {
                    eprintln!("watch connection: {error}");
                    return;
                }
                let connection = Connection { socket, queue: VecDeque::new(), subscribed: false };
                self.connections.insert(fd, connection);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => eprintln!("accept: {error}"),
        }
    }

    pub(super) fn serve_connection(&mut self, fd: RawFd, flags: EventFlags) {
        if flags.contains(EventFlags::OUT) {
            self.flush(fd);
        }
        if !flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            return;
        }
        let Some(connection) = self.connections.get(&fd) else { return };
        match wire::receive(connection.socket.as_fd()) {
            Ok(Some((packet, fds))) => match serde_json::from_slice::<Request>(&packet) {
                Ok(request) => {
                    let id = request.id;
                    if let Some(result) = self.call(fd, request, fds) {
                        self.respond(fd, id, result);
                    }
                }
                Err(error) => {
                    eprintln!("malformed request: {error}");
                    self.close(fd);
                }
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(None) | Err(_) => self.close(fd),
        }
    }

    pub(super) fn respond(&mut self, fd: RawFd, id: u64, result: Result<Answer, Failure>) {
        self.send(fd, &Message::Response { id, result }, &[]);
    }

    /// Sends a message, or queues it; a connection that is gone is no error.
    pub(super) fn send(&mut self, fd: RawFd, message: &Message, fds: &[&OwnedFd]) {
        let Some(connection) = self.connections.get_mut(&fd) else { return };
        let packet = match serde_json::to_vec(message) {
            Ok(packet) => packet,
            Err(error) => {
                eprintln!("encode message: {error}");
                return;
            }
        };
        if connection.queue.is_empty() {
            let borrowed: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
            match wire::send(connection.socket.as_fd(), &packet, &borrowed) {
                Ok(()) => return,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return self.close(fd),
            }
        }
        let copies: io::Result<Vec<OwnedFd>> = fds.iter().map(|fd| fd.try_clone()).collect();
        match copies {
            Ok(copies) if connection.queue.len() < MAX_QUEUE => {
                connection.queue.push_back((packet, copies));
                self.want_output(fd, true);
            }
            _ => self.close(fd),
        }
    }

    fn flush(&mut self, fd: RawFd) {
        let Some(connection) = self.connections.get_mut(&fd) else { return };
        while let Some((packet, fds)) = connection.queue.front() {
            let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            match wire::send(connection.socket.as_fd(), packet, &borrowed) {
                Ok(()) => drop(connection.queue.pop_front()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.close(fd),
            }
        }
        self.want_output(fd, false);
    }

    fn want_output(&mut self, fd: RawFd, wanted: bool) {
        let Some(connection) = self.connections.get(&fd) else { return };
        let flags = if wanted { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        let data = epoll::EventData::new_u64(fd as u64);
        if epoll::modify(&self.epoll, &connection.socket, data, flags).is_err() {
            self.close(fd);
        }
    }

    /// Forgets a connection; what it has exec'd has nobody to talk to any more and is killed.
    pub(super) fn close(&mut self, fd: RawFd) {
        let Some(connection) = self.connections.remove(&fd) else { return };
        self.unwatch(connection.socket.as_fd());
        let orphans: Vec<(i32, String)> = self
            .execs
            .iter()
            .filter(|(_, e)| e.connection == fd)
            .map(|(pid, e)| (*pid, e.container.clone()))
            .collect();
        for (pid, container) in orphans {
            self.kill_exec(pid, &container);
        }
        // The number will be used again: its execs must not be taken for those of a later connection.
        self.execs.values_mut().filter(|e| e.connection == fd).for_each(|e| e.connection = -1);
        self.pending.values_mut().filter(|p| p.connection == fd).for_each(|p| p.connection = -1);
    }

    /// Kills an exec'd process with its session and descendants.
    pub(super) fn kill_exec(&self, pid: i32, container: &str) {
        let spec: Option<ContainerSpec> =
            crate::paths::read_json(&self.state.container(container).join("spec.json")).ok();
        let mut victims = vec![pid];
        if let Some((_, path)) = spec.as_ref().and_then(|s| s.cgroups.first()) {
            let members: Vec<(i32, i32, i32)> = crate::cgroup::all_processes(path)
                .into_iter()
                .filter_map(|p| procfs::parent_and_session(p).map(|(parent, session)| (p, parent, session)))
                .collect();
            let mut at = 0;
            while at < victims.len() {
                let of = |(p, parent, session): &&(i32, i32, i32)| {
                    !victims.contains(p) && (*session == pid || *parent == victims[at])
                };
                let found: Vec<i32> = members.iter().filter(of).map(|m| m.0).collect();
                victims.extend(found);
                at += 1;
            }
        }
        for victim in victims {
            if let Err(error) = process::kill(victim, libc::SIGKILL) {
                eprintln!("kill {victim}: {error}");
            }
        }
    }
}
