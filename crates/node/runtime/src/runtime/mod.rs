//! The agent's half of the runtime.

mod containers;
mod exec;
mod prepare;
mod records;
mod sandboxes;
mod service;
mod streams;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use tokio::sync::broadcast;
use xebec_cri::{ContainerEvent, ContainerEventKind, CriError, ImageConfig, PodNetwork};

use crate::cgroup::{CgroupError, Cgroups};
use crate::client::SupervisorClient;
use crate::paths::{StateDir, read_json};
use crate::protocol::{Call, Run};
use records::{ContainerEntry, ContainerRecord, SandboxRecord, Table};

/// Events kept for a subscriber that lags; one that lags further loses its stream and lists again.
const EVENTS: usize = 4096;

/// The root file system of a container: where its layers lie and what the image says.
#[derive(Debug, Clone)]
pub struct Rootfs {
    /// Unpacked layers as overlayfs takes them (whiteouts converted), top first.
    pub lowerdirs: Vec<PathBuf>,
    /// The image's configuration.
    pub config: ImageConfig,
}

/// Where containers get their root file systems from: the image store.
#[async_trait]
pub trait RootfsProvider: Send + Sync + 'static {
    /// The layers of an image, which stay in place until `container_id` is released. May be repeated.
    async fn prepare(&self, image_id: &str, container_id: &str) -> Result<Rootfs, CriError>;

    /// Ends a container's claim on its layers. Not an error when there is none.
    async fn release(&self, container_id: &str) -> Result<(), CriError>;
}

/// How the runtime presents itself. Where its state lies is said by the [`SupervisorClient`].
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    /// Name, the scheme of container ids (`xebec`).
    pub name: String,
    /// Version.
    pub version: String,
}

/// The embedded runtime.
#[derive(Clone)]
pub struct EmbeddedRuntime {
    inner: Arc<Inner>,
}

struct Inner {
    config: RuntimeConfig,
    client: SupervisorClient,
    state: StateDir,
    cgroups: Cgroups,
    rootfs: Arc<dyn RootfsProvider>,
    network: Arc<dyn PodNetwork>,
    shared: Arc<Shared>,
}

/// What the supervisor's messages change.
struct Shared {
    table: Mutex<Table>,
    events: broadcast::Sender<ContainerEvent>,
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn emit(&self, sandbox_id: &str, container_id: &str, pod_uid: &str, kind: ContainerEventKind) {
        let event = ContainerEvent {
            container_id: container_id.to_owned(),
            sandbox_id: sandbox_id.to_owned(),
            pod_uid: pod_uid.to_owned(),
            kind,
            at: SystemTime::now(),
        };
        // No subscriber is no error.
        drop(self.events.send(event));
    }

    /// Takes note of a run. Repeated ones change nothing.
    fn apply(&self, run: Run) {
        let table = self.table();
        let Some(entry) = table.containers.get(&run.id) else { return };
        let before = entry.run.send_replace(Some(run.clone()));
        let uid = table.sandboxes.get(&run.sandbox_id).map(|s| s.config.metadata.uid.clone());
        drop(table);
        let uid = uid.unwrap_or_default();
        if before.is_none() && run.exit.as_ref().is_none_or(|e| e.reason != "StartError") {
            self.emit(&run.sandbox_id, &run.id, &uid, ContainerEventKind::Started);
        }
        if run.exit.is_some() && before.is_none_or(|b| b.exit.is_none()) {
            self.emit(&run.sandbox_id, &run.id, &uid, ContainerEventKind::Stopped);
        }
    }
}

impl EmbeddedRuntime {
    /// Takes up the sandboxes and containers of the supervisor's state directory. Half-made ones of an agent that
    /// died are removed, addresses of sandboxes that are gone released.
    pub async fn new(
        config: RuntimeConfig,
        client: SupervisorClient,
        rootfs: Arc<dyn RootfsProvider>,
        network: Arc<dyn PodNetwork>,
    ) -> Result<Self, CriError> {
        let state = StateDir::new(&client.options().state_dir);
        let cgroups = Cgroups::detect(&client.options().cgroup_root)?;
        let (table, half_made) = load(&state)?;
        for id in &half_made {
            rootfs.release(id).await?;
        }
        let table = Mutex::new(table);
        let shared = Arc::new(Shared { table, events: broadcast::channel(EVENTS).0 });
        let sink = Arc::clone(&shared);
        let inner = Inner { config, client, state, cgroups, rootfs, network, shared };
        let runtime = Self { inner: Arc::new(inner) };
        runtime.inner.client.subscribe(Box::new(move |run| sink.apply(run))).await?;
        let live: Vec<String> = {
            let table = runtime.inner.shared.table();
            table.sandboxes.values().filter(|s| s.ready).map(|s| s.id.clone()).collect()
        };
        runtime.inner.network.retain(&live).await?;
        Ok(runtime)
    }

    /// Stops every sandbox, if `all`; the supervisor and what runs otherwise stay, for the next agent to adopt.
    pub async fn shutdown(&self, all: bool) -> Result<(), CriError> {
        if !all {
            return Ok(());
        }
        let ids: Vec<String> = self.inner.shared.table().sandboxes.keys().cloned().collect();
        let stops = ids.iter().map(|id| self.stop_sandbox(id));
        futures::future::try_join_all(stops).await.map(drop)
    }

    /// Leaves no trace: stops and removes every sandbox, ends the supervisor, removes mounts, control groups and the
    /// state directory.
    pub async fn uninstall(&self) -> Result<(), CriError> {
        let ids: Vec<String> = self.inner.shared.table().sandboxes.keys().cloned().collect();
        let removals = ids.iter().map(|id| self.remove_sandbox(id));
        futures::future::try_join_all(removals).await?;
        let pid = self.inner.client.pid().await?;
        let pidfd =
            crate::sys::process::pidfd_open(pid).map_err(|e| CriError::failed("find supervisor", e))?;
        self.inner.client.stop_reconnecting();
        self.inner.client.call(Call::Shutdown, &[]).await?;
        let pidfd = crate::sys::reactor::register(pidfd).map_err(|e| CriError::failed("wait", e))?;
        pidfd.readable().await.map_err(|e| CriError::failed("wait for supervisor", e))?.retain_ready();
        let (cgroups, state) = (self.inner.cgroups.clone(), self.inner.state.clone());
        retry_busy(move || cgroups.remove_all()).await?;
        blocking(move || crate::paths::remove_tree(state.root()))
            .await?
            .map_err(|e| CriError::failed("remove state directory", e))
    }
}

/// Reads the records of an earlier agent, and names the containers that it left half-made.
fn load(state: &StateDir) -> Result<(Table, Vec<String>), CriError> {
    let fail = |what: &'static str| move |error| CriError::failed(what, error);
    let mut table = Table::default();
    let mut half_made = Vec::new();
    let boot_id = boot_id();
    for directory in [state.sandboxes(), state.containers()] {
        std::fs::create_dir_all(&directory).map_err(fail("make state directory"))?;
    }
    for entry in std::fs::read_dir(state.sandboxes()).map_err(fail("read sandboxes"))?.filter_map(Result::ok)
    {
        match read_json::<SandboxRecord>(&entry.path().join("meta.json")) {
            Ok(mut record) => {
                record.ready &= record.boot_id == boot_id && namespaces_held(state, &record);
                table.sandboxes.insert(record.id.clone(), record);
            }
            Err(error) => tracing::warn!(path = %entry.path().display(), %error, "unreadable sandbox"),
        }
    }
    for entry in
        std::fs::read_dir(state.containers()).map_err(fail("read containers"))?.filter_map(Result::ok)
    {
        match read_json::<ContainerRecord>(&entry.path().join("meta.json")) {
            Ok(record) => {
                table.containers.insert(record.id.clone(), ContainerEntry::new(record));
            }
            Err(error) => {
                tracing::info!(path = %entry.path().display(), %error, "removing half-made container");
                crate::paths::remove_tree(&entry.path()).map_err(fail("remove half-made container"))?;
                half_made.extend(entry.file_name().into_string());
            }
        }
    }
    Ok((table, half_made))
}

/// Whether the network namespace is still mounted where it was held.
fn namespaces_held(state: &StateDir, record: &SandboxRecord) -> bool {
    const NSFS_MAGIC: i64 = 0x6e73_6673;
    record.netns(state).is_none_or(|path| {
        rustix::fs::statfs(&path).is_ok_and(|fs| {
            #[allow(clippy::unnecessary_cast)] // The type differs between C libraries.
            let magic = fs.f_type as i64;
            magic == NSFS_MAGIC
        })
    })
}

fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

/// 64 hexadecimal digits.
fn new_id() -> String {
    let bytes: [u8; 32] = rand::random();
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Runs file system work that may take long beside the reactor.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, CriError> {
    tokio::task::spawn_blocking(work).await.map_err(|e| CriError::failed("blocking task", e))
}

/// Repeats a removal of control groups while killed processes are on their way out, which no event announces on
/// cgroup v1; at most for some seconds.
async fn retry_busy(
    remove: impl Fn() -> Result<(), CgroupError> + Send + Sync + 'static,
) -> Result<(), CriError> {
    let remove = Arc::new(remove);
    let mut pause = std::time::Duration::from_millis(2);
    loop {
        let attempt = Arc::clone(&remove);
        match blocking(move || attempt()).await? {
            Err(CgroupError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::ResourceBusy && pause.as_secs() < 2 =>
            {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            other => return Ok(other?),
        }
    }
}

impl From<CgroupError> for CriError {
    fn from(error: CgroupError) -> Self {
        match error {
            CgroupError::NoController { .. } => Self::Invalid(error.to_string()),
            other => Self::failed("cgroup", other),
        }
    }
}
