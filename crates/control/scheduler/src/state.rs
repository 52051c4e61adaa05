//! What the informers tell, turned into the snapshot and the queue.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use kube::ResourceExt;
use tokio::time::Instant;
use xebec_reconcile::{Change, Key};
use xebec_types::LabelSelector;

use crate::events::{ClusterEvent, of_node, of_pod};
use crate::framework::{self, Unfit};
use crate::pod::PodInfo;
use crate::queue::Pending;
use crate::snapshot::Snapshot;

/// The scheduler that pods without `schedulerName` get.
pub const SCHEDULER_NAME: &str = "default-scheduler";

/// What to do next.
#[derive(Debug)]
pub enum Step {
    /// Bind the pod to the node; it is counted there already.
    Bind(Arc<PodInfo>, String),
    /// Tell that the pod fits nowhere; it is parked already.
    Tell(Arc<PodInfo>, String),
    /// Nothing, until something changes or this time comes.
    Wait(Option<Instant>),
}

/// All that decisions depend on.
#[derive(Debug, Default)]
pub struct State {
    /// The cluster.
    pub snapshot: Snapshot,
    /// Pods without a node.
    pub pending: Pending,
    start: usize,
}

impl State {
    /// Takes the next pod and decides for it.
    pub fn step(&mut self, now: Instant) -> Step {
        loop {
            let Some(pod) = self.pending.pop(now) else { return Step::Wait(self.pending.next_timer()) };
            if pod.terminating {
                self.pending.remove(&pod.key);
                continue;
            }
            return match framework::select(&pod, &self.snapshot, &mut self.start, &mut rand::rng()) {
                Ok(node) => {
                    self.snapshot.place(pod.clone(), &node);
                    Step::Bind(pod, node)
                }
                Err(Unfit { message, plugins }) => {
                    self.pending.park(&pod.key, plugins, now);
                    Step::Tell(pod, message)
                }
            };
        }
    }

    /// Binding a pod failed: what it took is free again. `false`: it is gone, or bound after all.
    pub fn forget(&mut self, pod: &PodInfo) -> bool {
        let assumed = self.snapshot.placed(&pod.key);
        if !assumed.is_some_and(|known| known.uid() == pod.uid() && known.node_name().is_none()) {
            return false;
        }
        self.snapshot.remove_pod(&pod.key);
        self.pending.wake(ClusterEvent::PodRemoved);
        self.pending.retry(&pod.key, Instant::now());
        true
    }

    /// A pod changed.
    pub fn pod(&mut self, change: &Change<'_, Pod>) {
        let pod = match change {
            Change::Deleted(pod) => return self.pod_gone(&Key::of(pod.as_ref())),
            // Most changes of a running pod are of its status.
            Change::Updated(old, new) if is_settled(old, new) => return,
            Change::Added(pod) | Change::Updated(_, pod) => Arc::new(PodInfo::new((*pod).clone())),
        };
        if pod.is_finished() {
            self.pod_gone(&pod.key);
        } else if let Some(node) = pod.node_name() {
            self.pod_placed(&pod, node);
        } else {
            self.pod_waits(pod);
        }
    }

    fn pod_gone(&mut self, key: &Key) {
        self.pending.remove(key);
        if self.snapshot.remove_pod(key) {
            self.pending.wake(ClusterEvent::PodRemoved);
        }
    }

    fn pod_placed(&mut self, pod: &Arc<PodInfo>, node: &str) {
        self.pending.remove(&pod.key);
        let events = match self.snapshot.placed(&pod.key) {
            Some(old) if old.node_name().is_some() => of_pod(old, pod),
            _ => vec![ClusterEvent::PodPlaced],
        };
        self.snapshot.place(pod.clone(), node);
        for event in events {
            self.pending.wake(event);
        }
    }

    fn pod_waits(&mut self, pod: Arc<PodInfo>) {
        // A pod of the same name that is counted somewhere is either this one, being bound, or a former one.
        let same = self.snapshot.placed(&pod.key).map(|known| known.uid() == pod.uid());
        if same == Some(false) {
            self.pod_gone(&pod.key);
        }
        let name = pod.spec().and_then(|s| s.scheduler_name.as_deref()).filter(|name| !name.is_empty());
        if pod.terminating || name.unwrap_or(SCHEDULER_NAME) != SCHEDULER_NAME {
            self.pending.remove(&pod.key);
        } else {
            self.pending.upsert(pod);
        }
    }

    /// A node changed.
    pub fn node(&mut self, change: &Change<'_, Node>) {
        let name = change.object().name_any();
        let node = match change {
            Change::Deleted(_) => {
                self.snapshot.remove_node(&name);
                return self.pending.wake(ClusterEvent::NodeRemoved);
            }
            Change::Added(node) | Change::Updated(_, node) => (*node).clone(),
        };
        let events = match self.snapshot.node(&name) {
            Some(known) => of_node(known, &node),
            None => vec![ClusterEvent::NodeAdded],
        };
        self.snapshot.set_node(node);
        for event in events {
            self.pending.wake(event);
        }
    }

    /// A namespace changed.
    pub fn namespace(&mut self, change: &Change<'_, Namespace>) {
        let name = change.object().name_any();
        if let Change::Deleted(_) = change {
            self.snapshot.namespaces.remove(&name);
            return;
        }
        let labels = change.sides().last().and_then(|ns| ns.metadata.labels.clone()).unwrap_or_default();
        if self.snapshot.namespaces.get(&name) != Some(&labels) {
            self.snapshot.namespaces.insert(name, labels);
            self.pending.wake(ClusterEvent::NamespaceLabels);
        }
    }

    /// A Service changed: its pods are spread together.
    pub fn service(&mut self, change: &Change<'_, Service>) {
        let object = change.sides().last().unwrap_or(change.object());
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let of_namespace = self.snapshot.services.entry(namespace.clone()).or_default();
        let selector = object.spec.as_ref().and_then(|s| s.selector.as_ref()).filter(|s| !s.is_empty());
        match (change, selector) {
            (Change::Added(_) | Change::Updated(..), Some(selector)) => {
                let labels = selector.iter().map(|(k, v)| (k.as_str(), v.as_str()));
                of_namespace.insert(name, LabelSelector::from_map(labels));
            }
            _ => drop(of_namespace.remove(&name)),
        }
        if of_namespace.is_empty() {
            self.snapshot.services.remove(&namespace);
        }
    }

    /// A ReplicaSet changed: its pods are spread together.
    pub fn replica_set(&mut self, change: &Change<'_, ReplicaSet>) {
        let object = change.sides().last().unwrap_or(change.object());
        let key = Key::of(object.as_ref());
        let selector = object.spec.as_ref().and_then(|s| LabelSelector::from_structured(&s.selector).ok());
        match (change, selector) {
            (Change::Added(_) | Change::Updated(..), Some(selector)) => {
                self.snapshot.replica_sets.insert(key, selector);
            }
            _ => drop(self.snapshot.replica_sets.remove(&key)),
        }
    }
}

/// Whether a pod that has its node changed in nothing that matters to others.
fn is_settled(old: &Pod, new: &Pod) -> bool {
    let bound = |pod: &Pod| pod.spec.as_ref().is_some_and(|s| s.node_name.is_some());
    let phase = |pod: &Pod| pod.status.as_ref().and_then(|s| s.phase.clone());
    let (before, after) = (&old.metadata, &new.metadata);
    bound(old)
        && bound(new)
        && before.uid == after.uid
        && before.labels == after.labels
        && before.deletion_timestamp.is_some() == after.deletion_timestamp.is_some()
        && phase(old) == phase(new)
        && old.spec == new.spec
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{node, pod};

    fn asking(name: &str, cpu: &str) -> Arc<Pod> {
        pod(name, json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}))
            .object()
            .unwrap()
            .clone()
    }

    fn bound(pod: &Arc<Pod>, to: &str) -> Arc<Pod> {
        let mut pod = Pod::clone(pod);
        pod.spec.as_mut().unwrap().node_name = Some(to.into());
        Arc::new(pod)
    }

    fn decided(state: &mut State) -> String {
        match state.step(Instant::now()) {
            Step::Bind(pod, node) => format!("{} -> {node}", pod.key.name),
            Step::Tell(pod, message) => format!("{}: {message}", pod.key.name),
            Step::Wait(_) => "wait".into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn assumed_pods_count_until_they_are_forgotten() {
        let mut state = State::default();
        state.node(&Change::Added(&node("n1", json!({}), json!({}))));
        let (one, two) = (asking("one", "3"), asking("two", "3"));
        state.pod(&Change::Added(&one));
        state.pod(&Change::Added(&two));
        assert_eq!(decided(&mut state), "one -> n1");
        assert_eq!(decided(&mut state), "two: 0/1 nodes are available: 1 Insufficient cpu.");
        assert!(state.forget(&PodInfo::new(one.clone())));
        tokio::time::advance(std::time::Duration::from_secs(10)).await;
        assert!(decided(&mut state).ends_with("-> n1"));
    }

    #[tokio::test(start_paused = true)]
    async fn bound_pods_leave_the_queue_and_stay_counted() {
        let mut state = State::default();
        state.node(&Change::Added(&node("n1", json!({}), json!({}))));
        let one = asking("one", "3");
        state.pod(&Change::Added(&one));
        assert_eq!(decided(&mut state), "one -> n1");
        // The condition that somebody writes while it is being bound changes nothing.
        state.pod(&Change::Updated(&one, &one));
        let there = bound(&one, "n1");
        state.pod(&Change::Updated(&one, &there));
        assert!(!state.forget(&PodInfo::new(one.clone())), "it was bound after all");
        assert_eq!(state.snapshot.node("n1").unwrap().requested.cpu, 3000);
        assert!(
            state.snapshot.placed(&Key::of(there.as_ref())).unwrap().object().is_none(),
            "no old form is kept"
        );

        let two = asking("two", "3");
        state.pod(&Change::Added(&two));
        assert!(decided(&mut state).starts_with("two: 0/1"));
        state.pod(&Change::Deleted(&there));
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        assert_eq!(decided(&mut state), "two -> n1");
    }

    #[tokio::test(start_paused = true)]
    async fn only_pods_of_ours_that_stay_are_scheduled() {
        let mut state = State::default();
        state.node(&Change::Added(&node("n1", json!({}), json!({}))));
        let other = pod("other", json!({"schedulerName": "mine"})).object().unwrap().clone();
        state.pod(&Change::Added(&other));
        let mut dying = Pod::clone(&asking("dying", "1"));
        dying.metadata.deletion_timestamp =
            Some(serde_json::from_value(json!("2024-01-01T00:00:00Z")).unwrap());
        state.pod(&Change::Added(&Arc::new(dying)));
        assert_eq!(decided(&mut state), "wait");
    }

    #[tokio::test(start_paused = true)]
    async fn nodes_that_change_wake_who_waits_for_that() {
        let mut state = State::default();
        let cordoned = node("n1", json!({}), json!({"unschedulable": true}));
        state.pod(&Change::Added(&asking("one", "1")));
        assert_eq!(decided(&mut state), "one: no nodes available to schedule pods");
        state.node(&Change::Added(&cordoned));
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        assert_eq!(decided(&mut state), "one: 0/1 nodes are available: 1 node(s) were unschedulable.");
        state.node(&Change::Updated(&cordoned, &node("n1", json!({}), json!({}))));
        tokio::time::advance(std::time::Duration::from_secs(2)).await;
        assert_eq!(decided(&mut state), "one -> n1");
    }
}
