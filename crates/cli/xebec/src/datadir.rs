//! Where a cluster keeps its things: one directory, so that one removal is enough.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The layout of a data directory.
#[derive(Debug, Clone)]
pub struct DataDir(PathBuf);

impl DataDir {
    /// The directory at `path`, which need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Makes the directory, readable by root only.
    pub fn create(&self) -> Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0);
        made.with_context(|| format!("data-dir {}: cannot be made", self.0.display()))
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The lock that a running cluster holds.
    pub fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    /// Certificates and keys.
    pub fn pki(&self) -> PathBuf {
        self.0.join("pki")
    }

    /// The embedded store.
    pub fn store(&self) -> PathBuf {
        self.0.join("store")
    }

    /// Images.
    pub fn images(&self) -> PathBuf {
        self.0.join("images")
    }

    /// The runtime's and the supervisor's state.
    pub fn runtime(&self) -> PathBuf {
        self.0.join("runtime")
    }

    /// Pods: volumes and logs.
    pub fn kubelet(&self) -> PathBuf {
        self.0.join("kubelet")
    }

    /// Who has which pod address.
    pub fn addresses(&self) -> PathBuf {
        self.0.join("addresses.json")
    }

    /// What `down` and `uninstall` must know of the cluster that ran here.
    pub fn facts(&self) -> PathBuf {
        self.0.join("cluster.json")
    }

    /// Where other commands reach the running cluster.
    pub fn control_socket(&self) -> PathBuf {
        self.0.join("control.sock")
    }

    /// Root of this cluster's control groups. Clusters side by side on one machine differ by their directory.
    pub fn cgroup_root(&self) -> String {
        let hash = xebec_hash::fnv64(self.0.as_os_str().as_encoded_bytes());
        format!("xebec/{:08x}", hash & 0xffff_ffff)
    }
}
