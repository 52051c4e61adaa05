//! NodeUnschedulable: cordoned nodes take only pods that tolerate the taint of the same meaning.

use k8s_openapi::api::core::v1::Taint;

use super::taint_toleration::tolerates;
use crate::framework::Filter;
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;

/// The node must not be cordoned, or the pod not mind.
pub fn filter<'a>(pod: &'a PodInfo, _snapshot: &'a Snapshot) -> Filter<'a> {
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".into(),
        effect: "NoSchedule".into(),
        ..Taint::default()
    };
    if tolerates(pod.tolerations(), &taint) {
        return Filter::Pass;
    }
    Filter::Each(Box::new(|node| {
        if node.unschedulable() {
            return Err(vec!["node(s) were unschedulable".into()]);
        }
        Ok(())
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{cluster, node, pod, verdict};

    #[test]
    fn cordoned_nodes_are_refused_unless_tolerated() {
        let snapshot = cluster(&[node("n1", json!({}), json!({"unschedulable": true}))]);
        let plain = pod("p", json!({}));
        assert!(verdict(&filter(&plain, &snapshot), &snapshot, "n1").is_err());
        let daemon = pod(
            "d",
            json!({"tolerations": [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]}),
        );
        assert!(verdict(&filter(&daemon, &snapshot), &snapshot, "n1").is_ok());
    }
}
