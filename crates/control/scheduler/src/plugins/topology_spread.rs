//! PodTopologySpread: equal pods are spread over zones, hosts or whatever a label says (KEP-895, KEP-3022,
//! KEP-3094).
//!
//! A pod without constraints of its own is spread softly over zones and hosts, together with the pods of its
//! Services and its ReplicaSet.

use std::collections::HashMap;

use xebec_reconcile::Key;
use xebec_types::LabelSelector;

use super::{node_affinity, taint_toleration};
use crate::framework::{Filter, MAX_SCORE, Reasons};
use crate::node::NodeInfo;
use crate::pod::{PodInfo, Spread};
use crate::snapshot::Snapshot;

const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";
const REFUSED: &str = "node(s) didn't match pod topology spread constraints";

/// Pods counted by value of the topology label.
type Domains<'a> = HashMap<&'a str, i64>;

/// No domain may get further above the smallest one than the hard constraints allow.
pub fn filter<'a>(pod: &'a PodInfo, snapshot: &'a Snapshot) -> Filter<'a> {
    let hard: Vec<&Spread> = pod.spread.iter().filter(|c| c.hard).collect();
    if hard.is_empty() {
        return Filter::Pass;
    }
    let rules: Vec<Rule<'_>> = hard.iter().map(|c| Rule::new(c, &hard, pod, snapshot)).collect();
    Filter::Each(Box::new(move |node| rules.iter().try_for_each(|rule| rule.check(node))))
}

struct Rule<'a> {
    constraint: &'a Spread,
    domains: Domains<'a>,
    smallest: i64,
    counts_itself: i64,
}

impl<'a> Rule<'a> {
    fn new(constraint: &'a Spread, all: &[&'a Spread], pod: &PodInfo, snapshot: &'a Snapshot) -> Self {
        let matching = matching(constraint, pod, snapshot);
        let mut domains = Domains::new();
        for node in snapshot.nodes().filter(|node| has_keys(node, all)) {
            let Some(value) = node.label(&constraint.topology_key) else { continue };
            if counts(constraint, pod, node) {
                *domains.entry(value).or_insert(0) += pods(node, &matching);
            }
        }
        let smallest = match domains.values().min() {
            Some(smallest) if domains.len() >= constraint.min_domains => *smallest,
            _ => 0,
        };
        let counts_itself = i64::from(constraint.selectors.iter().all(|s| s.matches_map(&pod.labels)));
        Self { constraint, domains, smallest, counts_itself }
    }

    fn check(&self, node: &NodeInfo) -> Result<(), Reasons> {
        let Some(value) = node.label(&self.constraint.topology_key) else {
            return Err(vec![format!("{REFUSED} (missing required label)")]);
        };
        let count = self.domains.get(value).copied().unwrap_or(0);
        if count + self.counts_itself - self.smallest > self.constraint.max_skew {
            return Err(vec![REFUSED.into()]);
        }
        Ok(())
    }
}

/// Domains with fewer pods are better; constraints over more domains count more, as each domain matters less.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
pub fn score(pod: &PodInfo, snapshot: &Snapshot, nodes: &[&NodeInfo]) -> Option<Vec<i64>> {
    let own: Vec<Spread> = pod.spread.iter().filter(|c| !c.hard).cloned().collect();
    let defaulted = pod.spread.is_empty();
    let constraints = if defaulted { default_constraints(pod, snapshot) } else { own };
    if constraints.is_empty() {
        return None;
    }
    let all: Vec<&Spread> = constraints.iter().collect();
    let taking_part: Vec<bool> = nodes.iter().map(|node| defaulted || has_keys(node, &all)).collect();
    let mut raw = vec![0.0; nodes.len()];
    for constraint in &constraints {
        let matching = matching(constraint, pod, snapshot);
        let key = constraint.topology_key.as_str();
        let part = nodes.iter().zip(&taking_part).filter(|(_, part)| **part).map(|(node, _)| *node);
        let mut domains: Domains<'_> = part.clone().filter_map(|node| Some((node.label(key)?, 0))).collect();
        let size = if key == HOSTNAME { part.count() } else { domains.len() };
        let weight = (size as f64 + 2.0).ln();
        for node in snapshot.nodes().filter(|node| defaulted || has_keys(node, &all)) {
            let Some(count) = node.label(key).and_then(|value| domains.get_mut(value)) else { continue };
            if counts(constraint, pod, node) {
                *count += pods(node, &matching);
            }
        }
        for (raw, node) in raw.iter_mut().zip(nodes) {
            if let Some(count) = node.label(key).and_then(|value| domains.get(value)) {
                *raw += *count as f64 * weight + (constraint.max_skew - 1) as f64;
            }
        }
    }
    let raw: Vec<i64> = raw.into_iter().map(|raw| raw.round() as i64).collect();
    Some(fewest_first(&raw, &taking_part))
}

fn fewest_first(raw: &[i64], taking_part: &[bool]) -> Vec<i64> {
    let part = || raw.iter().zip(taking_part).filter(|(_, part)| **part).map(|(raw, _)| *raw);
    let (least, most) = (part().min().unwrap_or(0), part().max().unwrap_or(0));
    let score = |(raw, part): (&i64, &bool)| match (part, most) {
        (false, _) => 0,
        (true, 0) => MAX_SCORE,
        (true, most) => MAX_SCORE * (most + least - raw) / most,
    };
    raw.iter().zip(taking_part).map(score).collect()
}

fn default_constraints(pod: &PodInfo, snapshot: &Snapshot) -> Vec<Spread> {
    let namespace = &pod.key.namespace;
    let services = snapshot.services.get(namespace).into_iter().flat_map(HashMap::values);
    let mut selectors: Vec<LabelSelector> =
        services.filter(|s| s.matches_map(&pod.labels)).cloned().collect();
    let owners = pod.object().into_iter().flat_map(|pod| pod.metadata.owner_references.iter().flatten());
    for owner in owners.filter(|o| o.controller == Some(true) && o.kind == "ReplicaSet") {
        selectors.extend(snapshot.replica_sets.get(&Key::new(namespace, &owner.name)).cloned());
    }
    if selectors.is_empty() {
        return Vec::new();
    }
    let over = |key: &str, max_skew: i64| Spread {
        topology_key: key.to_owned(),
        max_skew,
        min_domains: 1,
        hard: false,
        selectors: selectors.clone(),
        honor_affinity: true,
        honor_taints: false,
    };
    vec![over(HOSTNAME, 3), over(ZONE, 5)]
}

fn matching(constraint: &Spread, pod: &PodInfo, snapshot: &Snapshot) -> Vec<bool> {
    snapshot.matching(|namespace, labels| {
        namespace == pod.key.namespace && constraint.selectors.iter().all(|s| s.matches_map(labels))
    })
}

fn has_keys(node: &NodeInfo, constraints: &[&Spread]) -> bool {
    constraints.iter().all(|c| node.labels.contains_key(&c.topology_key))
}

/// Whether a node's pods count for a constraint.
fn counts(constraint: &Spread, pod: &PodInfo, node: &NodeInfo) -> bool {
    (!constraint.honor_affinity || node_affinity::matches(pod, node))
        && (!constraint.honor_taints || taint_toleration::tolerates_node(pod, node))
}

/// Matching pods that stay.
fn pods(node: &NodeInfo, matching: &[bool]) -> i64 {
    node.groups.iter().filter(|(id, _)| matching[**id]).map(|(_, count)| count.staying).sum()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{cluster, labelled, node, verdict};

    /// n1 and n2 in zone a, n3 in zone b, n4 in none; pods of app web: two on n1, one on n3.
    fn zones() -> Snapshot {
        let zone = |zone: &str| json!({ZONE: zone});
        let mut snapshot = cluster(&[
            node("n1", zone("a"), json!({})),
            node("n2", zone("a"), json!({})),
            node("n3", zone("b"), json!({})),
            node("n4", json!({}), json!({})),
        ]);
        for (name, node) in [("w1", "n1"), ("w2", "n1"), ("w3", "n3")] {
            snapshot.place(labelled(name, json!({"app": "web"}), json!({})), node);
        }
        snapshot
    }

    fn web(constraint: Value) -> std::sync::Arc<PodInfo> {
        let mut constraint = constraint;
        constraint["labelSelector"] = json!({"matchLabels": {"app": "web"}});
        labelled("p", json!({"app": "web"}), json!({"topologySpreadConstraints": [constraint]}))
    }

    fn fitting(constraint: Value) -> Vec<&'static str> {
        let (snapshot, pod) = (zones(), web(constraint));
        let filter = filter(&pod, &snapshot);
        let fits = |node: &&str| verdict(&filter, &snapshot, node).is_ok();
        ["n1", "n2", "n3", "n4"].into_iter().filter(fits).collect()
    }

    #[test]
    fn hard_constraints_bound_the_skew() {
        let strict = "DoNotSchedule";
        let over =
            |key: &str, skew: i32| json!({"topologyKey": key, "maxSkew": skew, "whenUnsatisfiable": strict});
        assert_eq!(fitting(over(ZONE, 1)), ["n3"]);
        assert_eq!(fitting(over(ZONE, 2)), ["n1", "n2", "n3"]);
        assert_eq!(fitting(over(HOSTNAME, 1)), ["n2", "n4"]);
        let mut domains = over(ZONE, 2);
        domains["minDomains"] = json!(3);
        assert_eq!(fitting(domains), ["n3"], "a missing domain is an empty one");
    }

    #[test]
    fn missing_labels_are_named() {
        let snapshot = zones();
        let pod = web(json!({"topologyKey": ZONE, "maxSkew": 9, "whenUnsatisfiable": "DoNotSchedule"}));
        let reasons = verdict(&filter(&pod, &snapshot), &snapshot, "n4").unwrap_err();
        assert_eq!(reasons, [format!("{REFUSED} (missing required label)")]);
    }

    fn ranked(pod: &PodInfo, snapshot: &Snapshot) -> Vec<(String, i64)> {
        let nodes: Vec<_> = snapshot.nodes().collect();
        let scores = score(pod, snapshot, &nodes).unwrap();
        nodes.iter().map(|n| n.name.clone()).zip(scores).collect()
    }

    #[test]
    fn soft_constraints_prefer_the_emptier_domain() {
        let snapshot = zones();
        let pod = web(json!({"topologyKey": ZONE, "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway"}));
        let scores = ranked(&pod, &snapshot);
        assert!(scores[2].1 > scores[0].1 && scores[0].1 == scores[1].1, "{scores:?}");
        assert_eq!(scores[3].1, 0, "nodes without the label are last");
    }

    #[test]
    fn pods_of_a_service_are_spread_by_default() {
        let mut snapshot = zones();
        let plain = labelled("p", json!({"app": "web"}), json!({}));
        let nodes: Vec<_> = snapshot.nodes().collect();
        assert_eq!(score(&plain, &snapshot, &nodes), None);
        drop(nodes);
        let selector = LabelSelector::from_map([("app", "web")]);
        snapshot.services.entry("default".into()).or_default().insert("web".into(), selector);
        let scores = ranked(&plain, &snapshot);
        assert!(
            scores[1].1 > scores[0].1 && scores[2].1 > scores[0].1 && scores[3].1 > scores[0].1,
            "{scores:?}"
        );
    }
}
