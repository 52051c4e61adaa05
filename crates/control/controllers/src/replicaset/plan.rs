//! Which pods a ReplicaSet claims, lacks and has too many of.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use xebec_types::LabelSelector;

use crate::owners::{Claim, claim};
use crate::pods;

/// What to do for one ReplicaSet.
#[derive(Debug, Default)]
pub struct Plan {
    /// Pods that are its own, those to adopt included.
    pub owned: Vec<Arc<Pod>>,
    /// Pods to adopt.
    pub adopt: Vec<Arc<Pod>>,
    /// Pods to release.
    pub release: Vec<Arc<Pod>>,
    /// How many pods are missing.
    pub create: usize,
    /// Pods that are too many, the least useful first.
    pub delete: Vec<Arc<Pod>>,
}

/// The set's selector; one that cannot be read matches nothing.
pub fn selector(set: &ReplicaSet) -> LabelSelector {
    let selector = set.spec.as_ref().map(|spec| &spec.selector);
    selector.and_then(|s| LabelSelector::from_structured(s).ok()).unwrap_or_else(LabelSelector::nothing)
}

/// Replicas asked for.
pub fn wanted(set: &ReplicaSet) -> usize {
    let replicas = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    usize::try_from(replicas).unwrap_or(0)
}

/// Plans from the pods that the set has or may claim.
pub fn plan(set: &ReplicaSet, pods: &[Arc<Pod>], now: Timestamp) -> Plan {
    let selector = selector(set);
    let mut plan = Plan::default();
    for pod in pods {
        match claim(&set.metadata, &selector, &pod.metadata) {
            Claim::Mine => plan.owned.push(pod.clone()),
            Claim::Adopt if pods::is_active(pod) => {
                plan.adopt.push(pod.clone());
                plan.owned.push(pod.clone());
            }
            Claim::Release => plan.release.push(pod.clone()),
            Claim::Adopt | Claim::Foreign => {}
        }
    }
    let mut active: Vec<Arc<Pod>> = plan.owned.iter().filter(|pod| pods::is_active(pod)).cloned().collect();
    let wanted = wanted(set);
    plan.create = wanted.saturating_sub(active.len());
    if active.len() > wanted {
        let ranks = ranks(&active);
        let rank = |pod: &Pod| ranks.get(node_of(pod)).copied().unwrap_or(0);
        active.sort_by(|a, b| pods::deletion_order((a, rank(a)), (b, rank(b)), now));
        active.truncate(active.len() - wanted);
        plan.delete = active;
    }
    plan
}

fn node_of(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or("")
}

/// Pods of the set per node: where there are more, one is missed less.
fn ranks(pods: &[Arc<Pod>]) -> HashMap<String, usize> {
    let mut ranks = HashMap::new();
    for pod in pods {
        *ranks.entry(node_of(pod).to_owned()).or_insert(0) += 1;
    }
    ranks
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;
    use crate::pods::tests::pod;

    pub(crate) fn set(replicas: i32) -> ReplicaSet {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "rs", "generation": 2},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}}
            }
        }))
        .unwrap()
    }

    pub(crate) fn owned(name: &str, ready: bool) -> Arc<Pod> {
        let mut pod = pod(name, "web", "Running", ready);
        let reference =
            json!([{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"web","uid":"rs","controller":true}]);
        pod.metadata.owner_references = serde_json::from_value(reference).unwrap();
        Arc::new(pod)
    }

    #[test]
    fn missing_pods_are_created_and_surplus_goes() {
        let now = Timestamp::now();
        let pods = [owned("a", true), owned("b", false), owned("c", true)];
        assert_eq!(plan(&set(5), &pods, now).create, 2);
        let plan = plan(&set(2), &pods, now);
        assert_eq!((plan.create, plan.delete.len()), (0, 1));
        assert_eq!(plan.delete[0].metadata.name.as_deref(), Some("b"), "the one that is not ready");
    }

    #[test]
    fn finished_pods_are_replaced() {
        let mut done = pod("a", "web", "Failed", false);
        done.metadata.owner_references = owned("x", true).metadata.owner_references.clone();
        assert_eq!(plan(&set(1), &[Arc::new(done)], Timestamp::now()).create, 1);
    }

    #[test]
    fn orphans_are_adopted_before_pods_are_created() {
        let plan = plan(&set(2), &[Arc::new(pod("a", "web", "Running", true))], Timestamp::now());
        assert_eq!((plan.adopt.len(), plan.create), (1, 1));
    }
}
