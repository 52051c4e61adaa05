//! The two services of a runtime.

use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::{
    AttachRequest, AuthConfig, ContainerConfig, ContainerEvent, ContainerFilter, ContainerStatus, CriError,
    DuplexStream, ExecOutput, ExecRequest, FilesystemUsage, Image, LinuxResources, ResourceUsage,
    SandboxConfig, SandboxFilter, SandboxStatus, StreamSession,
};

/// What the runtime is and whether it can work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeInfo {
    /// Name, as in `containerd`; the scheme of container ids in pod status (`xebec://…`).
    pub name: String,
    /// Version.
    pub version: String,
    /// `RuntimeReady`: `Err` carries the reason that the node's Ready condition shows.
    pub runtime_ready: Result<(), String>,
    /// `NetworkReady`, likewise.
    pub network_ready: Result<(), String>,
}

/// CRI's `RuntimeService`.
#[async_trait]
pub trait RuntimeService: Send + Sync + 'static {
    /// Who the runtime is and whether it is ready.
    async fn info(&self) -> Result<RuntimeInfo, CriError>;

    /// Makes namespaces and network of a pod and answers the sandbox's id. The sandbox is ready on return.
    async fn run_pod_sandbox(&self, config: SandboxConfig) -> Result<String, CriError>;

    /// Kills what runs in the sandbox and releases its network. Idempotent.
    async fn stop_pod_sandbox(&self, id: &str) -> Result<(), CriError>;

    /// Removes the sandbox with its containers. Idempotent: not an error when it is gone.
    async fn remove_pod_sandbox(&self, id: &str) -> Result<(), CriError>;

    /// One sandbox.
    async fn pod_sandbox_status(&self, id: &str) -> Result<SandboxStatus, CriError>;

    /// The sandboxes that match.
    async fn list_pod_sandboxes(&self, filter: &SandboxFilter) -> Result<Vec<SandboxStatus>, CriError>;

    /// Makes a container in a ready sandbox and answers its id.
    async fn create_container(&self, sandbox_id: &str, config: ContainerConfig) -> Result<String, CriError>;

    /// Starts a created container; on return its process has passed `execve`, or the error says why not.
    async fn start_container(&self, id: &str) -> Result<(), CriError>;

    /// Sends the stop signal, and SIGKILL after `grace`. Returns when it has ended. Idempotent.
    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), CriError>;

    /// Removes a container, killing it if it runs. Idempotent: not an error when it is gone.
    async fn remove_container(&self, id: &str) -> Result<(), CriError>;

    /// One container.
    async fn container_status(&self, id: &str) -> Result<ContainerStatus, CriError>;

    /// The containers that match.
    async fn list_containers(&self, filter: &ContainerFilter) -> Result<Vec<ContainerStatus>, CriError>;

    /// Changes limits of a container that exists (in-place resize, KEP-1287).
    async fn update_container_resources(&self, id: &str, resources: &LinuxResources) -> Result<(), CriError>;

    /// Makes or changes the cgroup of a pod, relative to the runtime's root, before its sandbox exists.
    async fn ensure_pod_cgroup(&self, cgroup: &str, resources: &LinuxResources) -> Result<(), CriError>;

    /// Removes the cgroup of a pod and what is left in it. Idempotent.
    async fn remove_pod_cgroup(&self, cgroup: &str) -> Result<(), CriError>;

    /// Closes and opens a container's log again, after rotation.
    async fn reopen_container_log(&self, id: &str) -> Result<(), CriError>;

    /// Runs a command to its end, without stdin. On `timeout` the command is killed and the error is
    /// [`CriError::Timeout`].
    async fn exec_sync(
        &self,
        id: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutput, CriError>;

    /// Runs a command with connected streams.
    async fn exec(&self, request: ExecRequest) -> Result<StreamSession, CriError>;

    /// Connects to the streams of a running container's first process.
    async fn attach(&self, request: AttachRequest) -> Result<StreamSession, CriError>;

    /// Connects to a TCP port on `localhost` inside the sandbox's network namespace.
    async fn port_forward(&self, sandbox_id: &str, port: u16) -> Result<Box<dyn DuplexStream>, CriError>;

    /// What a container uses.
    async fn container_stats(&self, id: &str) -> Result<ResourceUsage, CriError>;

    /// Everything that happens from now on. The stream ends when the runtime goes away; the caller then lists and
    /// subscribes again.
    async fn events(&self) -> Result<BoxStream<'static, ContainerEvent>, CriError>;
}

/// CRI's `ImageService`.
#[async_trait]
pub trait ImageService: Send + Sync + 'static {
    /// All images.
    async fn list_images(&self) -> Result<Vec<Image>, CriError>;

    /// The image with this reference or id, if it is here.
    async fn image_status(&self, reference: &str) -> Result<Option<Image>, CriError>;

    /// Brings an image here and answers it. Several pulls of one reference at once share the work.
    async fn pull_image(&self, reference: &str, auth: Option<&AuthConfig>) -> Result<Image, CriError>;

    /// Removes an image. Idempotent.
    async fn remove_image(&self, reference: &str) -> Result<(), CriError>;

    /// How much room the images take.
    async fn image_fs_info(&self) -> Result<FilesystemUsage, CriError>;
}

/// A runtime behind its two services.
#[derive(Clone)]
pub struct Runtime {
    /// Sandboxes and containers.
    pub runtime: std::sync::Arc<dyn RuntimeService>,
    /// Images.
    pub images: std::sync::Arc<dyn ImageService>,
}
