//! Where the contents of volumes come from.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};

use crate::VolumeError;

/// A service-account token that a projected volume asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenWanted {
    /// Namespace of the pod.
    pub namespace: String,
    /// Service account.
    pub service_account: String,
    /// Audience; empty is the API server's own.
    pub audience: String,
    /// Lifetime asked for, in seconds.
    pub expiration_seconds: i64,
    /// Pod that the token is bound to.
    pub pod_name: String,
    /// UID of that pod.
    pub pod_uid: String,
}

/// A token and when it should be replaced.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The token.
    pub token: String,
    /// When to ask for the next one (80% of its life).
    pub refresh_at: SystemTime,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("refresh_at", &self.refresh_at).finish_non_exhaustive()
    }
}

/// Referenced objects, as the kubelet's caches know them.
#[async_trait]
pub trait Sources: Send + Sync {
    /// The config map, `None` if it does not exist.
    async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<Arc<ConfigMap>>, VolumeError>;

    /// The secret, `None` if it does not exist.
    async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Arc<Secret>>, VolumeError>;

    /// A token that is good for at least a fifth of its life.
    async fn token(&self, wanted: &TokenWanted) -> Result<Token, VolumeError>;
}
