//! ImageLocality: nodes that have the pod's images are better, the more so the larger the images.

use crate::framework::MAX_SCORE;
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;

const MEGABYTE: i64 = 1024 * 1024;
/// Bytes below which having the images is worth nothing.
const LEAST: i64 = 23 * MEGABYTE;
/// Bytes per container above which more is worth no more.
const MOST: i64 = 1000 * MEGABYTE;

/// Sizes count in proportion to the share of nodes that have the image, so that not all pods run to the one
/// that has it.
pub fn score(pod: &PodInfo, snapshot: &Snapshot, nodes: &[&NodeInfo]) -> Option<Vec<i64>> {
    if pod.images.iter().all(|image| snapshot.nodes_with_image(image) == 0) {
        return None;
    }
    let total = i64::try_from(snapshot.node_count()).unwrap_or(i64::MAX).max(1);
    let containers = i64::try_from(pod.images.len()).unwrap_or(i64::MAX);
    let most = MOST.saturating_mul(containers);
    let score = |node: &&NodeInfo| {
        let sizes = pod.images.iter().filter_map(|image| {
            let size = node.images.get(image)?;
            Some(size.saturating_mul(snapshot.nodes_with_image(image)) / total)
        });
        let sum = sizes.sum::<i64>().clamp(LEAST, most);
        MAX_SCORE.saturating_mul(sum - LEAST) / (most - LEAST)
    };
    Some(nodes.iter().map(score).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::testing::{cluster, node, pod};

    #[test]
    fn having_the_image_helps() {
        let mut with = Arc::unwrap_or_clone(node("n1", json!({}), json!({})));
        with.status.as_mut().unwrap().images = serde_json::from_value(
            json!([{"names": ["registry/big:latest", "registry/big@sha256:1"], "sizeBytes": 2000 * MEGABYTE}]),
        )
        .unwrap();
        let snapshot = cluster(&[Arc::new(with), node("n2", json!({}), json!({}))]);
        let nodes: Vec<_> = snapshot.nodes().collect();
        let image = |image: &str| pod("p", json!({"containers": [{"name": "c", "image": image}]}));
        assert_eq!(score(&image("registry/big"), &snapshot, &nodes), Some(vec![100, 0]));
        assert_eq!(score(&image("registry:5000/other"), &snapshot, &nodes), None);
    }
}
