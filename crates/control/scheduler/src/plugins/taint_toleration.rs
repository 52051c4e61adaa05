//! TaintToleration: taints keep pods away that do not tolerate them.

use k8s_openapi::api::core::v1::{Taint, Toleration};

use crate::framework::{Filter, normalize};
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;

/// All taints with effect `NoSchedule` and `NoExecute` must be tolerated.
pub fn filter<'a>(pod: &'a PodInfo, _snapshot: &'a Snapshot) -> Filter<'a> {
    Filter::Each(Box::new(move |node| {
        if tolerates_node(pod, node) {
            return Ok(());
        }
        Err(vec!["node(s) had untolerated taint(s)".into()])
    }))
}

/// Nodes with fewer untolerated `PreferNoSchedule` taints are better.
pub fn score(pod: &PodInfo, _snapshot: &Snapshot, nodes: &[&NodeInfo]) -> Option<Vec<i64>> {
    if nodes.iter().all(|node| node.taints().is_empty()) {
        return None;
    }
    let softening: Vec<Toleration> = pod
        .tolerations()
        .iter()
        .filter(|t| matches!(t.effect.as_deref(), None | Some("" | "PreferNoSchedule")))
        .cloned()
        .collect();
    let disliked = |node: &&NodeInfo| {
        let soft = node.taints().iter().filter(|t| t.effect == "PreferNoSchedule");
        soft.filter(|taint| !tolerates(&softening, taint)).fold(0, |n, _| n + 1)
    };
    let mut scores: Vec<i64> = nodes.iter().map(disliked).collect();
    normalize(&mut scores, true);
    Some(scores)
}

/// Whether a pod may be scheduled to a node as far as taints go.
pub fn tolerates_node(pod: &PodInfo, node: &NodeInfo) -> bool {
    let hard = node.taints().iter().filter(|t| matches!(t.effect.as_str(), "NoSchedule" | "NoExecute"));
    hard.into_iter().all(|taint| tolerates(pod.tolerations(), taint))
}

/// Whether one of the tolerations covers a taint.
pub fn tolerates(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|t| covers(t, taint))
}

fn covers(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or("");
    if !effect.is_empty() && effect != taint.effect {
        return false;
    }
    let key = toleration.key.as_deref().unwrap_or("");
    if !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("") {
        "Exists" => true,
        "" | "Equal" => toleration.value.as_deref().unwrap_or("") == taint.value.as_deref().unwrap_or(""),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{cluster, node, pod, verdict};

    #[test]
    fn tolerations_cover_taints() {
        let taint = |effect: &str| json!({"taints": [{"key": "k", "value": "v", "effect": effect}]});
        let cases: [(Value, Value, bool); 9] = [
            (taint("NoSchedule"), json!([]), false),
            (taint("NoExecute"), json!([]), false),
            (taint("PreferNoSchedule"), json!([]), true),
            (taint("NoSchedule"), json!([{"operator": "Exists"}]), true),
            (taint("NoSchedule"), json!([{"key": "k", "operator": "Exists"}]), true),
            (taint("NoSchedule"), json!([{"key": "k", "value": "v"}]), true),
            (taint("NoSchedule"), json!([{"key": "k", "value": "other"}]), false),
            (taint("NoSchedule"), json!([{"key": "k", "value": "v", "effect": "NoExecute"}]), false),
            (
                taint("NoExecute"),
                json!([{"key": "k", "operator": "Equal", "value": "v", "effect": "NoExecute"}]),
                true,
            ),
        ];
        for (spec, tolerations, fits) in cases {
            let snapshot = cluster(&[node("n1", json!({}), spec.clone())]);
            let pod = pod("p", json!({"tolerations": tolerations}));
            let verdict = verdict(&filter(&pod, &snapshot), &snapshot, "n1");
            assert_eq!(verdict.is_ok(), fits, "{spec} {tolerations}");
        }
    }

    #[test]
    fn soft_taints_cost_score() {
        let soft = json!({"taints": [{"key": "k", "effect": "PreferNoSchedule"}]});
        let snapshot = cluster(&[node("n1", json!({}), soft), node("n2", json!({}), json!({}))]);
        let nodes: Vec<_> = snapshot.nodes().collect();
        assert_eq!(score(&pod("p", json!({})), &snapshot, &nodes), Some(vec![0, 100]));
        let tolerant = pod("p", json!({"tolerations": [{"operator": "Exists"}]}));
        assert_eq!(score(&tolerant, &snapshot, &nodes), Some(vec![100, 100]));
    }
}
