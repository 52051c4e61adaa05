//! The cluster as the plugins see it.
//!
//! It is changed in place, pod by pod, and never copied: the price of placing a pod does not grow with the pods
//! that are there. Pods with equal namespace and labels form a *group*, so that a selector is asked once per
//! group rather than once per pod, which is what makes spreading and affinity cheap.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use xebec_reconcile::Key;
use xebec_types::LabelSelector;

use crate::node::{GroupId, Labels, NodeInfo};
use crate::pod::PodInfo;

/// Pods with the same namespace and labels.
#[derive(Debug)]
struct Group {
    namespace: String,
    labels: Labels,
    pods: usize,
}

/// Where a pod is.
#[derive(Debug)]
struct Placed {
    pod: Arc<PodInfo>,
    node: String,
    group: GroupId,
}

/// Nodes, the pods on them, and what else plugins ask for.
#[derive(Debug, Default)]
pub struct Snapshot {
    nodes: Vec<NodeInfo>,
    slots: HashMap<String, usize>,
    placed: HashMap<Key, Placed>,
    groups: Vec<Group>,
    group_ids: HashMap<(String, Labels), GroupId>,
    free_groups: Vec<GroupId>,
    image_nodes: HashMap<String, i64>,
    /// Labels of namespaces.
    pub namespaces: HashMap<String, Labels>,
    /// Selectors of Services, by namespace and name.
    pub services: HashMap<String, HashMap<String, LabelSelector>>,
    /// Selectors of ReplicaSets.
    pub replica_sets: HashMap<Key, LabelSelector>,
}

impl Snapshot {
    /// All nodes that exist.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.nodes.iter().filter(|node| node.node.is_some())
    }

    /// Nodes and names that only pods mention, by slot: for walking on from where the last walk ended.
    pub fn slots(&self) -> &[NodeInfo] {
        &self.nodes
    }

    /// How many nodes exist.
    pub fn node_count(&self) -> usize {
        self.nodes().count()
    }

    /// One node.
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.slots.get(name).map(|slot| &self.nodes[*slot]).filter(|node| node.node.is_some())
    }

    /// On how many nodes an image is.
    pub fn nodes_with_image(&self, name: &str) -> i64 {
        self.image_nodes.get(name).copied().unwrap_or(0)
    }

    /// For every group whether `wanted` accepts its namespace and labels. Index it with the keys of
    /// [`NodeInfo::groups`].
    pub fn matching(&self, wanted: impl Fn(&str, &Labels) -> bool) -> Vec<bool> {
        self.groups.iter().map(|g| g.pods > 0 && wanted(&g.namespace, &g.labels)).collect()
    }

    /// Takes in a node that is new or has changed.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let name = node.metadata.name.clone().unwrap_or_default();
        let slot = self.slot(&name);
        self.count_images(slot, -1);
        self.nodes[slot].set(node);
        self.count_images(slot, 1);
    }

    /// Forgets a node; its pods stay known until they are gone too.
    pub fn remove_node(&mut self, name: &str) {
        let Some(slot) = self.slots.get(name).copied() else { return };
        self.count_images(slot, -1);
        self.nodes[slot].node = None;
        self.nodes[slot].images.clear();
        self.drop_if_empty(name);
    }

    /// Puts a pod on a node, from wherever it was.
    pub fn place(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.remove_pod(&pod.key);
        let group = self.join_group(&pod);
        let slot = self.slot(node);
        self.nodes[slot].add_pod(&pod, group);
        self.placed.insert(pod.key.clone(), Placed { pod, node: node.to_owned(), group });
    }

    /// Takes a pod from its node. `false`: it was on none.
    pub fn remove_pod(&mut self, key: &Key) -> bool {
        let Some(placed) = self.placed.remove(key) else { return false };
        if let Some(slot) = self.slots.get(&placed.node) {
            self.nodes[*slot].remove_pod(&placed.pod, placed.group);
        }
        self.leave_group(placed.group);
        self.drop_if_empty(&placed.node);
        true
    }

    /// The pod of this name, if it is on a node.
    pub fn placed(&self, key: &Key) -> Option<&Arc<PodInfo>> {
        self.placed.get(key).map(|placed| &placed.pod)
    }

    fn slot(&mut self, name: &str) -> usize {
        if let Some(slot) = self.slots.get(name) {
            return *slot;
        }
        self.nodes.push(NodeInfo::named(name));
        self.slots.insert(name.to_owned(), self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    fn drop_if_empty(&mut self, name: &str) {
        let Some(slot) = self.slots.get(name).copied() else { return };
        if self.nodes[slot].node.is_some() || self.nodes[slot].pod_count > 0 {
            return;
        }
        self.nodes.swap_remove(slot);
        self.slots.remove(name);
        if let Some(moved) = self.nodes.get(slot) {
            self.slots.insert(moved.name.clone(), slot);
        }
    }

    fn count_images(&mut self, slot: usize, by: i64) {
        for name in self.nodes[slot].images.keys() {
            let count = self.image_nodes.entry(name.clone()).or_insert(0);
            *count += by;
            if *count <= 0 {
                self.image_nodes.remove(name);
            }
        }
    }

    fn join_group(&mut self, pod: &PodInfo) -> GroupId {
        let identity = (pod.key.namespace.clone(), pod.labels.clone());
        if let Some(id) = self.group_ids.get(&identity) {
            self.groups[*id].pods += 1;
            return *id;
        }
        let group = Group { namespace: identity.0.clone(), labels: identity.1.clone(), pods: 1 };
        let id = match self.free_groups.pop() {
            Some(id) => {
                self.groups[id] = group;
                id
            }
            None => {
                self.groups.push(group);
                self.groups.len() - 1
            }
        };
        self.group_ids.insert(identity, id);
        id
    }

    fn leave_group(&mut self, id: GroupId) {
        let group = &mut self.groups[id];
        group.pods -= 1;
        if group.pods == 0 {
            let identity = (std::mem::take(&mut group.namespace), std::mem::take(&mut group.labels));
            self.group_ids.remove(&identity);
            self.free_groups.push(id);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{node, pod};

    #[test]
    fn sums_follow_the_pods() {
        let mut snapshot = Snapshot::default();
        let web = pod(
            "web",
            json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}},
            "ports": [{"containerPort": 80, "hostPort": 80}]}]}),
        );
        snapshot.place(web.clone(), "n1");
        assert_eq!(snapshot.node_count(), 0, "the node itself is not known yet");
        snapshot.set_node(node("n1", json!({}), json!({})));
        let n1 = snapshot.node("n1").unwrap();
        assert_eq!((n1.requested.cpu, n1.pod_count, n1.ports.len()), (1000, 1, 1));

        snapshot.set_node(node("n2", json!({}), json!({})));
        snapshot.place(web.clone(), "n2");
        let n1 = snapshot.node("n1").unwrap();
        assert_eq!((n1.requested.cpu, n1.pod_count, n1.ports.len(), n1.groups.len()), (0, 0, 0, 0));

        snapshot.remove_node("n1");
        assert_eq!(snapshot.node("n2").unwrap().requested.cpu, 1000, "slots move when one goes");
        snapshot.remove_node("n2");
        assert!(snapshot.remove_pod(&web.key));
        assert!(snapshot.slots().is_empty());
        assert!(!snapshot.matching(|_, _| true).contains(&true), "the group is gone");
    }
}
