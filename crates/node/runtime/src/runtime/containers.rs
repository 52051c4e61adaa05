//! Containers.

use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use xebec_cri::{
    ContainerConfig, ContainerEventKind, ContainerState, ContainerStatus, CriError, LinuxResources,
    NamespaceMode,
};

use super::prepare::{Inputs, Prepared, log_path, prepare};
use super::records::{ContainerEntry, ContainerRecord, SandboxRecord};
use super::{EmbeddedRuntime, Rootfs, blocking, new_id, retry_busy};
use crate::paths::write_json;
use crate::protocol::{Call, Run};

fn not_found(id: &str) -> CriError {
    CriError::NotFound { what: "container", id: id.to_owned() }
}

impl EmbeddedRuntime {
    /// A container's record and its run as it changes.
    pub(super) fn container(
        &self,
        id: &str,
    ) -> Result<(ContainerRecord, watch::Receiver<Option<Run>>), CriError> {
        let table = self.inner.shared.table();
        let entry = table.containers.get(id).ok_or_else(|| not_found(id))?;
        Ok((entry.record.clone(), entry.run.subscribe()))
    }

    pub(super) fn status(&self, id: &str) -> Result<ContainerStatus, CriError> {
        let table = self.inner.shared.table();
        table.containers.get(id).map(ContainerEntry::status).ok_or_else(|| not_found(id))
    }

    /// Makes a container, or answers the one of this identity that is waiting to be started.
    pub(super) async fn create(&self, sandbox_id: &str, config: ContainerConfig) -> Result<String, CriError> {
        let sandbox = self.sandbox(sandbox_id)?;
        if !sandbox.ready {
            return Err(CriError::State(format!("sandbox {sandbox_id} is not ready")));
        }
        if config.security.pid_mode == Some(NamespaceMode::Pod)
            && sandbox.config.namespaces.pid != NamespaceMode::Pod
        {
            return Err(CriError::Invalid(
                "pid_mode Pod needs a sandbox with a shared process namespace".into(),
            ));
        }
        if let Some(id) = self.existing(sandbox_id, &config)? {
            return Ok(id);
        }
        let id = new_id();
        let rootfs = self.inner.rootfs.prepare(&config.image, &id).await?;
        let made = self.make_container(id.clone(), sandbox, config, rootfs).await;
        if let Err(error) = made {
            if let Err(cleanup) = self.discard(&id).await {
                tracing::warn!(container = id, error = %cleanup, "cleanup of failed container");
            }
            return Err(error);
        }
        Ok(id)
    }

    fn existing(&self, sandbox_id: &str, config: &ContainerConfig) -> Result<Option<String>, CriError> {
        let table = self.inner.shared.table();
        let same = |c: &&ContainerEntry| {
            c.record.sandbox_id == sandbox_id && c.record.config.metadata == config.metadata
        };
        match table.containers.values().find(same) {
            None => Ok(None),
            Some(entry) if entry.state() == ContainerState::Created && entry.record.config == *config => {
                Ok(Some(entry.record.id.clone()))
            }
            Some(entry) => Err(CriError::State(format!(
                "container {} attempt {} exists as {}",
                config.metadata.name, config.metadata.attempt, entry.record.id
            ))),
        }
    }

    async fn make_container(
        &self,
        id: String,
        sandbox: SandboxRecord,
        config: ContainerConfig,
        rootfs: Rootfs,
    ) -> Result<(), CriError> {
        let runtime = self.clone();
        // Dozens of small file operations: together a few milliseconds.
        let record = blocking(move || runtime.make_files(&id, &sandbox, config, &rootfs)).await??;
        let (id, sandbox_id) = (record.id.clone(), record.sandbox_id.clone());
        let uid = {
            let mut table = self.inner.shared.table();
            table.containers.insert(id.clone(), ContainerEntry::new(record));
            table.sandboxes.get(&sandbox_id).map(|s| s.config.metadata.uid.clone()).unwrap_or_default()
        };
        self.inner.shared.emit(&sandbox_id, &id, &uid, ContainerEventKind::Created);
        Ok(())
    }

    fn make_files(
        &self,
        id: &str,
        sandbox: &SandboxRecord,
        config: ContainerConfig,
        rootfs: &Rootfs,
    ) -> Result<ContainerRecord, CriError> {
        let fail = |error| CriError::failed("make container files", error);
        let group = self.group(&sandbox.config.cgroup_parent, id);
        let Prepared { spec, user, stop_signal, allowed_devices } = prepare(&Inputs {
            state: &self.inner.state,
            cgroups: &self.inner.cgroups,
            id,
            group: &group,
            sandbox,
            config: &config,
            rootfs,
        })?;
        let directory = self.inner.state.container(id);
        for name in ["upper", "work", "rootfs"] {
            std::fs::create_dir_all(directory.join(name)).map_err(fail)?;
        }
        if let Some(parent) = spec.log_path.as_ref().and_then(|p| p.parent()) {
            std::fs::create_dir_all(parent).map_err(fail)?;
        }
        self.inner.cgroups.ensure(&group, &config.resources)?;
        self.inner.cgroups.allow_devices(&group, &allowed_devices)?;
        write_json(&directory.join("spec.json"), &spec).map_err(fail)?;
        let record = ContainerRecord {
            id: id.to_owned(),
            sandbox_id: sandbox.id.clone(),
            created_at: SystemTime::now(),
            user: (user.uid, user.gid, user.groups),
            log_path: log_path(sandbox, &config),
            config,
            cgroup: group,
            stop_signal,
        };
        write_json(&directory.join("meta.json"), &record).map_err(fail)?;
        Ok(record)
    }

    pub(super) async fn start(&self, id: &str) -> Result<(), CriError> {
        let (_, run) = self.container(id)?;
        if run.borrow().is_some() {
            return Err(CriError::State(format!("container {id} was started before")));
        }
        self.inner.client.call(Call::Start { id: id.to_owned() }, &[]).await?;
        Ok(())
    }

    /// Waits for the end of a container, if it was started.
    async fn ended(run: &mut watch::Receiver<Option<Run>>) {
        let over = |run: &Option<Run>| run.as_ref().is_none_or(|r| r.exit.is_some());
        if run.wait_for(over).await.is_err() {
            tracing::debug!("container was removed while waiting for its end");
        }
    }

    pub(super) async fn stop(&self, id: &str, grace: Duration) -> Result<(), CriError> {
        let Ok((record, mut run)) = self.container(id) else { return Ok(()) };
        if run.borrow().as_ref().is_none_or(|r| r.exit.is_some()) {
            return Ok(());
        }
        if !grace.is_zero() {
            let call = Call::Signal { id: id.to_owned(), signal: record.stop_signal };
            self.inner.client.call(call, &[]).await?;
            if tokio::time::timeout(grace, Self::ended(&mut run)).await.is_ok() {
                return Ok(());
            }
        }
        self.inner.client.call(Call::KillAll { id: id.to_owned() }, &[]).await?;
        Self::ended(&mut run).await;
        Ok(())
    }

    pub(super) async fn remove(&self, id: &str) -> Result<(), CriError> {
        let Ok((record, _)) = self.container(id) else { return Ok(()) };
        self.stop(id, Duration::ZERO).await?;
        self.inner.client.call(Call::Remove { id: id.to_owned() }, &[]).await?;
        self.discard(id).await?;
        let cgroups = self.inner.cgroups.clone();
        retry_busy(move || cgroups.remove(&record.cgroup)).await?;
        let uid = {
            let mut table = self.inner.shared.table();
            table.containers.remove(id);
            table.sandboxes.get(&record.sandbox_id).map(|s| s.config.metadata.uid.clone())
        };
        let uid = uid.unwrap_or_default();
        self.inner.shared.emit(&record.sandbox_id, id, &uid, ContainerEventKind::Deleted);
        Ok(())
    }

    /// Removes the files of a container and its claim on the image.
    async fn discard(&self, id: &str) -> Result<(), CriError> {
        let directory = self.inner.state.container(id);
        blocking(move || crate::paths::remove_tree(&directory))
            .await?
            .map_err(|e| CriError::failed("remove container files", e))?;
        self.inner.rootfs.release(id).await
    }

    pub(super) fn update(&self, id: &str, resources: &LinuxResources) -> Result<(), CriError> {
        let (mut record, _) = self.container(id)?;
        self.inner.cgroups.update(&record.cgroup, resources)?;
        merge(&mut record.config.resources, resources);
        write_json(&self.inner.state.container(id).join("meta.json"), &record)
            .map_err(|e| CriError::failed("write container record", e))?;
        if let Some(entry) = self.inner.shared.table().containers.get_mut(id) {
            entry.record = record;
        }
        Ok(())
    }
}

/// Unset fields keep their value.
fn merge(into: &mut LinuxResources, from: &LinuxResources) {
    fn set<T: Clone>(into: &mut Option<T>, from: &Option<T>) {
        if from.is_some() {
            into.clone_from(from);
        }
    }
    set(&mut into.cpu_period_us, &from.cpu_period_us);
    set(&mut into.cpu_quota_us, &from.cpu_quota_us);
    set(&mut into.cpu_shares, &from.cpu_shares);
    set(&mut into.memory_limit_bytes, &from.memory_limit_bytes);
    set(&mut into.memory_swap_limit_bytes, &from.memory_swap_limit_bytes);
    set(&mut into.oom_score_adj, &from.oom_score_adj);
    set(&mut into.cpuset_cpus, &from.cpuset_cpus);
    set(&mut into.cpuset_mems, &from.cpuset_mems);
    set(&mut into.pids_limit, &from.pids_limit);
    into.hugepage_limits.extend(from.hugepage_limits.clone());
    into.unified.extend(from.unified.clone());
}
