//! What the supervisor needs to know to run a container: everything resolved, nothing left to look up.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use xebec_cri::Mount;

/// A process inside a container: its first one, or an exec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// Command with its arguments; never empty.
    pub argv: Vec<String>,
    /// Environment, `NAME=value`.
    pub env: Vec<String>,
    /// Working directory, absolute.
    pub cwd: PathBuf,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Capabilities, as a bit mask: bounding set, and for root effective and permitted too.
    pub capabilities: u64,
    /// `no_new_privs`.
    pub no_new_privs: bool,
    /// Compiled seccomp filter.
    pub seccomp: Option<PathBuf>,
    /// AppArmor profile to change to at `execve`.
    pub apparmor: Option<String>,
    /// Give it a terminal.
    pub tty: bool,
    /// `oom_score_adj`.
    pub oom_score_adj: Option<i32>,
}

/// Where a container's processes are numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PidNamespace {
    /// Its own.
    Own,
    /// That of the sandbox's pause process.
    Sandbox,
    /// The node's.
    Host,
}

/// A device node to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNode {
    /// Path in the container.
    pub path: PathBuf,
    /// File type and permission bits.
    pub mode: u32,
    /// Device number.
    pub rdev: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Id.
    pub id: String,
    /// Sandbox.
    pub sandbox_id: String,
    /// Lower directories of the overlay, top first.
    pub lowerdirs: Vec<PathBuf>,
    /// Network namespace to join.
    pub netns: Option<PathBuf>,
    /// IPC namespace to join.
    pub ipcns: Option<PathBuf>,
    /// UTS namespace to join.
    pub utsns: Option<PathBuf>,
    /// Process namespace.
    pub pidns: PidNamespace,
    /// Bind mounts, in order.
    pub mounts: Vec<Mount>,
    /// Directories that must exist in the image's tree (`VOLUME`).
    pub volumes: Vec<PathBuf>,
    /// Device nodes.
    pub devices: Vec<DeviceNode>,
    /// Source of `/dev/shm`.
    pub shm: PathBuf,
    /// Paths to hide.
    pub masked_paths: Vec<String>,
    /// Paths to make read-only.
    pub readonly_paths: Vec<String>,
    /// Read-only root.
    pub readonly_rootfs: bool,
    /// Privileged: `/sys` and `/proc` stay writable.
    pub privileged: bool,
    /// Directories of the container's cgroup, one per hierarchy: hierarchy name and path.
    pub cgroups: Vec<(String, PathBuf)>,
    /// Its first process.
    pub process: ProcessSpec,
    /// Log file, absolute; `None` discards output.
    pub log_path: Option<PathBuf>,
    /// Keep stdin open for attach.
    pub stdin: bool,
}
