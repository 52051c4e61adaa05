//! The agent's side of the supervisor's socket.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{oneshot, watch};
use xebec_cri::CriError;

use crate::paths::StateDir;
use crate::protocol::{Answer, Call, Failure, Message, Request, Run, fingerprint};
use crate::supervisor::SOCKET;
use crate::wire;

/// How long a call waits for a supervisor that is being replaced.
const RECONNECT: Duration = Duration::from_secs(10);

/// Which supervisor, and how to start it.
#[derive(Debug, Clone)]
pub struct SupervisorOptions {
    /// State directory, absolute. One supervisor per directory.
    pub state_dir: PathBuf,
    /// Root of our control groups in every hierarchy, as in `xebec/4f1c`.
    pub cgroup_root: String,
    /// Our own binary; it is run as `<exe> supervisor --state-dir … --cgroup-root …`.
    pub exe: PathBuf,
}

/// Why the supervisor cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It could not be started.
    #[error("start supervisor {exe}: {reason}")]
    Start {
        /// Binary.
        exe: PathBuf,
        /// Why, in the supervisor's own words where it had any.
        reason: String,
    },
    /// It could not be connected to.
    #[error("connect to supervisor at {path}: {source}")]
    Connect {
        /// Socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection broke during a call.
    #[error("the connection to the supervisor was lost")]
    Lost,
    /// It refused.
    #[error(transparent)]
    Refused(#[from] Failure),
}

impl From<ClientError> for CriError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused(Failure::NotFound(id)) => Self::NotFound { what: "container", id },
            ClientError::Refused(Failure::State(text)) => Self::State(text),
            ClientError::Refused(Failure::Start(text)) => {
                Self::Start(format!("unable to start container process: {text}"))
            }
            ClientError::Refused(Failure::Other(text)) => Self::failed("supervisor", text),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

type Reply = Result<(Answer, Vec<OwnedFd>), ClientError>;
type RunSink = Box<dyn Fn(Run) + Send + Sync>;

/// One connection.
struct Link {
    socket: AsyncFd<OwnedFd>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Reply>>>,
    execs: Mutex<HashMap<u64, oneshot::Sender<i32>>>,
}

struct Shared {
    options: SupervisorOptions,
    link: watch::Sender<Option<Arc<Link>>>,
    sink: OnceLock<RunSink>,
    next: AtomicU64,
    ending: AtomicBool,
}

/// A connection to the supervisor that comes back by itself when the supervisor is replaced or has to be started
/// again. Dropping the last clone ends it; the supervisor and its containers go on.
#[derive(Clone)]
pub struct SupervisorClient {
    shared: Arc<Shared>,
    _task: Arc<AbortOnDrop>,
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl std::fmt::Debug for SupervisorClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SupervisorClient").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SupervisorClient {
    /// Connects to the supervisor of a state directory, starting it if none runs. One that runs another build of our
    /// binary is asked to replace itself by this one, keeping all containers.
    pub async fn connect_or_start(options: SupervisorOptions) -> Result<Self, ClientError> {
        let shared = Arc::new(Shared {
            options,
            link: watch::channel(None).0,
            sink: OnceLock::new(),
            next: AtomicU64::new(1),
            ending: AtomicBool::new(false),
        });
        let link = shared.establish().await?;
        let link = shared.adopt_build(link).await?;
        shared.link.send_replace(Some(Arc::clone(&link)));
        let task = tokio::spawn(keep_connected(Arc::clone(&shared), link));
        Ok(Self { shared, _task: Arc::new(AbortOnDrop(task)) })
    }

    /// What it was made from.
    pub fn options(&self) -> &SupervisorOptions {
        &self.shared.options
    }

    /// The supervisor's process id.
    pub async fn pid(&self) -> Result<i32, ClientError> {
        match self.call(Call::Hello, &[]).await? {
            Answer::Hello { pid, .. } => Ok(pid),
            Answer::Done => Err(Failure::Other("unexpected answer to hello".into()).into()),
        }
    }

    /// Lets the supervisor replace its program by `exe`, keeping children and descriptors, and waits until it is
    /// back.
    pub async fn replace_program(&self, exe: PathBuf) -> Result<(), ClientError> {
        let link = self.shared.current().await?;
        self.shared.request(&link, Call::Reexec { exe }, &[]).await?;
        let mut changed = self.shared.link.subscribe();
        let is_new = |now: &Option<Arc<Link>>| now.as_ref().is_some_and(|now| !Arc::ptr_eq(now, &link));
        let waited = tokio::time::timeout(RECONNECT, changed.wait_for(is_new)).await;
        waited.ok().and_then(Result::ok).map(drop).ok_or(ClientError::Lost)
    }

    /// Hands every run to `sink`, before the response of any call that was sent later than it, and asks for all
    /// runs. Once only.
    pub(crate) async fn subscribe(&self, sink: RunSink) -> Result<(), ClientError> {
        if self.shared.sink.set(sink).is_err() {
            return Err(Failure::State("runs are subscribed to already".into()).into());
        }
        self.call(Call::Subscribe, &[]).await.map(drop)
    }

    /// Lets the connection end for good when it ends: for those who are about to stop the supervisor themselves.
    pub fn stop_reconnecting(&self) {
        self.shared.ending.store(true, Ordering::Relaxed);
    }

    pub(crate) async fn call(&self, call: Call, fds: &[BorrowedFd<'_>]) -> Result<Answer, ClientError> {
        self.call_with_fds(call, fds).await.map(|(answer, _)| answer)
    }

    pub(crate) async fn call_with_fds(&self, call: Call, fds: &[BorrowedFd<'_>]) -> Reply {
        let link = self.shared.current().await?;
        self.shared.request(&link, call, fds).await
    }

    /// A number for an exec and the place where its exit code will appear.
    pub(crate) async fn new_exec(&self) -> Result<(u64, oneshot::Receiver<i32>), ClientError> {
        let link = self.shared.current().await?;
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        lock(&link.execs).insert(number, sender);
        Ok((number, receiver))
    }

    /// Forgets an exec that did not start.
    pub(crate) fn forget_exec(&self, number: u64) {
        if let Some(link) = self.shared.link.borrow().as_ref() {
            lock(&link.execs).remove(&number);
        }
    }
}

/// Reads until the connection breaks, then makes a new one, for as long as there is a client.
async fn keep_connected(shared: Arc<Shared>, mut link: Arc<Link>) {
    loop {
        shared.read(&link).await;
        shared.link.send_replace(None);
        lock(&link.waiting).clear();
        lock(&link.execs).clear();
        if shared.ending.load(Ordering::Relaxed) {
            return;
        }
        let mut pause = Duration::from_millis(5);
        link = loop {
            match shared.establish().await {
                Ok(link) => break link,
                Err(error) => {
                    tracing::warn!(%error, "supervisor is unreachable");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
            }
        };
        // Its response is read by the next round like any other.
        let subscribe = Request { id: 0, call: Call::Subscribe };
        if shared.sink.get().is_some()
            && let Err(error) = send(&link, &subscribe, &[]).await
        {
            tracing::warn!(%error, "subscribe to supervisor");
        }
        shared.link.send_replace(Some(Arc::clone(&link)));
    }
}

impl Shared {
    /// Connects, starting the supervisor if none listens.
    async fn establish(&self) -> Result<Arc<Link>, ClientError> {
        let path = StateDir::new(&self.options.state_dir).file(SOCKET);
        let connect = |source| ClientError::Connect { path: path.clone(), source };
        let socket = match wire::connect(&path) {
            Ok(socket) => socket,
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ECONNREFUSED)) => {
                let options = self.options.clone();
                let started = tokio::task::spawn_blocking(move || start(&options)).await;
                started
                    .unwrap_or_else(|error| Err(error.to_string()))
                    .map_err(|reason| ClientError::Start { exe: self.options.exe.clone(), reason })?;
                wire::connect(&path).map_err(connect)?
            }
            Err(error) => return Err(connect(error)),
        };
        let socket = crate::sys::reactor::register(socket).map_err(connect)?;
        Ok(Arc::new(Link { socket, waiting: Mutex::default(), execs: Mutex::default() }))
    }

    /// Asks a supervisor of another build to become this one.
    async fn adopt_build(&self, link: Arc<Link>) -> Result<Arc<Link>, ClientError> {
        if self.ask_to_become(&link).await? {
            return Ok(link);
        }
        // The old program closes the connection when it goes; the listening socket stays, and queues us.
        self.read(&link).await;
        self.establish().await
    }

    /// Whether the supervisor runs our build; if not, it now begins to.
    async fn ask_to_become(&self, link: &Link) -> Result<bool, ClientError> {
        let reading = self.read(link);
        let asking = async {
            let (answer, _) = self.request(link, Call::Hello, &[]).await?;
            let ours = fingerprint(&self.options.exe).map_err(|e| Failure::Other(e.to_string()))?;
            let same = matches!(&answer, Answer::Hello { build, .. } if *build == ours);
            if !same {
                let exe = self.options.exe.clone();
                self.request(link, Call::Reexec { exe }, &[]).await?;
            }
            Ok::<_, ClientError>(same)
        };
        tokio::pin!(asking);
        tokio::select! {
            same = &mut asking => same,
            () = reading => {
                // The last answer may have come together with the end of the connection.
                lock(&link.waiting).clear();
                asking.await
            }
        }
    }

    async fn current(&self) -> Result<Arc<Link>, ClientError> {
        let mut link = self.link.subscribe();
        let waited = tokio::time::timeout(RECONNECT, link.wait_for(Option::is_some)).await;
        waited.ok().and_then(Result::ok).and_then(|link| link.clone()).ok_or(ClientError::Lost)
    }

    async fn request(&self, link: &Link, call: Call, fds: &[BorrowedFd<'_>]) -> Reply {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        lock(&link.waiting).insert(id, sender);
        if let Err(error) = send(link, &Request { id, call }, fds).await {
            lock(&link.waiting).remove(&id);
            return Err(match error.raw_os_error() {
                Some(libc::EMSGSIZE) => Failure::Other("the command is too long".into()).into(),
                _ => ClientError::Lost,
            });
        }
        receiver.await.unwrap_or(Err(ClientError::Lost))
    }

    /// Handles messages until the connection ends.
    async fn read(&self, link: &Link) {
        loop {
            let received =
                link.socket.async_io(Interest::READABLE, |socket| wire::receive(socket.as_fd())).await;
            let (packet, fds) = match received {
                Ok(Some(received)) => received,
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(%error, "connection to supervisor broke");
                    return;
                }
            };
            match serde_json::from_slice(&packet) {
                Ok(message) => self.handle(link, message, fds),
                Err(error) => tracing::error!(%error, "malformed message from supervisor"),
            }
        }
    }

    fn handle(&self, link: &Link, message: Message, fds: Vec<OwnedFd>) {
        match message {
            Message::Response { id, result } => {
                // Nobody waits any more when a caller was dropped.
                if let Some(sender) = lock(&link.waiting).remove(&id)
                    && sender.send(result.map(|answer| (answer, fds)).map_err(Into::into)).is_err()
                {
                    tracing::debug!(id, "answer came too late");
                }
            }
            Message::Run(run) => {
                if let Some(sink) = self.sink.get() {
                    sink(*run);
                }
            }
            Message::ExecExited { exec, code } => {
                if let Some(sender) = lock(&link.execs).remove(&exec)
                    && sender.send(code).is_err()
                {
                    tracing::debug!(exec, "nobody waits for the exit code");
                }
            }
        }
    }
}

async fn send(link: &Link, request: &Request, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let packet = serde_json::to_vec(request)?;
    if packet.len() > crate::protocol::MAX_MESSAGE {
        return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
    }
    let raw: Vec<i32> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    tracing::trace!(id = request.id, ?raw, "call");
    link.socket.async_io(Interest::WRITABLE, |socket| wire::send(socket.as_fd(), &packet, fds)).await
}

/// Runs our binary as supervisor; it detaches itself and returns when it listens.
fn start(options: &SupervisorOptions) -> Result<(), String> {
    std::fs::create_dir_all(&options.state_dir).map_err(|e| e.to_string())?;
    let path = options.state_dir.join("supervisor.log");
    let log = File::options().create(true).append(true).open(&path).map_err(|e| e.to_string())?;
    let status = Command::new(&options.exe)
        .arg("supervisor")
        .arg("--state-dir")
        .arg(&options.state_dir)
        .arg("--cgroup-root")
        .arg(&options.cgroup_root)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(|e| e.to_string())?)
        .stderr(log)
        .status()
        .map_err(|e| e.to_string())?;
    if status.success() {
        Ok(())
    } else {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        Err(text.lines().next_back().map_or_else(|| status.to_string(), str::to_owned))
    }
}
