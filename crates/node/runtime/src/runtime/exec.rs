//! Exec, attach and port-forward.

use std::fs::File;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::Winsize;
use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, oneshot, watch};
use xebec_cri::{
    AttachRequest, CriError, DuplexStream, ExecOutput, ExecRequest, ExitStatus, InputStream, OutputStream,
    StreamSession, TerminalSize,
};

use super::EmbeddedRuntime;
use super::streams::FdStream;
use crate::client::SupervisorClient;
use crate::protocol::{Call, ExecCall, Failure, Run};
use crate::wire;

/// Most output that [`EmbeddedRuntime::run_to_end`] keeps of each stream.
const MAX_OUTPUT: usize = 16 << 20;

fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> CriError {
    move |error| CriError::failed(what, error)
}

fn pipe() -> Result<(OwnedFd, OwnedFd), CriError> {
    pipe_with(PipeFlags::CLOEXEC).map_err(|e| CriError::failed("pipe", e))
}

/// Our ends of an exec's streams.
struct Ends {
    stdin: Option<FdStream>,
    stdout: Option<FdStream>,
    stderr: Option<FdStream>,
    terminal: Option<OwnedFd>,
}

impl EmbeddedRuntime {
    /// Starts an exec: our ends of its streams, its number, and where its exit code will be.
    async fn spawn(&self, request: &ExecRequest) -> Result<(Ends, u64, oneshot::Receiver<i32>), CriError> {
        self.container(&request.container_id)?;
        if request.command.is_empty() {
            return Err(CriError::Invalid("exec needs a command".into()));
        }
        let (number, exit) = self.inner.client.new_exec().await?;
        let call = ExecCall {
            exec: number,
            id: request.container_id.clone(),
            argv: request.command.clone(),
            tty: request.tty,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
        };
        let ends = if request.tty { self.spawn_terminal(call).await } else { self.spawn_piped(call).await };
        if ends.is_err() {
            self.inner.client.forget_exec(number);
        }
        Ok((ends?, number, exit))
    }

    async fn spawn_terminal(&self, call: ExecCall) -> Result<Ends, CriError> {
        let (ours, theirs) = wire::pair().map_err(io("socket pair"))?;
        let (stdin, stdout) = (call.stdin, call.stdout);
        self.inner.client.call(Call::Exec(call), &[theirs.as_fd()]).await?;
        // The master was sent before execve, so it is here when the call has succeeded.
        let received = wire::receive(ours.as_fd()).map_err(io("receive terminal"))?;
        let master = received
            .and_then(|(_, mut fds)| fds.pop())
            .ok_or_else(|| CriError::failed("receive terminal", "no descriptor came"))?;
        let terminal = Some(master.try_clone().map_err(io("terminal"))?);
        let stream = FdStream::new(master).map_err(io("terminal"))?;
        let input = stdin.then(|| stream.share());
        Ok(Ends { stdin: input, stdout: stdout.then_some(stream), stderr: None, terminal })
    }

    async fn spawn_piped(&self, call: ExecCall) -> Result<Ends, CriError> {
        let mut theirs = Vec::new();
        let mut ours = [None, None, None];
        for (index, wanted) in [call.stdin, call.stdout, call.stderr].into_iter().enumerate() {
            if wanted {
                let (reader, writer) = pipe()?;
                let (our, their) = if index == 0 { (writer, reader) } else { (reader, writer) };
                ours[index] = Some(FdStream::new(our).map_err(io("pipe"))?);
                theirs.push(their);
            }
        }
        let borrowed: Vec<BorrowedFd<'_>> = theirs.iter().map(AsFd::as_fd).collect();
        self.inner.client.call(Call::Exec(call), &borrowed).await?;
        let [stdin, stdout, stderr] = ours;
        Ok(Ends { stdin, stdout, stderr, terminal: None })
    }

    pub(super) async fn exec_session(&self, request: ExecRequest) -> Result<StreamSession, CriError> {
        let (ends, number, exit) = self.spawn(&request).await?;
        let (resize, sizes) = mpsc::channel(8);
        let (done, receiver) = oneshot::channel();
        let client = self.inner.client.clone();
        tokio::spawn(async move {
            let exit = async {
                let code = exit.await.map_err(|_| lost())?;
                Ok(ExitStatus { code })
            };
            if !relay(exit, ends.terminal, sizes, done).await {
                kill(&client, number).await;
            }
        });
        Ok(StreamSession {
            stdin: ends.stdin.map(|s| Box::new(s) as InputStream),
            stdout: ends.stdout.map(|s| Box::new(s) as OutputStream),
            stderr: ends.stderr.map(|s| Box::new(s) as OutputStream),
            resize,
            exit: receiver,
        })
    }

    /// Runs a command to its end and collects its output.
    pub(super) async fn run_to_end(
        &self,
        id: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutput, CriError> {
        let request = ExecRequest {
            container_id: id.to_owned(),
            command: command.to_vec(),
            tty: false,
            stdin: false,
            stdout: true,
            stderr: true,
        };
        let (ends, number, exit) = self.spawn(&request).await?;
        // Killed also when the caller goes away.
        let mut guard = KillOnDrop { client: Some(self.inner.client.clone()), number };
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let (Some(mut out), Some(mut err)) = (ends.stdout, ends.stderr) else {
            return Err(CriError::failed("exec", "streams are missing"));
        };
        let waited = {
            let collect = async {
                tokio::join!(collect(&mut out, &mut stdout), collect(&mut err, &mut stderr));
                // Both streams may be closed long before the end.
                std::future::pending::<()>().await;
            };
            let ended = async {
                tokio::select! {
                    code = exit => code.map_err(|_| lost()),
                    () = collect => Err(lost()),
                }
            };
            // Zero means no limit, as in CRI.
            let limit = if timeout.is_zero() { Duration::from_secs(u64::from(u32::MAX)) } else { timeout };
            tokio::time::timeout(limit, ended).await
        };
        let Ok(code) = waited else {
            return Err(CriError::Timeout { operation: "exec", seconds: timeout.as_secs() });
        };
        let code = code?;
        guard.client = None;
        // What is in the pipes now is all: a background process that holds them open is not waited for.
        out.read_available(MAX_OUTPUT, &mut stdout);
        err.read_available(MAX_OUTPUT, &mut stderr);
        Ok(ExecOutput { stdout, stderr, code })
    }

    pub(super) async fn attach_session(&self, request: AttachRequest) -> Result<StreamSession, CriError> {
        let id = &request.container_id;
        let (record, run) = self.container(id)?;
        if request.stdin && !record.config.stdin {
            return Err(CriError::Invalid(format!("container {id} was made without stdin")));
        }
        let tty = record.config.tty;
        let (out, their_out) = wide_pipe(request.stdout)?;
        let (err, their_err) = wide_pipe(request.stderr && !tty)?;
        let theirs: Vec<BorrowedFd<'_>> = their_out.iter().chain(&their_err).map(AsFd::as_fd).collect();
        let stderr = request.stderr && !tty;
        let call = Call::Attach { id: id.clone(), stdout: request.stdout, stderr };
        let (_, mut fds) = self.inner.client.call_with_fds(call, &theirs).await?;
        let master = fds.pop();
        let stdin = match (&master, request.stdin) {
            (_, false) => None,
            (Some(master), true) => Some(master.try_clone().map_err(io("terminal"))?),
            (None, true) => Some(self.open_stdin(id).map_err(io("open stdin"))?),
        };
        if request.stdin && record.config.stdin_once && !tty {
            // Our descriptor is now the last: closing it is the end of file.
            self.inner.client.call(Call::ReleaseStdin { id: id.clone() }, &[]).await?;
        }
        let (resize, sizes) = mpsc::channel(8);
        let (done, receiver) = oneshot::channel();
        tokio::spawn(relay(container_exit(run), master, sizes, done));
        let stream = |fd: Option<OwnedFd>| fd.map(FdStream::new).transpose().map_err(io("attach"));
        Ok(StreamSession {
            stdin: stream(stdin)?.map(|s| Box::new(s) as InputStream),
            stdout: stream(out)?.map(|s| Box::new(s) as OutputStream),
            stderr: stream(err)?.map(|s| Box::new(s) as OutputStream),
            resize,
            exit: receiver,
        })
    }

    fn open_stdin(&self, id: &str) -> std::io::Result<OwnedFd> {
        use rustix::fs::{Mode, OFlags};
        let path = self.inner.state.container(id).join("stdin");
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(rustix::fs::open(path, flags, Mode::empty())?)
    }

    pub(super) async fn forward(
        &self,
        sandbox_id: &str,
        port: u16,
    ) -> Result<Box<dyn DuplexStream>, CriError> {
        let sandbox = self.sandbox(sandbox_id)?;
        if !sandbox.ready {
            return Err(CriError::State(format!("sandbox {sandbox_id} is not ready")));
        }
        let netns = sandbox.netns(&self.inner.state);
        let (done, receiver) = oneshot::channel();
        // A thread of its own, which ends with the namespace it joined.
        std::thread::Builder::new()
            .name("port-forward".into())
            .spawn(move || drop(done.send(connect_inside(netns, port))))
            .map_err(io("port-forward thread"))?;
        let connected = receiver.await.map_err(|e| CriError::failed("port-forward", e))?;
        let stream =
            connected.map_err(|e| CriError::failed(format!("connect to localhost:{port} in the pod"), e))?;
        stream.set_nonblocking(true).map_err(io("port-forward"))?;
        Ok(Box::new(tokio::net::TcpStream::from_std(stream).map_err(io("port-forward"))?))
    }
}

fn connect_inside(netns: Option<PathBuf>, port: u16) -> std::io::Result<TcpStream> {
    if let Some(path) = netns {
        crate::sys::process::setns(File::open(path)?.as_fd(), libc::CLONE_NEWNET)?;
    }
    let addresses =
        [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))];
    TcpStream::connect(&addresses[..])
}

fn lost() -> CriError {
    CriError::Unavailable("the supervisor was lost while the command ran".into())
}

async fn kill(client: &SupervisorClient, number: u64) {
    if let Err(error) = client.call(Call::KillExec { exec: number }, &[]).await {
        tracing::debug!(%error, "exec was not killed");
    }
}

struct KillOnDrop {
    client: Option<SupervisorClient>,
    number: u64,
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            let number = self.number;
            tokio::spawn(async move { kill(&client, number).await });
        }
    }
}

/// Reads a stream to its end; beyond the limit output is discarded, so that the command is not blocked.
async fn collect(stream: &mut FdStream, into: &mut Vec<u8>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        into.extend_from_slice(&buffer[..length.min(MAX_OUTPUT - into.len())]);
    }
}

/// A pipe that holds what a slow client has not read yet; the supervisor drops a client whose pipe is full.
fn wide_pipe(wanted: bool) -> Result<(Option<OwnedFd>, Option<OwnedFd>), CriError> {
    if !wanted {
        return Ok((None, None));
    }
    let (reader, writer) = pipe()?;
    if rustix::pipe::fcntl_setpipe_size(&writer, 1 << 20).is_err() {
        tracing::debug!("pipe for attach keeps its default size");
    }
    Ok((Some(reader), Some(writer)))
}

async fn container_exit(mut run: watch::Receiver<Option<Run>>) -> Result<ExitStatus, CriError> {
    let ended = run.wait_for(|run| run.as_ref().is_some_and(|r| r.exit.is_some())).await;
    let run = ended.map_err(|_| CriError::State("the container was removed".into()))?;
    let code = run.as_ref().and_then(|r| r.exit.as_ref()).map_or(255, |e| e.code);
    Ok(ExitStatus { code })
}

/// Applies terminal sizes until the end, which goes to `done`; `false` when nobody waits for it any more.
async fn relay(
    exit: impl Future<Output = Result<ExitStatus, CriError>>,
    terminal: Option<OwnedFd>,
    mut sizes: mpsc::Receiver<TerminalSize>,
    mut done: oneshot::Sender<Result<ExitStatus, CriError>>,
) -> bool {
    tokio::pin!(exit);
    loop {
        tokio::select! {
            status = &mut exit => return done.send(status).is_ok(),
            Some(size) = sizes.recv() => set_size(terminal.as_ref(), size),
            () = done.closed() => return false,
        }
    }
}

fn set_size(terminal: Option<&OwnedFd>, size: TerminalSize) {
    let Some(terminal) = terminal else { return };
    let size = Winsize { ws_row: size.height, ws_col: size.width, ws_xpixel: 0, ws_ypixel: 0 };
    if let Err(error) = rustix::termios::tcsetwinsize(terminal, size) {
        tracing::debug!(%error, "resize terminal");
    }
}

/// So that a failure of the other side reads the same here and in the supervisor's log.
impl From<Failure> for CriError {
    fn from(failure: Failure) -> Self {
        crate::client::ClientError::from(failure).into()
    }
}
