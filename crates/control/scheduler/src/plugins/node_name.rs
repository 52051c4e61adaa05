//! NodeName: a pod that names its node goes nowhere else.

use crate::framework::Filter;
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;

/// The node must have the name.
pub fn filter<'a>(pod: &'a PodInfo, _snapshot: &'a Snapshot) -> Filter<'a> {
    let Some(name) = pod.node_name() else { return Filter::Pass };
    Filter::Each(Box::new(move |node| {
        if node.name == name {
            return Ok(());
        }
        Err(vec!["node(s) didn't match the requested node name".into()])
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{cluster, node, pod, verdict};

    #[test]
    fn only_the_named_node_will_do() {
        let snapshot = cluster(&[node("n1", json!({}), json!({})), node("n2", json!({}), json!({}))]);
        let pod = pod("p", json!({"nodeName": "n2"}));
        let filter = filter(&pod, &snapshot);
        assert!(verdict(&filter, &snapshot, "n1").is_err());
        assert!(verdict(&filter, &snapshot, "n2").is_ok());
    }
}
