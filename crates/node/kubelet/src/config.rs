//! What the kubelet is told at its start.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

/// Configuration of a node's agent.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name of the node; the kubelet's identity is `system:node:<name>`.
    pub node_name: String,
    /// Addresses of the node, the primary first.
    pub node_ips: Vec<IpAddr>,
    /// Directory of pods (`<data>/pods/<uid>`).
    pub data_dir: PathBuf,
    /// Directory of pod logs (`/var/log/pods` upstream).
    pub log_dir: PathBuf,
    /// Addresses of the cluster's DNS servers.
    pub cluster_dns: Vec<IpAddr>,
    /// `cluster.local`.
    pub cluster_domain: String,
    /// The node's resolver configuration.
    pub resolv_conf: PathBuf,
    /// Directory of Localhost seccomp profiles.
    pub seccomp_dir: PathBuf,
    /// Most pods that may run here.
    pub max_pods: u32,
    /// Further labels of the node.
    pub node_labels: BTreeMap<String, String>,
    /// `status.nodeInfo.kubeletVersion`.
    pub version: String,
    /// The HTTPS server; `None` serves nothing.
    pub server: Option<ServerConfig>,
    /// Log rotation: size in bytes at which a container's log is rotated.
    pub log_max_bytes: u64,
    /// Log rotation: files kept per container, the current one included; at least 2.
    pub log_max_files: usize,
    /// Image collection begins when the images' file system is fuller than this, in percent.
    pub image_gc_high_percent: u8,
    /// Image collection ends when it is no fuller than this, in percent.
    pub image_gc_low_percent: u8,
}

impl Config {
    /// A configuration with upstream's defaults.
    pub fn new(node_name: impl Into<String>, node_ips: Vec<IpAddr>, data_dir: impl Into<PathBuf>) -> Self {
        let data_dir = data_dir.into();
        Self {
            node_name: node_name.into(),
            node_ips,
            log_dir: data_dir.join("logs/pods"),
            seccomp_dir: data_dir.join("seccomp"),
            data_dir,
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".into(),
            resolv_conf: "/etc/resolv.conf".into(),
            max_pods: 110,
            node_labels: BTreeMap::new(),
            version: xebec_types::KUBERNETES_VERSION.into(),
            server: None,
            log_max_bytes: 10 << 20,
            log_max_files: 5,
            image_gc_high_percent: 85,
            image_gc_low_percent: 80,
        }
    }
}

/// Configuration of the HTTPS server.
#[derive(Clone)]
pub struct ServerConfig {
    /// Where to listen; port 0 takes any free port.
    pub bind: SocketAddr,
    /// The serving certificate.
    pub certificate: Arc<dyn rustls::server::ResolvesServerCert>,
    /// The authorities whose client certificates are believed.
    pub client_ca: Arc<rustls::RootCertStore>,
    /// Common name of the API server's client certificate; members of `system:masters` are allowed too.
    pub api_server_name: String,
}

impl std::fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerConfig").field("bind", &self.bind).finish_non_exhaustive()
    }
}
