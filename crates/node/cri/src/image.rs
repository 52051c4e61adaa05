//! Images.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// An image as list and status show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// `sha256:…` of the image's configuration.
    pub id: String,
    /// References with tags (`docker.io/library/redis:7`).
    pub repo_tags: Vec<String>,
    /// References with digests (`docker.io/library/redis@sha256:…`).
    pub repo_digests: Vec<String>,
    /// Bytes on disk.
    pub size: u64,
    /// Numeric user of the image's configuration.
    pub uid: Option<i64>,
    /// User name of the image's configuration when it is not numeric.
    pub username: String,
    /// Never removed by garbage collection.
    pub pinned: bool,
    /// Configuration that a container of the image starts from.
    pub config: ImageConfig,
}

/// The part of the OCI image configuration that containers start from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// `Entrypoint`.
    pub entrypoint: Vec<String>,
    /// `Cmd`.
    pub cmd: Vec<String>,
    /// `Env`, `NAME=value`.
    pub env: Vec<String>,
    /// `WorkingDir`.
    pub working_dir: String,
    /// `User`, as written.
    pub user: String,
    /// `StopSignal`, as written.
    pub stop_signal: Option<String>,
    /// `Volumes`.
    pub volumes: Vec<String>,
    /// `Labels`.
    pub labels: std::collections::BTreeMap<String, String>,
}

/// Credentials for one pull.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AuthConfig {
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
    /// Identity token, instead of user and password.
    pub identity_token: String,
    /// Registry token, sent as bearer.
    pub registry_token: String,
}

impl std::fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthConfig").field("username", &self.username).finish_non_exhaustive()
    }
}

/// How full the file system of the images is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesystemUsage {
    /// Mount point.
    pub mountpoint: std::path::PathBuf,
    /// When it was measured.
    pub at: SystemTime,
    /// Bytes used by images.
    pub used_bytes: u64,
    /// Inodes used by images.
    pub inodes_used: u64,
}
