//! Pod sandboxes: the namespaces and the cgroup that a pod's containers share.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::NamespaceMode;

/// Identity of a sandbox. A new attempt of the same pod gets a higher `attempt`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SandboxMetadata {
    /// Pod name.
    pub name: String,
    /// Pod UID.
    pub uid: String,
    /// Pod namespace.
    pub namespace: String,
    /// Attempt, counted from 0.
    pub attempt: u32,
}

/// DNS configuration written to every container's `/etc/resolv.conf`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsConfig {
    /// `nameserver` lines.
    pub servers: Vec<String>,
    /// The `search` line.
    pub searches: Vec<String>,
    /// The `options` line.
    pub options: Vec<String>,
}

/// A host port that leads to a container port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortMapping {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Protocol,
    /// Port inside the pod.
    pub container_port: u16,
    /// Port on the node.
    pub host_port: u16,
    /// Node address to listen on; `None` is every address.
    pub host_ip: Option<IpAddr>,
}

/// Transport protocols of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// Which of the host's namespaces the pod uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceOptions {
    /// `Pod` or `Node` (`hostNetwork`).
    pub network: NamespaceMode,
    /// `Container` (default), `Pod` (`shareProcessNamespace`), `Node` (`hostPID`) or `Target`.
    pub pid: NamespaceMode,
    /// `Pod` or `Node` (`hostIPC`).
    pub ipc: NamespaceMode,
}

impl Default for NamespaceOptions {
    fn default() -> Self {
        Self { network: NamespaceMode::Pod, pid: NamespaceMode::Container, ipc: NamespaceMode::Pod }
    }
}

/// Everything needed to make a sandbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SandboxConfig {
    /// Identity.
    pub metadata: SandboxMetadata,
    /// Host name in the pod's UTS namespace; empty with host network.
    pub hostname: String,
    /// Directory of the pod's logs; container log paths are relative to it.
    pub log_directory: PathBuf,
    /// Resolver configuration; `None` keeps the image's.
    pub dns: Option<DnsConfig>,
    /// Host ports.
    pub port_mappings: Vec<PortMapping>,
    /// Labels, returned by status and list and matched by filters.
    pub labels: BTreeMap<String, String>,
    /// Annotations, returned by status and list.
    pub annotations: BTreeMap<String, String>,
    /// The pod's cgroup, relative to the runtime's root, as the kubelet made it (`pods/<qos>/pod<uid>`).
    pub cgroup_parent: String,
    /// Host namespaces used.
    pub namespaces: NamespaceOptions,
    /// Sysctls of the pod's namespaces (`net.*`, `kernel.shm*`, …).
    pub sysctls: BTreeMap<String, String>,
    /// Whether any container of the pod is privileged.
    pub privileged: bool,
}

/// State of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SandboxState {
    /// Namespaces and network are up.
    Ready,
    /// Stopped, or its network is gone.
    NotReady,
}

/// A sandbox as list and status show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SandboxStatus {
    /// Runtime's id.
    pub id: String,
    /// Identity.
    pub metadata: SandboxMetadata,
    /// State.
    pub state: SandboxState,
    /// When it was made.
    pub created_at: SystemTime,
    /// Pod addresses, the primary first; empty with host network.
    pub ips: Vec<IpAddr>,
    /// Path of the held network namespace; `None` with host network.
    pub netns: Option<PathBuf>,
    /// Host namespaces used.
    pub namespaces: NamespaceOptions,
    /// Labels of the config.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the config.
    pub annotations: BTreeMap<String, String>,
}

/// Which sandboxes to list; empty matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SandboxFilter {
    /// Only this id.
    pub id: Option<String>,
    /// Only this state.
    pub state: Option<SandboxState>,
    /// Only those with all of these labels.
    pub labels: BTreeMap<String, String>,
}
