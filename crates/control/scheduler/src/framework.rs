//! Filter, score, pick: which node a pod goes to.

use std::collections::BTreeMap;

use rand::Rng;

use crate::node::NodeInfo;
use crate::plugins::{PLUGINS, Plugin};
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;

/// The best score a plugin gives.
pub const MAX_SCORE: i64 = 100;
/// Clusters up to this many nodes are always looked at whole.
const LOOK_AT_LEAST: usize = 100;

/// Why a node is refused: upstream's words, since people and tools read them.
pub type Reasons = Vec<String>;

/// Asks about one node.
pub type Check<'a> = Box<dyn Fn(&NodeInfo) -> Result<(), Reasons> + 'a>;

/// What a plugin has to say about the nodes for one pod.
pub enum Filter<'a> {
    /// Every node is fine.
    Pass,
    /// No node is, for one reason.
    Never(String),
    /// It depends on the node.
    Each(Check<'a>),
}

/// Why a pod fits nowhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unfit {
    /// What to tell the user.
    pub message: String,
    /// Names of the plugins that refused: what must change before trying again makes sense.
    pub plugins: Vec<&'static str>,
}

/// Decides for one pod. `start` is where the walk over the nodes begins, and is moved on, so that in large
/// clusters, where a part of the nodes is enough, every node has its turn.
pub fn select(
    pod: &PodInfo,
    snapshot: &Snapshot,
    start: &mut usize,
    random: &mut impl Rng,
) -> Result<String, Unfit> {
    let feasible = feasible(pod, snapshot, start)?;
    if let [only] = feasible.as_slice() {
        return Ok(only.name.clone());
    }
    let scores = scores(pod, snapshot, &feasible);
    let best = scores.iter().copied().max().unwrap_or(0);
    let ties: Vec<usize> = (0..feasible.len()).filter(|i| scores[*i] == best).collect();
    let pick = ties[random.random_range(0..ties.len())];
    Ok(feasible[pick].name.clone())
}

fn feasible<'s>(
    pod: &PodInfo,
    snapshot: &'s Snapshot,
    start: &mut usize,
) -> Result<Vec<&'s NodeInfo>, Unfit> {
    let total = snapshot.node_count();
    if total == 0 {
        return Err(Unfit { message: "no nodes available to schedule pods".into(), plugins: Vec::new() });
    }
    let mut filters: Vec<(&Plugin, Check<'_>)> = Vec::new();
    for plugin in &PLUGINS {
        let Some(filter) = plugin.filter else { continue };
        match filter(pod, snapshot) {
            Filter::Pass => {}
            Filter::Each(check) => filters.push((plugin, check)),
            Filter::Never(reason) => {
                let message = format!("0/{total} nodes are available: {reason}.");
                return Err(Unfit { message, plugins: vec![plugin.name] });
            }
        }
    }
    let (slots, wanted) = (snapshot.slots(), enough(total));
    let (mut fit, mut refused) = (Vec::new(), Refusals::default());
    for step in 0..slots.len() {
        let node = &slots[(*start + step) % slots.len()];
        if node.node.is_none() {
            continue;
        }
        match filters.iter().find_map(|(plugin, check)| Some((*plugin, check(node).err()?))) {
            Some((plugin, reasons)) => refused.add(plugin, reasons),
            None => fit.push(node),
        }
        if fit.len() == wanted {
            *start = (*start + step + 1) % slots.len();
            break;
        }
    }
    if fit.is_empty() { Err(refused.verdict(total)) } else { Ok(fit) }
}

/// How many fitting nodes are enough to choose from: all of 100, then a falling share, never under 5% (as
/// upstream).
fn enough(total: usize) -> usize {
    if total <= LOOK_AT_LEAST {
        return total;
    }
    let share = 50usize.saturating_sub(total / 125).max(5);
    (total * share / 100).max(LOOK_AT_LEAST)
}

#[derive(Default)]
struct Refusals {
    reasons: BTreeMap<String, usize>,
    plugins: Vec<&'static str>,
}

impl Refusals {
    fn add(&mut self, plugin: &Plugin, reasons: Reasons) {
        if !self.plugins.contains(&plugin.name) {
            self.plugins.push(plugin.name);
        }
        for reason in reasons {
            *self.reasons.entry(reason).or_insert(0) += 1;
        }
    }

    fn verdict(self, total: usize) -> Unfit {
        let mut reasons: Vec<String> =
            self.reasons.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
        reasons.sort();
        let message = format!("0/{total} nodes are available: {}.", reasons.join(", "));
        Unfit { message, plugins: self.plugins }
    }
}

/// The weighted sum of all plugins' scores, one for each node of `feasible`.
pub fn scores(pod: &PodInfo, snapshot: &Snapshot, feasible: &[&NodeInfo]) -> Vec<i64> {
    let mut sums = vec![0; feasible.len()];
    for plugin in &PLUGINS {
        let Some(scores) = plugin.score.and_then(|score| score(pod, snapshot, feasible)) else { continue };
        for (sum, score) in sums.iter_mut().zip(scores) {
            *sum += score * plugin.weight;
        }
    }
    sums
}

/// Brings scores to 0..=100, the largest being 100; `reverse` makes the smallest the best.
pub fn normalize(scores: &mut [i64], reverse: bool) {
    let most = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        let scaled = if most == 0 { 0 } else { *score * MAX_SCORE / most };
        *score = if reverse { MAX_SCORE - scaled } else { scaled };
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{cluster, node, pod};

    fn choose(pod: &PodInfo, snapshot: &Snapshot) -> Result<String, Unfit> {
        select(pod, snapshot, &mut 0, &mut rand::rng())
    }

    fn asking(cpu: &str) -> serde_json::Value {
        json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]})
    }

    #[test]
    fn reasons_are_counted_in_upstreams_words() {
        let mut snapshot = cluster(&[
            node("n1", json!({}), json!({"unschedulable": true})),
            node("n2", json!({}), json!({})),
            node("n3", json!({}), json!({})),
        ]);
        let unfit = choose(&pod("p", asking("64")), &snapshot).unwrap_err();
        assert_eq!(
            unfit.message,
            "0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu."
        );
        assert_eq!(unfit.plugins, ["NodeUnschedulable", "NodeResourcesFit"]);
        for name in ["n1", "n2", "n3"] {
            snapshot.remove_node(name);
        }
        assert_eq!(
            choose(&pod("p", asking("1")), &snapshot).unwrap_err().message,
            "no nodes available to schedule pods"
        );
    }

    #[test]
    fn the_emptier_node_wins() {
        let mut snapshot = cluster(&[node("n1", json!({}), json!({})), node("n2", json!({}), json!({}))]);
        snapshot.place(pod("old", asking("2")), "n1");
        assert_eq!(choose(&pod("p", asking("1")), &snapshot).unwrap(), "n2");
    }

    #[test]
    fn equal_pods_spread_over_all_nodes() {
        let nodes: Vec<_> = (0..10).map(|i| node(&format!("n{i}"), json!({}), json!({}))).collect();
        let mut snapshot = cluster(&nodes);
        let mut start = 0;
        for i in 0..40 {
            let pod = pod(&format!("p{i}"), asking("100m"));
            let name = select(&pod, &snapshot, &mut start, &mut rand::rng()).unwrap();
            snapshot.place(pod, &name);
        }
        assert!(snapshot.nodes().all(|n| n.pod_count == 4));
    }

    #[test]
    fn large_clusters_are_looked_at_in_part() {
        assert_eq!((enough(100), enough(1000), enough(5000), enough(10_000)), (100, 420, 500, 500));
    }
}
