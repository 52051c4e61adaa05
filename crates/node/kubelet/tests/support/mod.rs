//! Fakes: a container runtime and an API server, both in memory.
#![allow(clippy::unwrap_used, dead_code)]

pub mod api;
pub mod runtime;

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use tokio_util::sync::CancellationToken;
use xebec_kubelet::{Config, Kubelet, KubeletError};

/// A node with one agent on the fakes.
pub struct Node {
    pub api: api::FakeApi,
    pub client: kube::Client,
    pub runtime: runtime::FakeRuntime,
    pub dir: tempfile::TempDir,
    pub config: Config,
    agent: Option<(CancellationToken, tokio::task::JoinHandle<Result<(), KubeletError>>)>,
    pub address: Option<std::net::SocketAddr>,
}

impl Node {
    /// A node that is not running.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let api = api::FakeApi::default();
        let mut config = Config::new("node1", vec!["192.0.2.1".parse().unwrap()], dir.path());
        config.cluster_dns = vec!["10.96.0.10".parse().unwrap()];
        let runtime = runtime::FakeRuntime::new();
        Self { client: api.client(), api, runtime, dir, config, agent: None, address: None }
    }

    /// Starts the agent and waits until it is ready.
    pub async fn up(&mut self) {
        let kubelet = Kubelet::new(self.config.clone(), self.client.clone(), self.runtime.services());
        let (mut ready, address) = (kubelet.ready(), kubelet.server_address());
        let cancel = CancellationToken::new();
        let task = tokio::spawn(kubelet.run(cancel.clone()));
        tokio::time::timeout(Duration::from_secs(20), ready.wait_for(|r| *r)).await.unwrap().unwrap();
        self.address = *address.borrow();
        self.agent = Some((cancel, task));
    }

    /// Stops the agent.
    pub async fn down(&mut self) {
        let (cancel, task) = self.agent.take().unwrap();
        cancel.cancel();
        tokio::time::timeout(Duration::from_secs(10), task).await.unwrap().unwrap().unwrap();
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "n")
    }

    /// Creates a pod bound to the node.
    pub async fn create(&self, name: &str, spec: serde_json::Value) {
        let mut spec = spec;
        spec["nodeName"] = "node1".into();
        let pod = serde_json::json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "n"}, "spec": spec, "status": {"phase": "Pending"}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        self.pods().create(&Default::default(), &pod).await.unwrap();
    }

    /// Waits until the pod satisfies the condition.
    pub async fn wait(&self, name: &str, what: &str, holds: impl Fn(&Pod) -> bool) -> Pod {
        let mut changes = self.api.changes();
        let waiting = async {
            loop {
                if let Some(pod) = self.pods().get_opt(name).await.unwrap()
                    && holds(&pod)
                {
                    return pod;
                }
                changes.changed().await.unwrap();
            }
        };
        match tokio::time::timeout(Duration::from_secs(20), waiting).await {
            Ok(pod) => pod,
            Err(_) => {
                let pod = self.pods().get_opt(name).await.unwrap();
                panic!("{what}: {}", serde_json::to_string_pretty(&pod).unwrap());
            }
        }
    }

    /// Waits until the pod is gone.
    pub async fn wait_gone(&self, name: &str) {
        let mut changes = self.api.changes();
        let waiting = async {
            while self.pods().get_opt(name).await.unwrap().is_some() {
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap();
    }

    /// Waits for an event with this reason whose message holds the text.
    pub async fn wait_event(&self, reason: &str, text: &str) {
        let mut changes = self.api.changes();
        let waiting = async {
            while !self.api.events().iter().any(|(r, m)| r == reason && m.contains(text)) {
                changes.changed().await.unwrap();
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(20), waiting).await;
        assert!(found.is_ok(), "no event {reason} {text:?} among {:?}", self.api.events());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some((cancel, _)) = &self.agent {
            cancel.cancel();
        }
        // Memory volumes of pods that a failed test left behind.
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let root = self.dir.path().to_string_lossy().into_owned();
        for path in mounts.lines().filter_map(|l| l.split(' ').nth(1)).filter(|p| p.starts_with(&root)) {
            let _ = rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

/// Phase of a pod.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

/// Status of the first main container.
pub fn first(pod: &Pod) -> k8s_openapi::api::core::v1::ContainerStatus {
    let list = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref());
    list.and_then(|l| l.first()).cloned().unwrap_or_default()
}

/// Waiting reason of the first main container.
pub fn waiting(pod: &Pod) -> String {
    first(pod).state.and_then(|s| s.waiting).and_then(|w| w.reason).unwrap_or_default()
}
