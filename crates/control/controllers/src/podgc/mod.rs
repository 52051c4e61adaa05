//! The pod garbage collector: pods that no kubelet will ever finish, and ended pods of which there are too many.
//!
//! It does what upstream's `podgc` does, driven by changes instead of a period: a pod bound to a node that is not
//! known puts the node's name into the queue for after the quarantine, and only a live read that does not find the
//! node makes its pods orphans. The quarantine is for nodes whose creation the informer has not heard of yet.

mod plan;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, PodCondition};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use xebec_reconcile::{Change, Index, Informer, Key, Queue, Reconciler, Requeue};

use crate::{Informers, pods};

/// When the collector becomes active.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long a node must be unknown before its pods are orphans.
    pub quarantine: Duration,
    /// How many ended pods stay; 0: all of them.
    pub ended: usize,
    /// How long after the end of a pod ended pods are counted; ends in between are counted once.
    pub count_after: Duration,
}

impl Default for Limits {
    /// Upstream's.
    fn default() -> Self {
        Self { quarantine: Duration::from_secs(40), ended: 12_500, count_after: Duration::from_secs(20) }
    }
}

/// What there is to look at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Work {
    /// A node that pods are bound to and that was not known.
    MissingNode(String),
    /// A pod that is on its way out.
    Ending(Key),
    /// All ended pods.
    Ended,
}

/// The controller.
pub struct PodCollector {
    client: Client,
    pods: Informer<Pod>,
    by_node: Index<Pod>,
    nodes: Informer<Node>,
    limits: Limits,
}

impl PodCollector {
    /// A controller with these limits, and its queue.
    pub fn new(client: Client, informers: &Informers, limits: Limits) -> (Self, Queue<Work>) {
        let queue = Queue::new();
        let (q, nodes) = (queue.clone(), informers.nodes.clone());
        informers.pods.on_change(move |change| {
            if let Change::Added(pod) | Change::Updated(_, pod) = change {
                watch_pod(&q, &nodes, pod, limits);
            }
        });
        let (q, by_node) = (queue.clone(), informers.pods_by_node.clone());
        informers.nodes.on_change(move |change| match change {
            Change::Deleted(node) => q.add_after(Work::MissingNode(node.name_any()), limits.quarantine),
            Change::Added(node) | Change::Updated(_, node) if plan::is_out_of_service(node) => {
                let pods = by_node.get(&node.name_any());
                for pod in pods.iter().filter(|pod| plan::ends_out_of_service(pod, node)) {
                    q.add(Work::Ending(Key::of(pod.as_ref())));
                }
            }
            _ => {}
        });
        let (pods, nodes) = (informers.pods.clone(), informers.nodes.clone());
        (Self { client, pods, by_node: informers.pods_by_node.clone(), nodes, limits }, queue)
    }

    /// Collects the pods of a node, if it is really gone.
    async fn missing_node(&self, name: &str) -> Result<Requeue, kube::Error> {
        if self.nodes.get(&Key::new("", name)).is_some() {
            return Ok(Requeue::Never);
        }
        let orphans = self.by_node.get(name);
        if orphans.is_empty() {
            return Ok(Requeue::Never);
        }
        let live: Api<Node> = Api::all(self.client.clone());
        if live.get_metadata_opt(name).await?.is_some() {
            // The informer will hear of it; should the node go before, this looks again.
            return Ok(Requeue::After(self.limits.quarantine));
        }
        for pod in orphans {
            tracing::info!(pod = %Key::of(pod.as_ref()), node = name, "the pod's node no longer exists");
            self.collect(&pod, Some(plan::orphaned(&pod, Timestamp::now()))).await?;
        }
        Ok(Requeue::Never)
    }

    async fn ending(&self, key: &Key) -> Result<(), kube::Error> {
        let Some(pod) = self.pods.get(key) else { return Ok(()) };
        let node = plan::node_of(&pod).and_then(|name| self.nodes.get(&Key::new("", name)));
        let out_of_service = node.is_some_and(|node| plan::ends_out_of_service(&pod, &node));
        if out_of_service || plan::ends_unscheduled(&pod) {
            self.collect(&pod, None).await?;
        }
        Ok(())
    }

    async fn ended(&self) -> Result<(), kube::Error> {
        for pod in plan::surplus(self.pods.filter(pods::is_terminal), self.limits.ended) {
            self.collect(&pod, None).await?;
        }
        Ok(())
    }

    /// Says that the pod has failed, unless it has ended, and deletes it without waiting for a kubelet.
    async fn collect(&self, pod: &Pod, condition: Option<PodCondition>) -> Result<(), kube::Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let name = pod.name_any();
        if let Some(patch) = plan::failed(pod, condition) {
            let patched = api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(&patch)).await;
            crate::tolerate(patched, &[404, 409])?;
        }
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: pod.uid(), resource_version: None }),
            ..DeleteParams::default()
        };
        crate::tolerate(api.delete(&name, &params).await, &[404, 409])
    }
}

impl Reconciler for PodCollector {
    type Key = Work;
    type Error = kube::Error;
    const NAME: &'static str = "pod-garbage-collector";

    async fn reconcile(&self, work: &Work) -> Result<Requeue, kube::Error> {
        match work {
            Work::MissingNode(name) => return self.missing_node(name).await,
            Work::Ending(key) => self.ending(key).await?,
            Work::Ended => self.ended().await?,
        }
        Ok(Requeue::Never)
    }
}

/// Puts into the queue what a pod in this state gives reason to look at.
fn watch_pod(queue: &Queue<Work>, nodes: &Informer<Node>, pod: &Pod, limits: Limits) {
    if limits.ended > 0 && pods::is_terminal(pod) {
        queue.add_after(Work::Ended, limits.count_after);
    }
    let node = plan::node_of(pod);
    let known = node.and_then(|name| nodes.get(&Key::new("", name)));
    if let (Some(name), None) = (node, &known) {
        queue.add_after(Work::MissingNode(name.to_owned()), limits.quarantine);
    }
    if plan::ends_unscheduled(pod) || known.is_some_and(|node| plan::ends_out_of_service(pod, &node)) {
        queue.add(Work::Ending(Key::of(pod)));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
