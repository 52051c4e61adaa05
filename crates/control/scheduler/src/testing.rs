//! Objects for tests.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use crate::framework::{Filter, Reasons};
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;

/// A node with 4 cores, 8 GiB and room for 110 pods.
pub fn node(name: &str, labels: Value, spec: Value) -> Arc<Node> {
    let mut labels = labels;
    labels["kubernetes.io/hostname"] = json!(name);
    let node = json!({
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "ephemeral-storage": "100Gi", "pods": "110"}}
    });
    Arc::new(serde_json::from_value(node).expect("a node"))
}

/// A pod in `default` without labels.
pub fn pod(name: &str, spec: Value) -> Arc<PodInfo> {
    labelled(name, json!({}), spec)
}

/// A pod in `default` with labels; containers may be left out.
pub fn labelled(name: &str, labels: Value, spec: Value) -> Arc<PodInfo> {
    let mut spec = spec;
    if spec.get("containers").is_none() {
        spec["containers"] = json!([{"name": "c"}]);
    }
    let pod = json!({
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"), "labels": labels},
        "spec": spec
    });
    Arc::new(PodInfo::new(Arc::new(serde_json::from_value(pod).expect("a pod"))))
}

/// A cluster of these nodes.
pub fn cluster(nodes: &[Arc<Node>]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for node in nodes {
        snapshot.set_node(node.clone());
    }
    snapshot
}

/// What a filter says about one node.
pub fn verdict(filter: &Filter<'_>, snapshot: &Snapshot, node: &str) -> Result<(), Reasons> {
    match filter {
        Filter::Pass => Ok(()),
        Filter::Never(reason) => Err(vec![reason.clone()]),
        Filter::Each(check) => check(snapshot.node(node).expect("a node of this name")),
    }
}
