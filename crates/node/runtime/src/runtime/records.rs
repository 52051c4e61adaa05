//! What the agent keeps of sandboxes and containers, and their states as CRI shows them.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use xebec_cri::{
    ContainerConfig, ContainerState, ContainerStatus, NamespaceMode, SandboxConfig, SandboxState,
    SandboxStatus,
};

use crate::paths::StateDir;
use crate::protocol::Run;

/// A sandbox, as written to its `meta.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SandboxRecord {
    /// Id.
    pub id: String,
    /// As asked for.
    pub config: SandboxConfig,
    /// When it was made.
    pub created_at: SystemTime,
    /// Addresses.
    pub ips: Vec<IpAddr>,
    /// Whether it became ready and was not stopped.
    pub ready: bool,
    /// Boot in which it was made; namespaces end with it.
    pub boot_id: String,
}

impl SandboxRecord {
    /// Path of the held network namespace.
    pub fn netns(&self, state: &StateDir) -> Option<PathBuf> {
        let own = self.config.namespaces.network != NamespaceMode::Node;
        own.then(|| state.sandbox_ns(&self.id).join("net"))
    }

    /// As CRI shows it.
    pub fn status(&self, state: &StateDir) -> SandboxStatus {
        SandboxStatus {
            id: self.id.clone(),
            metadata: self.config.metadata.clone(),
            state: if self.ready { SandboxState::Ready } else { SandboxState::NotReady },
            created_at: self.created_at,
            ips: self.ips.clone(),
            netns: self.netns(state),
            namespaces: self.config.namespaces,
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
        }
    }
}

/// A container, as written to its `meta.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// Id.
    pub id: String,
    /// Sandbox.
    pub sandbox_id: String,
    /// As asked for; `resources` as last updated.
    pub config: ContainerConfig,
    /// When it was made.
    pub created_at: SystemTime,
    /// Resolved user, group and supplementary groups.
    pub user: (u32, u32, Vec<u32>),
    /// Absolute path of the log.
    pub log_path: Option<PathBuf>,
    /// Its group below our cgroup root.
    pub cgroup: String,
    /// Stop signal.
    pub stop_signal: i32,
}

/// A container with what the supervisor says of it.
#[derive(Debug)]
pub struct ContainerEntry {
    /// Record.
    pub record: ContainerRecord,
    /// Its run; `None` before the start.
    pub run: watch::Sender<Option<Run>>,
}

impl ContainerEntry {
    /// One that was not started.
    pub fn new(record: ContainerRecord) -> Self {
        Self { record, run: watch::channel(None).0 }
    }

    /// State.
    pub fn state(&self) -> ContainerState {
        match &*self.run.borrow() {
            None => ContainerState::Created,
            Some(run) if run.exit.is_some() => ContainerState::Exited,
            Some(_) => ContainerState::Running,
        }
    }

    /// As CRI shows it.
    pub fn status(&self) -> ContainerStatus {
        let run = self.run.borrow().clone();
        let exit = run.as_ref().and_then(|r| r.exit.clone());
        let record = &self.record;
        // A process that never came to be has no start time.
        let never_ran = exit.as_ref().is_some_and(|e| e.reason == "StartError");
        ContainerStatus {
            id: record.id.clone(),
            sandbox_id: record.sandbox_id.clone(),
            metadata: record.config.metadata.clone(),
            state: self.state(),
            created_at: record.created_at,
            started_at: run.as_ref().filter(|_| !never_ran).map(|r| time(r.started_at)),
            finished_at: exit.as_ref().map(|e| time(e.at)),
            exit_code: exit.as_ref().map(|e| e.code),
            signal: exit.as_ref().and_then(|e| e.signal),
            reason: exit.as_ref().map(|e| e.reason.clone()).unwrap_or_default(),
            message: exit.as_ref().map(|e| e.message.clone()).unwrap_or_default(),
            pid: run.filter(|r| r.exit.is_none()).and_then(|r| u32::try_from(r.pid).ok()),
            image: record.config.user_image.clone(),
            image_id: record.config.image.clone(),
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
            log_path: record.log_path.clone().unwrap_or_default(),
            resources: record.config.resources.clone(),
            user: Some(record.user.clone()),
        }
    }
}

/// Everything.
#[derive(Debug, Default)]
pub struct Table {
    /// Sandboxes by id.
    pub sandboxes: HashMap<String, SandboxRecord>,
    /// Containers by id.
    pub containers: HashMap<String, ContainerEntry>,
}

/// Whether `labels` has all of `wanted`.
pub fn has_labels(labels: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn time(nanoseconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(nanoseconds)
}
