//! Resource use of containers.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// What a container or a pod's cgroup has used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceUsage {
    /// When it was read.
    pub at: SystemTime,
    /// CPU time used since start, in nanoseconds.
    pub cpu_nanoseconds: u64,
    /// Memory charged, in bytes.
    pub memory_usage_bytes: u64,
    /// Memory that cannot be reclaimed cheaply (usage minus inactive file pages), in bytes.
    pub memory_working_set_bytes: u64,
    /// Anonymous memory, in bytes.
    pub memory_rss_bytes: u64,
    /// Processes.
    pub pids: u64,
}
