//! Starting a container: image, configuration, creation, start, postStart hook.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod};
use xebec_cri::ContainerConfig;
use xebec_volumes::Sources as _;

use super::observe::message_file;
use super::{Shared, hooks, image};
use crate::build::{self, container::ContainerInput, env::References};
use crate::spec;

/// Why a container did not start: its waiting reason and message.
#[derive(Debug)]
pub(super) struct StartError {
    pub reason: &'static str,
    pub message: String,
    /// Whether a `Failed` event is still to be told.
    pub event: bool,
}

impl StartError {
    pub fn new(reason: &'static str, message: String) -> Self {
        Self { reason, message, event: true }
    }
}

/// One start.
pub(super) struct Job {
    pub shared: Arc<Shared>,
    /// The pod, with its present status.
    pub pod: Arc<Pod>,
    pub name: String,
    pub attempt: u32,
    pub sandbox: String,
    pub volumes: BTreeMap<String, PathBuf>,
    pub ip: Option<IpAddr>,
    pub ips: Vec<IpAddr>,
}

impl Job {
    /// Starts the container.
    pub async fn run(self) -> Result<(), StartError> {
        let Some((_, container)) = spec::container(&self.pod, &self.name) else {
            return Err(StartError::new(
                "CreateContainerConfigError",
                "the container is not in the spec".into(),
            ));
        };
        let shared = &self.shared;
        let image = image::ensure(shared, &self.pod, container).await?;
        let config = self.config(container, &image).await?;
        tokio::fs::create_dir_all(self.log_dir())
            .await
            .map_err(|e| StartError::new("CreateContainerError", format!("create log directory: {e}")))?;
        let runtime = &shared.runtime.runtime;
        let id = runtime
            .create_container(&self.sandbox, config)
            .await
            .map_err(|e| StartError::new("CreateContainerError", e.to_string()))?;
        shared.events.pod(&self.pod, Some(&self.name), false, "Created", "Container created");
        if let Err(error) = runtime.start_container(&id).await {
            return Err(StartError::new("RunContainerError", error.to_string()));
        }
        shared.events.pod(&self.pod, Some(&self.name), false, "Started", "Container started");
        self.post_start(container, &id).await
    }

    async fn post_start(&self, container: &Container, id: &str) -> Result<(), StartError> {
        let Some(hook) = container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()) else {
            return Ok(());
        };
        let Err(message) = hooks::run(&self.shared, hook, container, id, self.ip).await else {
            return Ok(());
        };
        let told = format!("PostStartHook failed: {message}");
        self.shared.events.pod(&self.pod, Some(&self.name), true, "FailedPostStartHook", told);
        let killing = "FailedPostStartHook";
        self.shared.events.pod(&self.pod, Some(&self.name), false, "Killing", killing);
        let grace = spec::grace_seconds(&self.pod);
        if let Err(error) = hooks::kill(&self.shared, &self.pod, &self.name, id, self.ip, grace).await {
            tracing::warn!(%error, id, "container with a failed postStart hook does not stop");
        }
        Err(StartError { reason: "PostStartHookError", message, event: false })
    }

    fn log_dir(&self) -> PathBuf {
        build::sandbox::log_directory(&self.shared.config.log_dir, &self.pod).join(&self.name)
    }

    async fn config(
        &self,
        container: &Container,
        image: &xebec_cri::Image,
    ) -> Result<ContainerConfig, StartError> {
        let wrong = |message: String| StartError::new("CreateContainerConfigError", message);
        let shared = &self.shared;
        let references = self.references(container).await.map_err(wrong)?;
        let links = self.pod.spec.as_ref().and_then(|s| s.enable_service_links).unwrap_or(true);
        let services = shared.objects.services().await.map_err(|e| wrong(e.to_string()))?;
        let services = build::service_env::service_env(&services, spec::namespace(&self.pod), links);
        let allocatable = &shared.facts.allocatable;
        let envs = build::env::environment(&self.pod, container, &references, &services, allocatable)
            .map_err(|e| wrong(e.to_string()))?;
        let (hosts, message) = self.files().map_err(|e| wrong(format!("prepare pod files: {e}")))?;
        let input = ContainerInput {
            attempt: self.attempt,
            image,
            envs,
            volumes: &self.volumes,
            hosts_file: &hosts,
            message_file: &message,
            seccomp_root: &shared.config.seccomp_dir,
            node_memory_bytes: shared.memory_bytes,
        };
        build::container::container(&self.pod, container, input).map_err(|e| wrong(e.to_string()))
    }

    async fn references(&self, container: &Container) -> Result<References, String> {
        let (maps, secrets) = build::env::referenced(container);
        let namespace = spec::namespace(&self.pod);
        let mut references = References::default();
        for name in maps {
            let object = self.shared.objects.config_map(namespace, &name).await.map_err(|e| e.to_string())?;
            references.config_maps.insert(name, object);
        }
        for name in secrets {
            let object = self.shared.objects.secret(namespace, &name).await.map_err(|e| e.to_string())?;
            references.secrets.insert(name, object);
        }
        Ok(references)
    }

    /// Writes the pod's hosts file and an empty termination message file.
    fn files(&self) -> std::io::Result<(PathBuf, PathBuf)> {
        let shared = &self.shared;
        let uid = spec::uid(&self.pod);
        let dir = shared.volumes.pod_dir(uid);
        std::fs::create_dir_all(&dir)?;
        let hosts = dir.join("etc-hosts");
        let node_file = match spec::host_network(&self.pod) {
            true => std::fs::read_to_string("/etc/hosts").unwrap_or_default(),
            false => String::new(),
        };
        let domain = &shared.config.cluster_domain;
        let text = build::hosts::hosts_file(&self.pod, &self.ips, domain, &node_file);
        // The file is bind-mounted into containers that run already: it is written in place.
        std::fs::write(&hosts, text)?;
        std::fs::set_permissions(&hosts, std::fs::Permissions::from_mode(0o644))?;
        let message = message_file(&shared.message_dir(uid), &self.name, self.attempt);
        if let Some(parent) = message.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&message, "")?;
        // Containers of any user write their last words here.
        std::fs::set_permissions(&message, std::fs::Permissions::from_mode(0o666))?;
        Ok((hosts, message))
    }
}
