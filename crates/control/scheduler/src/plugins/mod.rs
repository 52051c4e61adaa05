//! The plugins, one file each: pure functions over a pod and a [`Snapshot`].
//!
//! A plugin's filter is prepared once for a pod and then asked about each node; its score gives every fitting
//! node 0 to 100.

mod balanced_allocation;
mod image_locality;
mod inter_pod_affinity;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_unschedulable;
mod resources_fit;
mod taint_toleration;
mod topology_spread;
mod unsupported;

use crate::events::ClusterEvent as E;
use crate::framework::Filter;
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;

/// Prepares a filter for one pod.
pub type FilterFn = for<'a> fn(&'a PodInfo, &'a Snapshot) -> Filter<'a>;
/// Scores the fitting nodes for one pod.
pub type ScoreFn = fn(&PodInfo, &Snapshot, &[&NodeInfo]) -> Option<Vec<i64>>;

/// One plugin.
pub struct Plugin {
    /// Upstream's name.
    pub name: &'static str,
    /// How much its score counts.
    pub weight: i64,
    /// Which nodes will do.
    pub filter: Option<FilterFn>,
    /// How good each of the fitting nodes is; `None` when all are the same to it.
    pub score: Option<ScoreFn>,
    /// What may make a pod fit that it refused.
    pub wakes: &'static [E],
}

/// All of them, cheapest filters first; weights are upstream's defaults.
pub const PLUGINS: [Plugin; 11] = [
    Plugin { name: "Unsupported", weight: 0, filter: Some(unsupported::filter), score: None, wakes: &[] },
    Plugin {
        name: "NodeUnschedulable",
        weight: 0,
        filter: Some(node_unschedulable::filter),
        score: None,
        wakes: &[E::NodeAdded, E::NodeTaints],
    },
    Plugin {
        name: "NodeName",
        weight: 0,
        filter: Some(node_name::filter),
        score: None,
        wakes: &[E::NodeAdded],
    },
    Plugin {
        name: "TaintToleration",
        weight: 3,
        filter: Some(taint_toleration::filter),
        score: Some(taint_toleration::score),
        wakes: &[E::NodeAdded, E::NodeTaints],
    },
    Plugin {
        name: "NodeAffinity",
        weight: 2,
        filter: Some(node_affinity::filter),
        score: Some(node_affinity::score),
        wakes: &[E::NodeAdded, E::NodeLabels],
    },
    Plugin {
        name: "NodePorts",
        weight: 0,
        filter: Some(node_ports::filter),
        score: None,
        wakes: &[E::NodeAdded, E::PodRemoved],
    },
    Plugin {
        name: "NodeResourcesFit",
        weight: 1,
        filter: Some(resources_fit::filter),
        score: Some(resources_fit::score),
        wakes: &[E::NodeAdded, E::NodeResources, E::PodRemoved, E::PodShrunk],
    },
    Plugin {
        name: "PodTopologySpread",
        weight: 2,
        filter: Some(topology_spread::filter),
        score: Some(topology_spread::score),
        wakes: &[
            E::NodeAdded,
            E::NodeRemoved,
            E::NodeLabels,
            E::NodeTaints,
            E::PodPlaced,
            E::PodRelabelled,
            E::PodRemoved,
        ],
    },
    Plugin {
        name: "InterPodAffinity",
        weight: 2,
        filter: Some(inter_pod_affinity::filter),
        score: Some(inter_pod_affinity::score),
        wakes: &[
            E::NodeAdded,
            E::NodeLabels,
            E::PodPlaced,
            E::PodRelabelled,
            E::PodRemoved,
            E::NamespaceLabels,
        ],
    },
    Plugin {
        name: "NodeResourcesBalancedAllocation",
        weight: 1,
        filter: None,
        score: Some(balanced_allocation::score),
        wakes: &[],
    },
    Plugin { name: "ImageLocality", weight: 1, filter: None, score: Some(image_locality::score), wakes: &[] },
];

/// Whether an event may help a pod that these plugins refused. Without plugins there were no nodes.
pub fn helps(event: E, refused_by: &[&'static str]) -> bool {
    if refused_by.is_empty() {
        return event == E::NodeAdded;
    }
    PLUGINS.iter().any(|p| refused_by.contains(&p.name) && p.wakes.contains(&event))
}
