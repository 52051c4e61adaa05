//! The pod network as the runtime sees it: the place where CRI runtimes call CNI.

use std::net::IpAddr;
use std::path::PathBuf;

use async_trait::async_trait;

use crate::{CriError, PortMapping};

/// A sandbox that wants to be connected.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkRequest {
    /// Sandbox id, the key of the allocation.
    pub sandbox_id: String,
    /// Path of the sandbox's network namespace.
    pub netns: PathBuf,
    /// Pod namespace.
    pub namespace: String,
    /// Pod name.
    pub name: String,
    /// Pod UID.
    pub uid: String,
    /// Host ports.
    pub port_mappings: Vec<PortMapping>,
}

/// Connects sandboxes. CNI's ADD and DEL; both may be repeated.
#[async_trait]
pub trait PodNetwork: Send + Sync + 'static {
    /// Connects the sandbox and answers its addresses, the primary first. Repeating it for the same sandbox answers
    /// the same addresses.
    async fn add(&self, request: &NetworkRequest) -> Result<Vec<IpAddr>, CriError>;

    /// Disconnects the sandbox and releases its addresses. Not an error when it is not connected or its namespace is
    /// gone already.
    async fn delete(&self, sandbox_id: &str) -> Result<(), CriError>;

    /// Releases what belongs to sandboxes other than these; called once after a restart.
    async fn retain(&self, sandbox_ids: &[String]) -> Result<(), CriError>;
}
