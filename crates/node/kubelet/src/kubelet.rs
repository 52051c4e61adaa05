//! The agent: its parts, joined.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use xebec_cri::{CriError, Runtime};
use xebec_volumes::PodVolumes;

use crate::config::Config;
use crate::events::{self, Recorder};
use crate::machine::NodeView;
use crate::node::{self, facts};
use crate::pods::{self, Pods};
use crate::server;
use crate::sources::Objects;
use crate::worker::Shared;
use crate::{build, gc};

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum KubeletError {
    /// A directory cannot be made.
    #[error("create {}: {source}", path.display())]
    Directory {
        /// The directory.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The runtime does not answer.
    #[error("container runtime: {0}")]
    Runtime(#[source] CriError),
    /// The HTTPS port cannot be had.
    #[error("listen on {address}: {source}; stop what uses the port, or configure another one")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// TLS material that cannot be used.
    #[error("TLS: {0}")]
    Tls(String),
}

/// The node's agent.
pub struct Kubelet {
    config: Config,
    client: kube::Client,
    runtime: Runtime,
    ready: watch::Sender<bool>,
    address: watch::Sender<Option<SocketAddr>>,
}

impl Kubelet {
    /// An agent that is not running yet. The client speaks as `system:node:<name>`.
    pub fn new(config: Config, client: kube::Client, runtime: Runtime) -> Self {
        Self { config, client, runtime, ready: watch::Sender::new(false), address: watch::Sender::new(None) }
    }

    /// Becomes true when the node is registered and its pods are known.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// The address of the HTTPS server, once it listens.
    pub fn server_address(&self) -> watch::Receiver<Option<SocketAddr>> {
        self.address.subscribe()
    }

    /// Runs until cancelled. Pods go on running; the next agent adopts them.
    ///
    /// # Errors
    /// What keeps the agent from starting; afterwards it deals with everything itself.
    pub async fn run(self, cancel: CancellationToken) -> Result<(), KubeletError> {
        let config = self.config.clone();
        for path in [&config.data_dir.join("pods"), &config.log_dir] {
            std::fs::create_dir_all(path)
                .map_err(|source| KubeletError::Directory { path: path.clone(), source })?;
        }
        let info = self.runtime.runtime.info().await.map_err(KubeletError::Runtime)?;
        let facts = facts::read(&config, &info);
        let (events, writer) = Recorder::new(self.client.clone(), config.node_name.clone());
        let objects = Arc::new(Objects::new(self.client.clone(), cancel.child_token()));
        let host_dns = std::fs::read_to_string(&config.resolv_conf).unwrap_or_default();
        let shared = Arc::new(Shared {
            volumes: PodVolumes::new(config.data_dir.join("pods")),
            objects: objects.clone(),
            events: events.clone(),
            facts: xebec_volumes::Facts { allocatable: facts.allocatable() },
            memory_bytes: facts.memory_bytes,
            host_dns: build::resolv::parse(&host_dns),
            view: NodeView { ips: config.node_ips.clone(), runtime: info.name.clone() },
            died: Notify::new(),
            client: self.client.clone(),
            runtime: self.runtime.clone(),
            config: config.clone(),
        });
        let (table, view) = pods::table();
        let mut tasks: JoinSet<()> = JoinSet::new();
        let mut port = 10250;
        if let Some(server) = &config.server {
            let bound = server::bind(shared.clone(), view, server).await?;
            port = bound.address().port();
            self.address.send_replace(Some(bound.address()));
            tasks.spawn(bound.run(cancel.child_token()));
        }
        tasks.spawn(events::run(writer, cancel.child_token()));
        tasks.spawn(async move { objects.watch_services().await });
        let (registered, mut is_registered) = watch::channel(false);
        tasks.spawn(node::run(shared.clone(), facts, port, registered, cancel.child_token()));
        tasks.spawn(gc::run(shared.clone(), cancel.child_token()));
        let (known, mut pods_known) = watch::channel(false);
        let pods = Pods::new(shared, table, known);
        tasks.spawn(pods.run(cancel.child_token()));
        let ready = self.ready.clone();
        tasks.spawn(async move {
            if is_registered.wait_for(|r| *r).await.is_ok() && pods_known.wait_for(|k| *k).await.is_ok() {
                ready.send_replace(true);
            }
        });
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
            {
                tracing::error!(%error, "a part of the kubelet failed");
            }
        }
        Ok(())
    }
}
