//! NodeResourcesFit: what a pod asks for must be there; nodes with more left are better (`LeastAllocated`).

use crate::framework::{Filter, MAX_SCORE, Reasons};
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;

/// All requested amounts must be left on the node.
pub fn filter<'a>(pod: &'a PodInfo, _snapshot: &'a Snapshot) -> Filter<'a> {
    Filter::Each(Box::new(move |node| {
        let missing = missing(pod, node);
        if missing.is_empty() { Ok(()) } else { Err(missing) }
    }))
}

fn missing(pod: &PodInfo, node: &NodeInfo) -> Reasons {
    let mut missing = Vec::new();
    if node.pod_count + 1 > node.allowed_pods {
        missing.push("Too many pods".to_owned());
    }
    let (asked, has, used) = (&pod.requests, &node.allocatable, &node.requested);
    let mut check = |name: &str, asked: i64, left: i64| {
        if asked > 0 && asked > left {
            missing.push(format!("Insufficient {name}"));
        }
    };
    check("cpu", asked.cpu, has.cpu - used.cpu);
    check("memory", asked.memory, has.memory - used.memory);
    check("ephemeral-storage", asked.ephemeral, has.ephemeral - used.ephemeral);
    for (name, amount) in &asked.others {
        let of = |list: &crate::resources::Resources| list.others.get(name).copied().unwrap_or(0);
        check(name, *amount, of(has) - of(used));
    }
    missing
}

/// The average share of CPU and memory that would be left.
pub fn score(pod: &PodInfo, _snapshot: &Snapshot, nodes: &[&NodeInfo]) -> Option<Vec<i64>> {
    Some(nodes.iter().map(|node| left(pod, node)).collect())
}

fn left(pod: &PodInfo, node: &NodeInfo) -> i64 {
    let resources = [
        (node.allocatable.cpu, node.weight.cpu + pod.weight.cpu),
        (node.allocatable.memory, node.weight.memory + pod.weight.memory),
    ];
    let (mut sum, mut count) = (0, 0);
    for (has, used) in resources.into_iter().filter(|(has, _)| *has > 0) {
        sum += (has - used).max(0).saturating_mul(MAX_SCORE) / has;
        count += 1;
    }
    if count == 0 { 0 } else { sum / count }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{cluster, node, pod, verdict};

    fn asking(requests: Value) -> Value {
        json!({"containers": [{"name": "c", "resources": {"requests": requests}}]})
    }

    #[test]
    fn what_is_missing_is_named() {
        let mut snapshot = cluster(&[node("n1", json!({}), json!({}))]);
        snapshot.place(pod("old", asking(json!({"cpu": "3", "memory": "1Gi"}))), "n1");
        let cases = [
            (json!({"cpu": "1"}), ""),
            (json!({"cpu": "1001m"}), "Insufficient cpu"),
            (json!({"cpu": "2", "memory": "8Gi"}), "Insufficient cpu, Insufficient memory"),
            (json!({"ephemeral-storage": "101Gi"}), "Insufficient ephemeral-storage"),
            (json!({"example.com/gpu": "1"}), "Insufficient example.com/gpu"),
            (json!({"example.com/gpu": "0"}), ""),
        ];
        for (requests, wanted) in cases {
            let pod = pod("p", asking(requests));
            let reasons = verdict(&filter(&pod, &snapshot), &snapshot, "n1").err().unwrap_or_default();
            assert_eq!(reasons.join(", "), wanted);
        }
    }

    #[test]
    fn the_number_of_pods_is_bounded() {
        let mut snapshot = cluster(&[node("n1", json!({}), json!({}))]);
        for i in 0..110 {
            snapshot.place(pod(&format!("p{i}"), json!({})), "n1");
        }
        let one_more = pod("p", json!({}));
        let reasons = verdict(&filter(&one_more, &snapshot), &snapshot, "n1").err();
        assert_eq!(reasons, Some(vec!["Too many pods".to_owned()]));
    }

    #[test]
    fn emptier_nodes_score_higher() {
        let mut snapshot = cluster(&[node("n1", json!({}), json!({})), node("n2", json!({}), json!({}))]);
        snapshot.place(pod("old", asking(json!({"cpu": "2", "memory": "4Gi"}))), "n1");
        let nodes: Vec<_> = snapshot.nodes().collect();
        let new = pod("p", asking(json!({"cpu": "1", "memory": "2Gi"})));
        assert_eq!(score(&new, &snapshot, &nodes), Some(vec![25, 75]));
    }
}
