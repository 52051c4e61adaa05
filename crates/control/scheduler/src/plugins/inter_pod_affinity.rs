//! InterPodAffinity: pods that want to be near other pods, or away from them; the others' wishes count too.

use std::collections::HashMap;

use crate::framework::{Filter, MAX_SCORE, Reasons};
use crate::node::{Labels, NodeInfo};
use crate::pod::{PodInfo, Term};
use crate::snapshot::Snapshot;

/// What a required affinity of a pod that is there counts with in scores.
const REQUIRED_WEIGHT: i64 = 1;

/// Counts by label key and value.
type Topology<'a> = HashMap<(&'a str, &'a str), i64>;

/// Required affinity and anti-affinity of the pod, and required anti-affinity of the pods that are there.
pub fn filter<'a>(pod: &'a PodInfo, snapshot: &'a Snapshot) -> Filter<'a> {
    let repelled = repelled(pod, snapshot);
    if repelled.is_empty() && pod.affinity.is_empty() && pod.anti_affinity.is_empty() {
        return Filter::Pass;
    }
    let mut near = Topology::new();
    if !pod.affinity.is_empty() {
        let all =
            matching(snapshot, |ns, nsl, labels| pod.affinity.iter().all(|t| t.matches(ns, nsl, labels)));
        for term in &pod.affinity {
            count(&mut near, snapshot, term, &all, 1);
        }
    }
    let mut apart = Topology::new();
    for term in &pod.anti_affinity {
        let some = matching(snapshot, |ns, nsl, labels| term.matches(ns, nsl, labels));
        count(&mut apart, snapshot, term, &some, 1);
    }
    // The first of a group of pods that want to be together has nobody to be near to.
    let first = near.is_empty() && {
        let namespace = snapshot.namespaces.get(&pod.key.namespace);
        pod.affinity.iter().all(|t| t.matches(&pod.key.namespace, namespace, &pod.labels))
    };
    Filter::Each(Box::new(move |node| check(pod, node, first, &near, &apart, &repelled)))
}

fn check(
    pod: &PodInfo,
    node: &NodeInfo,
    first: bool,
    near: &Topology<'_>,
    apart: &Topology<'_>,
    repelled: &Topology<'_>,
) -> Result<(), Reasons> {
    let near_enough = |term: &Term| {
        node.label(&term.topology_key)
            .is_some_and(|value| first || near.contains_key(&(term.topology_key.as_str(), value)))
    };
    if !pod.affinity.iter().all(near_enough) {
        return Err(vec!["node(s) didn't match pod affinity rules".into()]);
    }
    let too_near = |term: &Term| {
        node.label(&term.topology_key)
            .is_some_and(|value| apart.contains_key(&(term.topology_key.as_str(), value)))
    };
    if pod.anti_affinity.iter().any(too_near) {
        return Err(vec!["node(s) didn't match pod anti-affinity rules".into()]);
    }
    if repelled.keys().any(|(key, value)| node.label(key) == Some(value)) {
        return Err(vec!["node(s) didn't satisfy existing pods anti-affinity rules".into()]);
    }
    Ok(())
}

/// Where pods are that do not want this one near.
fn repelled<'a>(pod: &PodInfo, snapshot: &'a Snapshot) -> Topology<'a> {
    let mut repelled = Topology::new();
    for (node, other) in with_terms(snapshot) {
        for term in &other.anti_affinity {
            if let Some(value) = node.label(&term.topology_key)
                && means(term, pod, snapshot)
            {
                repelled.insert((&term.topology_key, value), 1);
            }
        }
    }
    repelled
}

/// Preferences of the pod about the pods that are there, and theirs about the pod.
pub fn score(pod: &PodInfo, snapshot: &Snapshot, nodes: &[&NodeInfo]) -> Option<Vec<i64>> {
    let mut sums = Topology::new();
    for preferred in &pod.preferred {
        let term = &preferred.term;
        let some = matching(snapshot, |ns, nsl, labels| term.matches(ns, nsl, labels));
        count(&mut sums, snapshot, term, &some, preferred.weight);
    }
    for (node, other) in with_terms(snapshot) {
        let required = other.affinity.iter().map(|term| (term, REQUIRED_WEIGHT));
        let preferred = other.preferred.iter().map(|p| (&p.term, p.weight));
        for (term, weight) in required.chain(preferred) {
            if let Some(value) = node.label(&term.topology_key)
                && means(term, pod, snapshot)
            {
                *sums.entry((&term.topology_key, value)).or_insert(0) += weight;
            }
        }
    }
    if sums.is_empty() {
        return None;
    }
    let keys: std::collections::BTreeSet<&str> = sums.keys().map(|(key, _)| *key).collect();
    let sum = |node: &&NodeInfo| {
        keys.iter().filter_map(|key| Some(sums.get(&(*key, node.label(key)?)).copied().unwrap_or(0))).sum()
    };
    let raw: Vec<i64> = nodes.iter().map(sum).collect();
    let (least, most) = (raw.iter().min().copied()?, raw.iter().max().copied()?);
    let span = most - least;
    Some(raw.iter().map(|raw| if span == 0 { 0 } else { MAX_SCORE * (raw - least) / span }).collect())
}

fn with_terms(snapshot: &Snapshot) -> impl Iterator<Item = (&NodeInfo, &PodInfo)> {
    snapshot.nodes().flat_map(|node| node.with_terms.iter().map(move |pod| (node, pod.as_ref())))
}

fn means(term: &Term, pod: &PodInfo, snapshot: &Snapshot) -> bool {
    let namespace = &pod.key.namespace;
    term.matches(namespace, snapshot.namespaces.get(namespace), &pod.labels)
}

fn matching(snapshot: &Snapshot, wanted: impl Fn(&str, Option<&Labels>, &Labels) -> bool) -> Vec<bool> {
    snapshot.matching(|namespace, labels| wanted(namespace, snapshot.namespaces.get(namespace), labels))
}

/// Adds `weight` for every matching pod to the domain it is in.
fn count<'a>(
    sums: &mut Topology<'a>,
    snapshot: &'a Snapshot,
    term: &'a Term,
    matching: &[bool],
    weight: i64,
) {
    for node in snapshot.nodes() {
        let Some(value) = node.label(&term.topology_key) else { continue };
        let pods: i64 = node.groups.iter().filter(|(id, _)| matching[**id]).map(|(_, n)| n.all).sum();
        if pods > 0 {
            *sums.entry((&term.topology_key, value)).or_insert(0) += pods * weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{cluster, labelled, node, verdict};

    const ZONE: &str = "topology.kubernetes.io/zone";

    /// n1 and n2 in zone a, n3 in zone b; a pod of app db on n1.
    fn zones(db: Value) -> Snapshot {
        let zone = |zone: &str| json!({ZONE: zone});
        let mut snapshot = cluster(&[
            node("n1", zone("a"), json!({})),
            node("n2", zone("a"), json!({})),
            node("n3", zone("b"), json!({})),
        ]);
        snapshot.namespaces.insert("default".into(), [("team".to_owned(), "x".to_owned())].into());
        snapshot.place(labelled("db", json!({"app": "db"}), db), "n1");
        snapshot
    }

    fn term(app: &str) -> Value {
        json!({"topologyKey": ZONE, "labelSelector": {"matchLabels": {"app": app}}})
    }

    fn required(kind: &str, term: &Value) -> Value {
        json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}})
    }

    fn preferred(kind: &str, term: &Value) -> Value {
        let weighted = json!([{"weight": 10, "podAffinityTerm": term}]);
        json!({"affinity": {kind: {"preferredDuringSchedulingIgnoredDuringExecution": weighted}}})
    }

    fn fitting(snapshot: &Snapshot, app: &str, spec: Value) -> Vec<&'static str> {
        let pod = labelled("p", json!({"app": app}), spec);
        let filter = filter(&pod, snapshot);
        ["n1", "n2", "n3"].into_iter().filter(|n| verdict(&filter, snapshot, n).is_ok()).collect()
    }

    #[test]
    fn required_terms_hold_in_both_directions() {
        let plain = zones(json!({}));
        assert_eq!(fitting(&plain, "web", required("podAffinity", &term("db"))), ["n1", "n2"]);
        assert_eq!(fitting(&plain, "web", required("podAntiAffinity", &term("db"))), ["n3"]);
        assert!(fitting(&plain, "web", required("podAffinity", &term("cache"))).is_empty());
        assert_eq!(fitting(&plain, "cache", required("podAffinity", &term("cache"))), ["n1", "n2", "n3"]);
        let lonely = zones(required("podAntiAffinity", &term("web")));
        assert_eq!(fitting(&lonely, "web", json!({})), ["n3"]);
        assert_eq!(fitting(&lonely, "other", json!({})), ["n1", "n2", "n3"]);
    }

    #[test]
    fn namespaces_are_selected_by_name_and_label() {
        let plain = zones(json!({}));
        let with = |key: &str, value: Value| {
            let mut term = term("db");
            term[key] = value;
            fitting(&plain, "web", required("podAntiAffinity", &term)).len()
        };
        assert_eq!(with("namespaces", json!(["default"])), 1);
        assert_eq!(with("namespaces", json!(["other"])), 3);
        assert_eq!(with("namespaceSelector", json!({})), 1);
        assert_eq!(with("namespaceSelector", json!({"matchLabels": {"team": "x"}})), 1);
        assert_eq!(with("namespaceSelector", json!({"matchLabels": {"team": "y"}})), 3);
    }

    #[test]
    fn preferences_move_scores_in_both_directions() {
        let scores = |snapshot: &Snapshot, spec: Value| {
            let pod = labelled("p", json!({"app": "web"}), spec);
            score(&pod, snapshot, &snapshot.nodes().collect::<Vec<_>>())
        };
        let plain = zones(json!({}));
        assert_eq!(scores(&plain, json!({})), None);
        assert_eq!(scores(&plain, preferred("podAffinity", &term("db"))), Some(vec![100, 100, 0]));
        assert_eq!(scores(&plain, preferred("podAntiAffinity", &term("db"))), Some(vec![0, 0, 100]));
        let drawn = zones(preferred("podAffinity", &term("web")));
        assert_eq!(scores(&drawn, json!({})), Some(vec![100, 100, 0]));
    }
}
