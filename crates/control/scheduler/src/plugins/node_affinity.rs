//! NodeAffinity: `nodeSelector` and node affinity, required and preferred.

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};

use crate::framework::{Filter, normalize};
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;

/// The node must match `nodeSelector` and one of the required terms.
pub fn filter<'a>(pod: &'a PodInfo, _snapshot: &'a Snapshot) -> Filter<'a> {
    if !is_choosy(pod) {
        return Filter::Pass;
    }
    Filter::Each(Box::new(move |node| {
        if matches(pod, node) {
            return Ok(());
        }
        Err(vec!["node(s) didn't match Pod's node affinity/selector".into()])
    }))
}

/// The sum of the weights of the preferred terms that match.
pub fn score(pod: &PodInfo, _snapshot: &Snapshot, nodes: &[&NodeInfo]) -> Option<Vec<i64>> {
    let preferred = pod.preferred_nodes();
    if preferred.is_empty() {
        return None;
    }
    let sum = |node: &&NodeInfo| {
        let matching = preferred.iter().filter(|p| term_matches(&p.preference, node));
        matching.map(|p| i64::from(p.weight)).sum()
    };
    let mut scores: Vec<i64> = nodes.iter().map(sum).collect();
    normalize(&mut scores, false);
    Some(scores)
}

fn is_choosy(pod: &PodInfo) -> bool {
    let selector = pod.spec().and_then(|s| s.node_selector.as_ref());
    selector.is_some_and(|s| !s.is_empty()) || pod.node_terms().is_some()
}

/// Whether a node is one that the pod asks for.
pub fn matches(pod: &PodInfo, node: &NodeInfo) -> bool {
    let selector = pod.spec().and_then(|s| s.node_selector.as_ref());
    let selected = selector.into_iter().flatten().all(|(key, value)| node.labels.get(key) == Some(value));
    selected && pod.node_terms().is_none_or(|terms| terms.iter().any(|term| term_matches(term, node)))
}

/// A term without any requirement matches nothing.
fn term_matches(term: &NodeSelectorTerm, node: &NodeInfo) -> bool {
    let labels = term.match_expressions.as_deref().unwrap_or(&[]);
    let fields = term.match_fields.as_deref().unwrap_or(&[]);
    if labels.is_empty() && fields.is_empty() {
        return false;
    }
    labels.iter().all(|r| holds(r, node.label(&r.key)))
        && fields.iter().all(|r| r.key == "metadata.name" && holds(r, Some(&node.name)))
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or(&[]);
    let among = |value: &str| values.iter().any(|v| v == value);
    let numbers = || {
        let [bound] = values else { return None };
        Some((value?.parse::<i64>().ok()?, bound.parse::<i64>().ok()?))
    };
    match requirement.operator.as_str() {
        "In" => value.is_some_and(among),
        "NotIn" => !value.is_some_and(among),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers().is_some_and(|(value, bound)| value > bound),
        "Lt" => numbers().is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{cluster, node, pod, verdict};

    fn required(terms: Value) -> Value {
        let required = json!({"nodeSelectorTerms": terms});
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}})
    }

    #[test]
    fn nodes_are_asked_for_by_label_and_name() {
        let snapshot = cluster(&[node("n1", json!({"disk": "ssd", "cores": "8"}), json!({}))]);
        let label = |key: &str, operator: &str, values: Value| {
            required(json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]))
        };
        let name = |name: &str| {
            required(json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}]))
        };
        let cases = [
            (json!({"nodeSelector": {"disk": "ssd"}}), true),
            (json!({"nodeSelector": {"disk": "ssd", "zone": "a"}}), false),
            (label("disk", "In", json!(["hdd", "ssd"])), true),
            (label("disk", "NotIn", json!(["ssd"])), false),
            (label("zone", "NotIn", json!(["a"])), true),
            (label("disk", "Exists", json!([])), true),
            (label("zone", "DoesNotExist", json!([])), true),
            (label("cores", "Gt", json!(["7"])), true),
            (label("cores", "Lt", json!(["8"])), false),
            (label("disk", "Gt", json!(["1"])), false),
            (name("n1"), true),
            (name("n2"), false),
            (required(json!([{}])), false),
            (required(json!([{}, {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}])), true),
        ];
        for (spec, fits) in cases {
            let pod = pod("p", spec.clone());
            assert_eq!(verdict(&filter(&pod, &snapshot), &snapshot, "n1").is_ok(), fits, "{spec}");
        }
    }

    #[test]
    fn preferences_are_weighed() {
        let snapshot = cluster(&[
            node("n1", json!({"a": "1"}), json!({})),
            node("n2", json!({"a": "1", "b": "1"}), json!({})),
            node("n3", json!({}), json!({})),
        ]);
        let nodes: Vec<_> = snapshot.nodes().collect();
        let prefer = |key: &str, weight: i32| {
            let exists = json!([{"key": key, "operator": "Exists"}]);
            json!({"weight": weight, "preference": {"matchExpressions": exists}})
        };
        let spec = json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution":
            [prefer("a", 10), prefer("b", 30)]}}});
        assert_eq!(score(&pod("p", spec), &snapshot, &nodes), Some(vec![25, 100, 0]));
    }
}
