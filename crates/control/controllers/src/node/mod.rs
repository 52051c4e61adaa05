//! Nodes: pod address ranges, and what follows when a node stops reporting.

mod cidr;
mod health;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use xebec_reconcile::{Change, Index, Informer, Key, Queue, Reconciler, Requeue};

use crate::{Informers, Recorder, pods};
pub use cidr::{CidrError, ClusterCidr};
use health::Health;

/// The controller.
pub struct Nodes {
    client: Client,
    nodes: Informer<Node>,
    leases: Informer<Lease>,
    pods: Index<Pod>,
    ranges: Vec<ClusterCidr>,
    /// Held from the choice of a node's ranges until the informer knows of it: no two nodes get the same.
    assigning: tokio::sync::Mutex<()>,
    recorder: Recorder,
}

impl Nodes {
    /// A controller that gives nodes a part of each of `ranges`, and its queue.
    pub fn new(
        client: Client,
        informers: &Informers,
        ranges: Vec<ClusterCidr>,
        recorder: Recorder,
    ) -> (Self, Queue<Key>) {
        let queue = Queue::new();
        let (q, events) = (queue.clone(), recorder.clone());
        informers.nodes.on_change(move |change| {
            q.add(Key::of(change.object().as_ref()));
            tell(&events, change);
        });
        let (q, nodes) = (queue.clone(), informers.nodes.clone());
        informers.leases.on_change(move |change| {
            let key = Key::new("", change.object().name_any());
            // A renewal of a healthy node changes nothing; the timer of the last pass covers it.
            if nodes.get(&key).is_some_and(|node| !health::says_ready(&node)) {
                q.add(key);
            }
        });
        let (q, nodes) = (queue.clone(), informers.nodes.clone());
        informers.pods.on_change(move |change| {
            let node = change.object().spec.as_ref().and_then(|spec| spec.node_name.clone());
            let key = Key::new("", node.unwrap_or_default());
            if nodes.get(&key).is_some_and(|node| health::has_eviction_taint(&node)) {
                q.add(key);
            }
        });
        let controller = Self {
            client,
            nodes: informers.nodes.clone(),
            leases: informers.leases.clone(),
            pods: informers.pods_by_node.clone(),
            ranges,
            assigning: tokio::sync::Mutex::default(),
            recorder,
        };
        (controller, queue)
    }

    /// Gives the node its pod ranges if it has none.
    async fn assign_ranges(&self, node: &Node) -> Result<bool, kube::Error> {
        let has = node.spec.as_ref().and_then(|spec| spec.pod_cidrs.as_ref()).is_some_and(|c| !c.is_empty());
        if has || self.ranges.is_empty() {
            return Ok(false);
        }
        let _guard = self.assigning.lock().await;
        let taken: Vec<String> = self
            .nodes
            .list()
            .iter()
            .flat_map(|n| n.spec.clone().and_then(|s| s.pod_cidrs).unwrap_or_default())
            .collect();
        let mut given = Vec::new();
        for range in &self.ranges {
            match range.next_free(&taken) {
                Ok(cidr) => given.push(cidr),
                Err(error) => {
                    self.recorder.warning(node, "CIDRNotAvailable", error.to_string());
                    return Ok(false);
                }
            }
        }
        let patch = json!({"spec": {"podCIDR": given[0], "podCIDRs": given}});
        let api: Api<Node> = Api::all(self.client.clone());
        let node = api.patch(&node.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await?;
        self.nodes.written(node);
        Ok(true)
    }

    /// Marks the conditions of a silent node as unknown.
    async fn mark_unknown(&self, node: &Node) -> Result<(), kube::Error> {
        let Some(changed) = health::with_unknown_conditions(node, Timestamp::now()) else { return Ok(()) };
        let message = format!("Node {} status is now: NodeNotReady", node.name_any());
        self.recorder.normal(node, "NodeNotReady", message);
        let api: Api<Node> = Api::all(self.client.clone());
        let written = api.replace_status(&node.name_any(), &PostParams::default(), &changed).await;
        crate::tolerate(written, &[404, 409])?;
        self.mark_pods_not_ready(&node.name_any()).await
    }

    /// Pods of a node that is not ready are not ready either: Services must stop sending to them.
    async fn mark_pods_not_ready(&self, node: &str) -> Result<(), kube::Error> {
        for pod in self.pods.get(node).into_iter().filter(|pod| pods::is_ready(pod)) {
            let patch = json!({"status": {"conditions": [{
                "type": "Ready", "status": "False", "reason": "NodeNotReady",
                "lastTransitionTime": xebec_types::time::now()
            }]}});
            let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
            let patched =
                api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(&patch)).await;
            crate::tolerate(patched, &[404])?;
        }
        Ok(())
    }

    async fn set_taints(&self, node: &Node, health: Health) -> Result<bool, kube::Error> {
        let Some(taints) = health::taints(node, health, Timestamp::now()) else { return Ok(false) };
        let patch = json!({
            "metadata": {"resourceVersion": node.metadata.resource_version},
            "spec": {"taints": taints}
        });
        let api: Api<Node> = Api::all(self.client.clone());
        let patched = api.patch(&node.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await;
        crate::tolerate(patched, &[404])?;
        Ok(true)
    }

    /// Deletes the pods that do not tolerate the node's taints any longer; answers when to look again.
    async fn evict(&self, node: &Node) -> Result<Option<Duration>, kube::Error> {
        let mut next: Option<Duration> = None;
        let staying = |pod: &Arc<Pod>| pod.metadata.deletion_timestamp.is_none();
        for pod in self.pods.get(&node.name_any()).into_iter().filter(staying) {
            match health::tolerated_for(node, &pod, Timestamp::now()) {
                None => {}
                Some(Duration::ZERO) => {
                    let message = format!("Marking for deletion Pod {}", Key::of(pod.as_ref()));
                    self.recorder.normal(pod.as_ref(), "TaintManagerEviction", message);
                    let api: Api<Pod> =
                        Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
                    let preconditions = Preconditions { uid: pod.uid(), resource_version: None };
                    let params =
                        DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
                    crate::tolerate(api.delete(&pod.name_any(), &params).await, &[404, 409])?;
                }
                Some(left) => next = Some(next.map_or(left, |n| n.min(left))),
            }
        }
        Ok(next)
    }
}

/// Tells of nodes that come and go.
fn tell(recorder: &Recorder, change: &Change<'_, Node>) {
    let name = change.object().name_any();
    let (reason, what) = match change {
        Change::Added(_) => ("RegisteredNode", format!("Registered Node {name} in Controller")),
        Change::Deleted(_) => ("RemovingNode", format!("Removing Node {name} from Controller")),
        Change::Updated(..) => return,
    };
    recorder.normal(change.object().as_ref(), reason, format!("Node {name} event: {what}"));
}

impl Reconciler for Nodes {
    type Key = Key;
    type Error = kube::Error;
    const NAME: &'static str = "node";

    async fn reconcile(&self, key: &Key) -> Result<Requeue, kube::Error> {
        let Some(node) = self.nodes.get(key) else { return Ok(Requeue::Never) };
        if self.assign_ranges(&node).await? {
            return Ok(Requeue::Never);
        }
        let lease = self.leases.get(&Key::new("kube-node-lease", &key.name));
        let (health, silent_after) = health::judge(&node, lease.as_deref(), Timestamp::now());
        if health == Health::Silent {
            self.mark_unknown(&node).await?;
        }
        if self.set_taints(&node, health).await? {
            return Ok(Requeue::Never);
        }
        let evict_after = self.evict(&node).await?;
        let next = [silent_after, evict_after].into_iter().flatten().min();
        Ok(next.map_or(Requeue::Never, Requeue::After))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;

    /// A controller for 10.0.0.0/16 whose API takes every patch of a node.
    fn controller() -> (Nodes, Informers, xebec_fakeapi::Requests) {
        let (client, asked) = xebec_fakeapi::client(|asked| {
            let name = asked.path.rsplit('/').next().unwrap_or_default();
            let meta = json!({"name": name, "resourceVersion": "9"});
            (200, json!({"metadata": meta, "spec": asked.body["spec"], "involvedObject": {}}))
        });
        let informers = Informers::new();
        let (recorder, writer) = Recorder::new(client.clone(), "node-controller", CancellationToken::new());
        tokio::spawn(writer);
        let ranges = vec![ClusterCidr::parse("10.0.0.0/16").unwrap()];
        (Nodes::new(client, &informers, ranges, recorder).0, informers, asked)
    }

    fn node(name: &str) -> Arc<Node> {
        let node = json!({"metadata": {"name": name, "resourceVersion": "1"}});
        Arc::new(serde_json::from_value(node).unwrap())
    }

    #[tokio::test]
    async fn nodes_that_come_at_once_get_ranges_of_their_own() {
        let (controller, informers, _asked) = controller();
        for name in ["a", "b"] {
            informers.nodes.apply(node(name));
        }
        let (a, b) = (Key::new("", "a"), Key::new("", "b"));
        let (first, second) = tokio::join!(controller.reconcile(&a), controller.reconcile(&b));
        assert!(first.is_ok() && second.is_ok());
        let range = |key| informers.nodes.get(key).unwrap().spec.clone().unwrap().pod_cidr.unwrap();
        assert_ne!(range(&a), range(&b));
    }

    #[tokio::test]
    async fn nodes_are_told_of_once_when_they_come_and_go() {
        let (controller, informers, mut asked) = controller();
        let key = Key::new("", "a");
        informers.nodes.apply(node("a"));
        controller.reconcile(&key).await.unwrap();
        controller.reconcile(&key).await.unwrap();
        informers.nodes.delete(&key, None);
        controller.reconcile(&key).await.unwrap();
        let mut told = Vec::new();
        while told.len() < 2 {
            let asked = asked.recv().await.unwrap();
            if asked.path.ends_with("/events") {
                told.push((asked.body["reason"].clone(), asked.body["message"].clone()));
            }
        }
        assert_eq!(
            told,
            [
                (json!("RegisteredNode"), json!("Node a event: Registered Node a in Controller")),
                (json!("RemovingNode"), json!("Node a event: Removing Node a from Controller")),
            ]
        );
    }
}
