//! NodeResourcesBalancedAllocation: CPU and memory of a node should be used up alike.

use crate::framework::MAX_SCORE;
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;

/// 100 less half the difference, in percent, between the used shares of CPU and memory.
pub fn score(pod: &PodInfo, _snapshot: &Snapshot, nodes: &[&NodeInfo]) -> Option<Vec<i64>> {
    // A pod that asks for nothing changes no balance.
    if pod.requests.cpu == 0 && pod.requests.memory == 0 {
        return None;
    }
    Some(nodes.iter().map(|node| balance(pod, node)).collect())
}

#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
fn balance(pod: &PodInfo, node: &NodeInfo) -> i64 {
    let share = |has: i64, used: i64| (has > 0).then(|| (used as f64 / has as f64).min(1.0));
    let cpu = share(node.allocatable.cpu, node.requested.cpu + pod.requests.cpu);
    let memory = share(node.allocatable.memory, node.requested.memory + pod.requests.memory);
    let deviation = match (cpu, memory) {
        (Some(cpu), Some(memory)) => (cpu - memory).abs() / 2.0,
        _ => 0.0,
    };
    ((1.0 - deviation) * MAX_SCORE as f64) as i64
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{cluster, node, pod};

    #[test]
    fn even_use_scores_higher() {
        let snapshot = cluster(&[node("n1", json!({}), json!({}))]);
        let nodes: Vec<_> = snapshot.nodes().collect();
        let asking = |cpu: &str, memory: &str| {
            let requests = json!({"cpu": cpu, "memory": memory});
            pod("p", json!({"containers": [{"name": "c", "resources": {"requests": requests}}]}))
        };
        assert_eq!(score(&asking("2", "4Gi"), &snapshot, &nodes), Some(vec![100]));
        assert_eq!(score(&asking("4", "0"), &snapshot, &nodes), Some(vec![50]));
        assert_eq!(score(&pod("p", json!({})), &snapshot, &nodes), None);
    }
}
