//! A node with what is on it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint};

use crate::pod::{HostPort, PodInfo};
use crate::resources::{Resources, Weight};

/// Labels as the API has them.
pub type Labels = BTreeMap<String, String>;

/// Number of a set of equal pods (namespace and labels) in the snapshot's table.
pub type GroupId = usize;

/// How many pods of a group are on a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GroupCount {
    /// All of them.
    pub all: i64,
    /// Those that are not being deleted.
    pub staying: i64,
}

/// A node with the sums of what its pods take, kept up to date pod by pod.
#[derive(Debug, Default)]
pub struct NodeInfo {
    /// Its name.
    pub name: String,
    /// The object; a name that only pods mention has none yet.
    pub node: Option<Arc<Node>>,
    /// Its labels.
    pub labels: Labels,
    /// What pods may take.
    pub allocatable: Resources,
    /// How many pods may be on it.
    pub allowed_pods: i64,
    /// What its pods take.
    pub requested: Resources,
    /// What its pods count with in scores.
    pub weight: Weight,
    /// How many pods are on it.
    pub pod_count: i64,
    /// Pods by group.
    pub groups: HashMap<GroupId, GroupCount>,
    /// Pods with inter-pod affinity of any sort.
    pub with_terms: Vec<Arc<PodInfo>>,
    /// Ports taken.
    pub ports: Vec<HostPort>,
    /// Images on it and their sizes in bytes.
    pub images: HashMap<String, i64>,
}

impl NodeInfo {
    /// A node that pods mention.
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// Takes in the object.
    pub fn set(&mut self, node: Arc<Node>) {
        let status = node.status.as_ref();
        let allocatable = status.and_then(|s| s.allocatable.as_ref().or(s.capacity.as_ref()));
        self.allocatable = Resources::of(allocatable);
        let pods = allocatable.and_then(|list| list.get("pods"));
        self.allowed_pods =
            pods.and_then(|q| q.0.parse::<xebec_types::Quantity>().ok()).map_or(0, |q| q.value());
        self.labels = node.metadata.labels.clone().unwrap_or_default();
        self.images.clear();
        for image in status.and_then(|s| s.images.as_ref()).into_iter().flatten() {
            for name in image.names.iter().flatten() {
                self.images.insert(name.clone(), image.size_bytes.unwrap_or(0));
            }
        }
        self.node = Some(node);
    }

    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }

    /// Its taints.
    pub fn taints(&self) -> &[Taint] {
        self.node.as_ref().and_then(|n| n.spec.as_ref()?.taints.as_deref()).unwrap_or(&[])
    }

    /// Whether it is cordoned.
    pub fn unschedulable(&self) -> bool {
        self.node.as_ref().and_then(|n| n.spec.as_ref()?.unschedulable).unwrap_or(false)
    }

    /// Counts a pod in.
    pub fn add_pod(&mut self, pod: &Arc<PodInfo>, group: GroupId) {
        self.requested.add(&pod.requests);
        self.weight.cpu += pod.weight.cpu;
        self.weight.memory += pod.weight.memory;
        self.pod_count += 1;
        let count = self.groups.entry(group).or_default();
        count.all += 1;
        count.staying += i64::from(!pod.terminating);
        if pod.has_pod_terms() {
            self.with_terms.push(pod.clone());
        }
        self.ports.extend(pod.ports.iter().cloned());
    }

    /// Counts a pod out.
    pub fn remove_pod(&mut self, pod: &Arc<PodInfo>, group: GroupId) {
        self.requested.subtract(&pod.requests);
        self.weight.cpu -= pod.weight.cpu;
        self.weight.memory -= pod.weight.memory;
        self.pod_count -= 1;
        if let Some(count) = self.groups.get_mut(&group) {
            count.all -= 1;
            count.staying -= i64::from(!pod.terminating);
            if count.all == 0 {
                self.groups.remove(&group);
            }
        }
        self.with_terms.retain(|other| !Arc::ptr_eq(other, pod));
        for port in &pod.ports {
            if let Some(at) = self.ports.iter().position(|other| other == port) {
                self.ports.swap_remove(at);
            }
        }
    }
}
