//! Sandboxes.

use std::path::Path;
use std::time::{Duration, SystemTime};

use xebec_cri::{
    ContainerEventKind, CriError, DnsConfig, LinuxResources, NamespaceMode, NetworkRequest, SandboxConfig,
};

use super::records::SandboxRecord;
use super::{EmbeddedRuntime, blocking, boot_id, new_id, retry_busy};
use crate::paths::write_json;
use crate::protocol::{Call, SandboxSpec};

fn not_found(id: &str) -> CriError {
    CriError::NotFound { what: "sandbox", id: id.to_owned() }
}

impl EmbeddedRuntime {
    pub(super) fn sandbox(&self, id: &str) -> Result<SandboxRecord, CriError> {
        self.inner.shared.table().sandboxes.get(id).cloned().ok_or_else(|| not_found(id))
    }

    /// Makes a sandbox, or answers the one of this identity that is ready.
    pub(super) async fn run_sandbox(&self, config: SandboxConfig) -> Result<String, CriError> {
        validate(&config)?;
        let existing = {
            let table = self.inner.shared.table();
            table.sandboxes.values().find(|s| s.config.metadata == config.metadata).cloned()
        };
        match existing {
            Some(sandbox) if sandbox.ready => return Ok(sandbox.id),
            // A failed attempt that left something, or a stopped one under the same number.
            Some(sandbox) => self.remove_sandbox(&sandbox.id).await?,
            None => {}
        }
        let mut record = SandboxRecord {
            id: new_id(),
            config,
            created_at: SystemTime::now(),
            ips: vec![],
            ready: false,
            boot_id: boot_id(),
        };
        let made = self.make_sandbox(&mut record).await;
        if let Err(error) = made {
            if let Err(cleanup) = self.remove_sandbox(&record.id).await {
                tracing::warn!(sandbox = record.id, error = %cleanup, "cleanup of failed sandbox");
            }
            return Err(error);
        }
        Ok(record.id)
    }

    async fn make_sandbox(&self, record: &mut SandboxRecord) -> Result<(), CriError> {
        let (id, config) = (record.id.clone(), record.config.clone());
        let directory = self.inner.state.sandbox(&id);
        std::fs::create_dir_all(&directory).map_err(|e| CriError::failed("make sandbox directory", e))?;
        // Recorded before anything exists that would have to be released.
        self.save_sandbox(record)?;
        let pause = config.namespaces.pid == NamespaceMode::Pod;
        let mut cgroups = vec![];
        if pause {
            let group = self.group(&config.cgroup_parent, &id);
            self.inner.cgroups.ensure(&group, &LinuxResources::default())?;
            cgroups = self.inner.cgroups.paths(&group).into_iter().map(|(_, path)| path).collect();
        }
        let own_net = config.namespaces.network != NamespaceMode::Node;
        let spec = SandboxSpec {
            id: id.clone(),
            net: own_net,
            ipc: config.namespaces.ipc != NamespaceMode::Node,
            pause,
            hostname: config.hostname.clone(),
            sysctls: config.sysctls.clone().into_iter().collect(),
            cgroups,
        };
        self.inner.client.call(Call::CreateSandbox(spec), &[]).await?;
        if let Some(netns) = record.netns(&self.inner.state) {
            let request = NetworkRequest {
                sandbox_id: id.clone(),
                netns,
                namespace: config.metadata.namespace.clone(),
                name: config.metadata.name.clone(),
                uid: config.metadata.uid.clone(),
                port_mappings: config.port_mappings.clone(),
            };
            record.ips = self.inner.network.add(&request).await?;
        }
        write_files(&directory, record).map_err(|e| CriError::failed("write sandbox files", e))?;
        std::fs::create_dir_all(&config.log_directory)
            .map_err(|e| CriError::failed("make log directory", e))?;
        record.ready = true;
        self.save_sandbox(record)?;
        self.inner.shared.emit(&id, &id, &config.metadata.uid, ContainerEventKind::Created);
        self.inner.shared.emit(&id, &id, &config.metadata.uid, ContainerEventKind::Started);
        Ok(())
    }

    /// A group below a pod's.
    pub(super) fn group(&self, parent: &str, id: &str) -> String {
        format!("{}/{id}", parent.trim_matches('/'))
    }

    fn save_sandbox(&self, record: &SandboxRecord) -> Result<(), CriError> {
        write_json(&self.inner.state.sandbox(&record.id).join("meta.json"), record)
            .map_err(|e| CriError::failed("write sandbox record", e))?;
        self.inner.shared.table().sandboxes.insert(record.id.clone(), record.clone());
        Ok(())
    }

    fn containers_of(&self, sandbox: &str) -> Vec<String> {
        let table = self.inner.shared.table();
        let of = table.containers.values().filter(|c| c.record.sandbox_id == sandbox);
        of.map(|c| c.record.id.clone()).collect()
    }

    /// Stops what runs, then releases addresses and namespaces.
    pub(super) async fn stop_sandbox(&self, id: &str) -> Result<(), CriError> {
        let Ok(mut record) = self.sandbox(id) else { return Ok(()) };
        let containers = self.containers_of(id);
        let stops = containers.iter().map(|c| self.stop(c, Duration::ZERO));
        futures::future::try_join_all(stops).await?;
        if record.config.namespaces.network != NamespaceMode::Node {
            self.inner.network.delete(id).await?;
        }
        self.inner.client.call(Call::StopSandbox { id: id.to_owned() }, &[]).await?;
        if record.ready {
            record.ready = false;
            self.save_sandbox(&record)?;
            self.inner.shared.emit(id, id, &record.config.metadata.uid, ContainerEventKind::Stopped);
        }
        Ok(())
    }

    pub(super) async fn remove_sandbox(&self, id: &str) -> Result<(), CriError> {
        let Ok(record) = self.sandbox(id) else { return Ok(()) };
        self.stop_sandbox(id).await?;
        let containers = self.containers_of(id);
        let removals = containers.iter().map(|c| self.remove(c));
        futures::future::try_join_all(removals).await?;
        let (cgroups, group) = (self.inner.cgroups.clone(), self.group(&record.config.cgroup_parent, id));
        retry_busy(move || cgroups.remove(&group)).await?;
        let directory = self.inner.state.sandbox(id);
        blocking(move || crate::paths::remove_tree(&directory))
            .await?
            .map_err(|e| CriError::failed("remove sandbox directory", e))?;
        self.inner.shared.table().sandboxes.remove(id);
        self.inner.shared.emit(id, id, &record.config.metadata.uid, ContainerEventKind::Deleted);
        Ok(())
    }
}

fn validate(config: &SandboxConfig) -> Result<(), CriError> {
    let parent = &config.cgroup_parent;
    if parent.trim_matches('/').is_empty() || parent.split('/').any(|part| part == "..") {
        return Err(CriError::Invalid(format!(
            "cgroup_parent {parent:?} is not a path below the runtime's root"
        )));
    }
    if config.namespaces.network == NamespaceMode::Node && !config.port_mappings.is_empty() {
        // Upstream's kubelet passes host ports of host-network pods too; they need no mapping.
        tracing::debug!(pod = config.metadata.name, "host ports of a host-network pod need no mapping");
    }
    Ok(())
}

fn write_files(directory: &Path, record: &SandboxRecord) -> std::io::Result<()> {
    let config = &record.config;
    let hostname = match config.hostname.as_str() {
        "" => rustix::system::uname().nodename().to_string_lossy().into_owned(),
        own => own.to_owned(),
    };
    std::fs::write(directory.join("hostname"), format!("{hostname}\n"))?;
    let mut hosts = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    for ip in &record.ips {
        hosts.push_str(&format!("{ip}\t{hostname}\n"));
    }
    std::fs::write(directory.join("hosts"), hosts)?;
    if let Some(dns) = &config.dns {
        std::fs::write(directory.join("resolv.conf"), resolv_conf(dns))?;
    }
    Ok(())
}

fn resolv_conf(dns: &DnsConfig) -> String {
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    text
}
