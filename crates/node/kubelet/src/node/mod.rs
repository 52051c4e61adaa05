//! The Node object: registration, status and lease.

pub mod admit;
pub mod facts;
mod status;

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{Node, NodeStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::{Api, Patch, PatchParams, PostParams};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::worker::Shared;
use facts::Facts;

/// A lease is good for this long (upstream), in seconds.
const LEASE_SECONDS: i32 = 40;
/// It is renewed this often.
const RENEW: Duration = Duration::from_secs(10);
/// The status is written at least this often.
const REPORT: Duration = Duration::from_secs(300);
/// First wait after a failed registration; doubles up to seven seconds, as upstream.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(7);
/// Namespace of node leases.
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// Registers the node, then keeps status and lease fresh until cancelled.
pub(crate) async fn run(
    shared: Arc<Shared>,
    facts: Facts,
    port: u16,
    registered: watch::Sender<bool>,
    cancel: CancellationToken,
) {
    let mut pause = FIRST_RETRY;
    let node = loop {
        match register(&shared, &facts, port).await {
            Ok(node) => break node,
            Err(error) => tracing::debug!(%error, "registering the node"),
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(LAST_RETRY),
        }
    };
    shared.events.node(&shared.config.node_name, false, "Starting", "Starting kubelet.");
    registered.send_replace(true);
    let mut keeper = Keeper {
        shared,
        facts,
        port,
        reported: node.status.clone().unwrap_or_default(),
        at: Instant::now(),
        node,
    };
    loop {
        keeper.renew().await;
        keeper.report().await;
        let jitter = 1.0 + rand::random::<f64>() * 0.04;
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(RENEW.mul_f64(jitter)) => {}
        }
    }
}

/// Makes the Node, or brings an existing one up to date.
async fn register(shared: &Shared, facts: &Facts, port: u16) -> Result<Node, kube::Error> {
    let api: Api<Node> = Api::all(shared.client.clone());
    let name = &shared.config.node_name;
    let labels = facts.labels(&shared.config);
    if api.get_opt(name).await?.is_none() {
        let metadata =
            ObjectMeta { name: Some(name.clone()), labels: Some(labels.clone()), ..ObjectMeta::default() };
        match api.create(&PostParams::default(), &Node { metadata, ..Node::default() }).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            other => drop(other?),
        }
    } else {
        let patch = serde_json::json!({"metadata": {"labels": labels}});
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    }
    let node = api.get(name).await?;
    let status = status::status(shared, facts, port, node.status.as_ref()).await;
    let patch = serde_json::json!({"status": status});
    api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await
}

struct Keeper {
    shared: Arc<Shared>,
    facts: Facts,
    port: u16,
    reported: NodeStatus,
    at: Instant,
    node: Node,
}

impl Keeper {
    async fn report(&mut self) {
        let name = &self.shared.config.node_name;
        let status = status::status(&self.shared, &self.facts, self.port, Some(&self.reported)).await;
        if status::same(&status, &self.reported) && self.at.elapsed() < REPORT {
            return;
        }
        let api: Api<Node> = Api::all(self.shared.client.clone());
        let patch = serde_json::json!({"status": status});
        match api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            Ok(_) => {
                self.reported = status;
                self.at = Instant::now();
            }
            // Someone has deleted the node: a running kubelet registers again.
            Err(kube::Error::Api(s)) if s.code == 404 => {
                match register(&self.shared, &self.facts, self.port).await {
                    Ok(node) => self.node = node,
                    Err(error) => tracing::debug!(%error, "registering the node again"),
                }
            }
            Err(error) => tracing::debug!(%error, "node status not stored"),
        }
    }

    async fn renew(&self) {
        if let Err(error) = self.try_renew().await {
            tracing::debug!(%error, "node lease not renewed");
        }
    }

    async fn try_renew(&self) -> Result<(), kube::Error> {
        let name = &self.shared.config.node_name;
        let api: Api<Lease> = Api::namespaced(self.shared.client.clone(), LEASE_NAMESPACE);
        let now = MicroTime(Timestamp::now());
        let Some(lease) = api.get_opt(name).await? else {
            let owner = OwnerReference {
                api_version: "v1".into(),
                kind: "Node".into(),
                name: name.clone(),
                uid: self.node.metadata.uid.clone().unwrap_or_default(),
                ..OwnerReference::default()
            };
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(name.clone()),
                    owner_references: Some(vec![owner]),
                    ..ObjectMeta::default()
                },
                spec: Some(LeaseSpec {
                    holder_identity: Some(name.clone()),
                    lease_duration_seconds: Some(LEASE_SECONDS),
                    renew_time: Some(now),
                    ..LeaseSpec::default()
                }),
            };
            return api.create(&PostParams::default(), &lease).await.map(drop);
        };
        let holder = lease.spec.as_ref().and_then(|s| s.holder_identity.as_deref()).unwrap_or_default();
        if !holder.is_empty() && holder != name {
            tracing::error!(
                holder,
                "the lease of this node's name belongs to another node: it is not touched"
            );
            return Ok(());
        }
        let spec = serde_json::json!({
            "holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now
        });
        let patch = Patch::Merge(serde_json::json!({"spec": spec}));
        api.patch(name, &PatchParams::default(), &patch).await.map(drop)
    }
}
