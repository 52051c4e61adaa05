//! Which pods nobody else will ever delete, and what they look like when they go.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::pods;

/// Taint by which an administrator says that a node will not come back soon (KEP-2268).
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// The node that the pod is bound to, if any.
pub fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

/// Whether the pod is on its way out and no kubelet will ever see it: it was never scheduled.
pub fn ends_unscheduled(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some() && node_of(pod).is_none()
}

/// Whether the pod is on its way out and its node is out of service: its kubelet will not finish it.
pub fn ends_out_of_service(pod: &Pod, node: &Node) -> bool {
    pod.metadata.deletion_timestamp.is_some() && is_out_of_service(node)
}

/// Whether a node is not ready and was declared out of service.
pub fn is_out_of_service(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True");
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    !ready && taints.into_iter().any(|taint| taint.key == OUT_OF_SERVICE)
}

/// The ended pods beyond `threshold`: evicted ones first, as no controller waits for them, then the oldest.
pub fn surplus(mut ended: Vec<Arc<Pod>>, threshold: usize) -> Vec<Arc<Pod>> {
    ended.retain(|pod| pods::is_terminal(pod));
    let excess = ended.len().saturating_sub(threshold);
    if excess == 0 {
        return Vec::new();
    }
    ended.sort_by_cached_key(|pod| {
        let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (!is_evicted(pod), created, pod.name_any())
    });
    ended.truncate(excess);
    ended
}

/// The condition of a pod whose node is gone (KEP-3329).
pub fn orphaned(pod: &Pod, now: Timestamp) -> PodCondition {
    PodCondition {
        type_: "DisruptionTarget".into(),
        status: "True".into(),
        reason: Some("DeletionByPodGC".into()),
        message: Some("PodGC: node no longer exists".into()),
        last_transition_time: Some(Time(Timestamp::from_second(now.as_second()).unwrap_or(now))),
        observed_generation: pod.metadata.generation,
        ..PodCondition::default()
    }
}

/// A strategic merge patch of the status of a pod that has not ended: no kubelet is there to say that it failed.
/// `None` if it has ended.
pub fn failed(pod: &Pod, condition: Option<PodCondition>) -> Option<Value> {
    if pods::is_terminal(pod) {
        return None;
    }
    let mut status = json!({"phase": "Failed", "observedGeneration": pod.metadata.generation});
    if let Some(mut condition) = condition {
        let before = pods::condition(pod, &condition.type_).filter(|old| old.status == condition.status);
        if let Some(since) = before.and_then(|old| old.last_transition_time.clone()) {
            condition.last_transition_time = Some(since);
        }
        status["conditions"] = json!([condition]);
    }
    // The uid keeps the patch from a namesake.
    Some(json!({"metadata": {"uid": pod.metadata.uid}, "status": status}))
}

fn is_evicted(pod: &Pod) -> bool {
    let reason = pod.status.as_ref().and_then(|status| status.reason.as_deref());
    pods::phase(pod) == "Failed" && reason == Some("Evicted")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::pods::tests::pod;

    fn node(ready: &str, taint: &str) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "n1"},
            "spec": {"taints": [{"key": taint, "effect": "NoExecute"}]},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }))
        .unwrap()
    }

    fn deleted(mut pod: Pod) -> Pod {
        pod.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        pod
    }

    #[test]
    fn pods_that_end_unscheduled_are_nobodys() {
        let mut unscheduled = pod("p", "a", "Pending", false);
        unscheduled.spec.as_mut().unwrap().node_name = None;
        assert!(!ends_unscheduled(&unscheduled));
        assert!(ends_unscheduled(&deleted(unscheduled)));
        assert!(!ends_unscheduled(&deleted(pod("p", "a", "Pending", false))), "its kubelet ends it");
    }

    #[test]
    fn a_node_out_of_service_finishes_nothing() {
        let gone = deleted(pod("p", "a", "Running", true));
        for (ready, taint, ends) in [
            ("False", OUT_OF_SERVICE, true),
            ("Unknown", OUT_OF_SERVICE, true),
            ("True", OUT_OF_SERVICE, false),
            ("False", "node.kubernetes.io/not-ready", false),
        ] {
            assert_eq!(ends_out_of_service(&gone, &node(ready, taint)), ends, "{ready} {taint}");
        }
        let stays = pod("p", "a", "Running", true);
        assert!(!ends_out_of_service(&stays, &node("False", OUT_OF_SERVICE)));
    }

    #[test]
    fn ended_pods_beyond_the_threshold_go_evicted_and_oldest_first() {
        let made = |name: &str, phase: &str, reason: Option<&str>, second: i64| {
            let mut pod = pod(name, "a", phase, false);
            pod.status.as_mut().unwrap().reason = reason.map(str::to_owned);
            pod.metadata.creation_timestamp = Some(Time(Timestamp::from_second(second).unwrap()));
            Arc::new(pod)
        };
        let all = vec![
            made("young", "Succeeded", None, 30),
            made("running", "Running", None, 1),
            made("b-old", "Failed", None, 10),
            made("a-old", "Succeeded", None, 10),
            made("evicted", "Failed", Some("Evicted"), 40),
        ];
        let names = |threshold| -> Vec<String> {
            surplus(all.clone(), threshold).iter().map(|pod| pod.name_any()).collect()
        };
        assert_eq!(names(0), ["evicted", "a-old", "b-old", "young"]);
        assert_eq!(names(2), ["evicted", "a-old"]);
        assert!(names(4).is_empty());
    }

    #[test]
    fn a_pod_of_a_missing_node_fails_before_it_goes() {
        let now = Timestamp::from_second(1_704_067_205).unwrap();
        let mut running = pod("p", "a", "Running", true);
        running.metadata.generation = Some(3);
        let patch = failed(&running, Some(orphaned(&running, now))).unwrap();
        let expected = json!({
            "metadata": {"uid": "uid-p"},
            "status": {"phase": "Failed", "observedGeneration": 3, "conditions": [{
                "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
                "message": "PodGC: node no longer exists", "observedGeneration": 3,
                "lastTransitionTime": "2024-01-01T00:00:05Z",
            }]},
        });
        assert_eq!(patch, expected);
        assert_eq!(failed(&pod("p", "a", "Succeeded", false), None), None, "it has ended by itself");

        running.status.as_mut().unwrap().conditions.as_mut().unwrap().push(PodCondition {
            type_: "DisruptionTarget".into(),
            status: "True".into(),
            last_transition_time: Some(Time(Timestamp::from_second(7).unwrap())),
            ..PodCondition::default()
        });
        let patch = failed(&running, Some(orphaned(&running, now))).unwrap();
        let since = &patch["status"]["conditions"][0]["lastTransitionTime"];
        assert_eq!(since, "1970-01-01T00:00:07Z", "it was a target before");
    }
}
