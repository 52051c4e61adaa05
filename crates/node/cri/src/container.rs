//! Containers inside a sandbox.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::SecurityContext;

/// Identity of a container within its sandbox. A restart gets a higher `attempt`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ContainerMetadata {
    /// Name in the pod's spec.
    pub name: String,
    /// Attempt (the restart count), counted from 0.
    pub attempt: u32,
}

/// How mounts propagate between host and container (`mountPropagation`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountPropagation {
    /// `None`: rprivate.
    Private,
    /// `HostToContainer`: rslave.
    HostToContainer,
    /// `Bidirectional`: rshared.
    Bidirectional,
}

/// A bind mount from the node into the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Path in the container.
    pub container_path: PathBuf,
    /// Path on the node; a file or a directory that exists.
    pub host_path: PathBuf,
    /// Read-only.
    pub readonly: bool,
    /// Read-only also for mounts below it (`recursiveReadOnly`).
    pub recursive_readonly: bool,
    /// Propagation.
    pub propagation: MountPropagation,
}

/// A device of the node given to the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Path in the container.
    pub container_path: PathBuf,
    /// Path on the node.
    pub host_path: PathBuf,
    /// Any of `r`, `w`, `m`.
    pub permissions: String,
}

/// Resource limits of a container or pod cgroup. `None` and 0 mean unlimited or unset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinuxResources {
    /// CFS period in microseconds.
    pub cpu_period_us: Option<u64>,
    /// CFS quota in microseconds; negative is unlimited.
    pub cpu_quota_us: Option<i64>,
    /// CPU shares (2–262144); converted to `cpu.weight` on cgroup v2 as KEP-2254 says.
    pub cpu_shares: Option<u64>,
    /// Memory limit in bytes.
    pub memory_limit_bytes: Option<u64>,
    /// Memory plus swap limit in bytes.
    pub memory_swap_limit_bytes: Option<u64>,
    /// `oom_score_adj` of the container's processes; not being allowed to set it is tolerated.
    pub oom_score_adj: Option<i32>,
    /// CPUs as in `0-2,4`.
    pub cpuset_cpus: Option<String>,
    /// NUMA nodes as in `0`.
    pub cpuset_mems: Option<String>,
    /// Largest number of processes.
    pub pids_limit: Option<i64>,
    /// Huge page limits: page size (`2MB`) to bytes.
    pub hugepage_limits: BTreeMap<String, u64>,
    /// Files of the unified hierarchy (cgroup v2) and what is written into them; without it they have no meaning.
    #[serde(default)]
    pub unified: BTreeMap<String, String>,
}

/// Everything needed to make a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// Identity.
    pub metadata: ContainerMetadata,
    /// Image id (digest of its config) as `ImageService` answered it.
    pub image: String,
    /// Image reference as the user wrote it.
    pub user_image: String,
    /// Entry point; empty keeps the image's `ENTRYPOINT`.
    pub command: Vec<String>,
    /// Arguments; with both empty the image's `CMD` holds.
    pub args: Vec<String>,
    /// Working directory; empty keeps the image's.
    pub working_dir: String,
    /// Environment, in order; later wins. The image's environment comes first.
    pub envs: Vec<(String, String)>,
    /// Mounts, in order.
    pub mounts: Vec<Mount>,
    /// Devices.
    pub devices: Vec<Device>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Log file, relative to the sandbox's log directory.
    pub log_path: PathBuf,
    /// Keep stdin open for attach.
    pub stdin: bool,
    /// Close stdin after the first attached client leaves.
    pub stdin_once: bool,
    /// Give the process a terminal.
    pub tty: bool,
    /// Limits.
    pub resources: LinuxResources,
    /// Security.
    pub security: SecurityContext,
    /// Signal number that stops the container; `None` takes the image's `STOPSIGNAL`, else SIGTERM.
    pub stop_signal: Option<i32>,
}

/// State of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ContainerState {
    /// Made, not started.
    Created,
    /// Its process runs.
    Running,
    /// Its process ended.
    Exited,
    /// The runtime does not know (its supervisor lost it).
    Unknown,
}

/// A container as status and list show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerStatus {
    /// Runtime's id.
    pub id: String,
    /// Sandbox it belongs to.
    pub sandbox_id: String,
    /// Identity.
    pub metadata: ContainerMetadata,
    /// State.
    pub state: ContainerState,
    /// When it was made.
    pub created_at: SystemTime,
    /// When its process started.
    pub started_at: Option<SystemTime>,
    /// When its process ended.
    pub finished_at: Option<SystemTime>,
    /// Exit code; 128+n for death by signal n.
    pub exit_code: Option<i32>,
    /// Signal that ended it.
    pub signal: Option<i32>,
    /// CamelCase reason: `Completed`, `Error`, `OOMKilled`, `StartError`.
    pub reason: String,
    /// Details for a person.
    pub message: String,
    /// Process id on the node while running.
    pub pid: Option<u32>,
    /// Image reference as the user wrote it.
    pub image: String,
    /// Image id.
    pub image_id: String,
    /// Labels of the config.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the config.
    pub annotations: BTreeMap<String, String>,
    /// Absolute path of the log.
    pub log_path: PathBuf,
    /// Limits in force.
    pub resources: LinuxResources,
    /// Effective `(uid, gid, supplementary groups)` of the first process.
    pub user: Option<(u32, u32, Vec<u32>)>,
}

/// Which containers to list; empty matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerFilter {
    /// Only this id.
    pub id: Option<String>,
    /// Only those of this sandbox.
    pub sandbox_id: Option<String>,
    /// Only this state.
    pub state: Option<ContainerState>,
    /// Only those with all of these labels.
    pub labels: BTreeMap<String, String>,
}

/// What happened to a container or sandbox (CRI's evented PLEG, KEP-3386).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerEvent {
    /// The container, or the sandbox for sandbox events.
    pub container_id: String,
    /// The sandbox.
    pub sandbox_id: String,
    /// Pod UID.
    pub pod_uid: String,
    /// What happened.
    pub kind: ContainerEventKind,
    /// When.
    pub at: SystemTime,
}

/// Kinds of container events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerEventKind {
    /// Made.
    Created,
    /// Its process started.
    Started,
    /// Its process ended.
    Stopped,
    /// Removed.
    Deleted,
}
