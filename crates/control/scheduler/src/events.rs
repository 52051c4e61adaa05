//! What happens in the cluster, as far as it may help a pod that did not fit.

use k8s_openapi::api::core::v1::Node;

use crate::node::NodeInfo;
use crate::pod::PodInfo;

/// Something that may make a pod fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterEvent {
    /// A node is new.
    NodeAdded,
    /// A node is gone: the smallest domain of a spread may be another now.
    NodeRemoved,
    /// A node has other labels.
    NodeLabels,
    /// A node has other taints, or was cordoned or uncordoned.
    NodeTaints,
    /// A node has other allocatable resources.
    NodeResources,
    /// A pod got its node.
    PodPlaced,
    /// A pod on a node has other labels.
    PodRelabelled,
    /// A pod on a node asks for other amounts.
    PodShrunk,
    /// A pod left its node, finished, or began to terminate.
    PodRemoved,
    /// A namespace has other labels.
    NamespaceLabels,
}

/// What changed between the known node and its new form.
pub fn of_node(old: &NodeInfo, new: &Node) -> Vec<ClusterEvent> {
    let mut fresh = NodeInfo::named(&old.name);
    fresh.set(std::sync::Arc::new(new.clone()));
    let mut events = Vec::new();
    if fresh.labels != old.labels {
        events.push(ClusterEvent::NodeLabels);
    }
    if fresh.taints() != old.taints() || fresh.unschedulable() != old.unschedulable() {
        events.push(ClusterEvent::NodeTaints);
    }
    if fresh.allocatable != old.allocatable || fresh.allowed_pods != old.allowed_pods {
        events.push(ClusterEvent::NodeResources);
    }
    events
}

/// What changed between two forms of a pod that stays on its node.
pub fn of_pod(old: &PodInfo, new: &PodInfo) -> Vec<ClusterEvent> {
    let mut events = Vec::new();
    if old.labels != new.labels {
        events.push(ClusterEvent::PodRelabelled);
    }
    if old.requests != new.requests {
        events.push(ClusterEvent::PodShrunk);
    }
    if !old.terminating && new.terminating {
        events.push(ClusterEvent::PodRemoved);
    }
    events
}
