//! The CRI surface: every method in one line or few.

use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::broadcast::error::RecvError;
use xebec_cri::{
    AttachRequest, ContainerConfig, ContainerEvent, ContainerFilter, ContainerStatus, CriError, DuplexStream,
    ExecOutput, ExecRequest, LinuxResources, ResourceUsage, RuntimeInfo, RuntimeService, SandboxConfig,
    SandboxFilter, SandboxStatus, StreamSession,
};

use super::records::has_labels;
use super::{EmbeddedRuntime, blocking, retry_busy};
use crate::protocol::Call;

#[async_trait]
impl RuntimeService for EmbeddedRuntime {
    async fn info(&self) -> Result<RuntimeInfo, CriError> {
        let alive = self.inner.client.call(Call::Hello, &[]).await;
        Ok(RuntimeInfo {
            name: self.inner.config.name.clone(),
            version: self.inner.config.version.clone(),
            runtime_ready: alive.map(drop).map_err(|e| e.to_string()),
            network_ready: Ok(()),
        })
    }

    async fn run_pod_sandbox(&self, config: SandboxConfig) -> Result<String, CriError> {
        self.run_sandbox(config).await
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<(), CriError> {
        self.stop_sandbox(id).await
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<(), CriError> {
        self.remove_sandbox(id).await
    }

    async fn pod_sandbox_status(&self, id: &str) -> Result<SandboxStatus, CriError> {
        Ok(self.sandbox(id)?.status(&self.inner.state))
    }

    async fn list_pod_sandboxes(&self, filter: &SandboxFilter) -> Result<Vec<SandboxStatus>, CriError> {
        let table = self.inner.shared.table();
        let all = table.sandboxes.values().map(|s| s.status(&self.inner.state));
        Ok(all
            .filter(|s| {
                filter.id.as_ref().is_none_or(|id| *id == s.id)
                    && filter.state.is_none_or(|state| state == s.state)
                    && has_labels(&s.labels, &filter.labels)
            })
            .collect())
    }

    async fn create_container(&self, sandbox_id: &str, config: ContainerConfig) -> Result<String, CriError> {
        self.create(sandbox_id, config).await
    }

    async fn start_container(&self, id: &str) -> Result<(), CriError> {
        self.start(id).await
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), CriError> {
        self.stop(id, grace).await
    }

    async fn remove_container(&self, id: &str) -> Result<(), CriError> {
        self.remove(id).await
    }

    async fn container_status(&self, id: &str) -> Result<ContainerStatus, CriError> {
        self.status(id)
    }

    async fn list_containers(&self, filter: &ContainerFilter) -> Result<Vec<ContainerStatus>, CriError> {
        let table = self.inner.shared.table();
        let matching = table.containers.values().filter(|c| {
            filter.id.as_ref().is_none_or(|id| *id == c.record.id)
                && filter.sandbox_id.as_ref().is_none_or(|id| *id == c.record.sandbox_id)
                && filter.state.is_none_or(|state| state == c.state())
                && has_labels(&c.record.config.labels, &filter.labels)
        });
        Ok(matching.map(super::records::ContainerEntry::status).collect())
    }

    async fn update_container_resources(&self, id: &str, resources: &LinuxResources) -> Result<(), CriError> {
        self.update(id, resources)
    }

    async fn ensure_pod_cgroup(&self, cgroup: &str, resources: &LinuxResources) -> Result<(), CriError> {
        check_group(cgroup)?;
        let (cgroups, group, resources) = (self.inner.cgroups.clone(), cgroup.to_owned(), resources.clone());
        Ok(blocking(move || cgroups.ensure(&group, &resources)).await??)
    }

    async fn remove_pod_cgroup(&self, cgroup: &str) -> Result<(), CriError> {
        check_group(cgroup)?;
        let (cgroups, group) = (self.inner.cgroups.clone(), cgroup.to_owned());
        retry_busy(move || cgroups.remove(&group)).await
    }

    async fn reopen_container_log(&self, id: &str) -> Result<(), CriError> {
        self.container(id)?;
        self.inner.client.call(Call::ReopenLog { id: id.to_owned() }, &[]).await?;
        Ok(())
    }

    async fn exec_sync(
        &self,
        id: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutput, CriError> {
        self.run_to_end(id, command, timeout).await
    }

    async fn exec(&self, request: ExecRequest) -> Result<StreamSession, CriError> {
        self.exec_session(request).await
    }

    async fn attach(&self, request: AttachRequest) -> Result<StreamSession, CriError> {
        self.attach_session(request).await
    }

    async fn port_forward(&self, sandbox_id: &str, port: u16) -> Result<Box<dyn DuplexStream>, CriError> {
        self.forward(sandbox_id, port).await
    }

    async fn container_stats(&self, id: &str) -> Result<ResourceUsage, CriError> {
        let (record, _) = self.container(id)?;
        Ok(self.inner.cgroups.usage(&record.cgroup)?)
    }

    async fn events(&self) -> Result<BoxStream<'static, ContainerEvent>, CriError> {
        let receiver = self.inner.shared.events.subscribe();
        let stream = futures::stream::unfold(receiver, |mut receiver| async {
            match receiver.recv().await {
                Ok(event) => Some((event, receiver)),
                // The subscriber lists again.
                Err(RecvError::Lagged(_) | RecvError::Closed) => None,
            }
        });
        Ok(stream.boxed())
    }
}

fn check_group(group: &str) -> Result<(), CriError> {
    if group.trim_matches('/').is_empty() || group.split('/').any(|part| part == "..") {
        return Err(CriError::Invalid(format!("{group:?} is not a cgroup below the runtime's root")));
    }
    Ok(())
}
