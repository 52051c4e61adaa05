//! Facts about pods that controllers decide by.

use std::cmp::Ordering;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};

/// The condition of this type.
pub fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

/// `status.phase`; empty when it is not set.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("")
}

/// Whether the pod counts: not finished and not being deleted.
pub fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// Whether all its containers have ended for good.
pub fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether its Ready condition is true.
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|c| c.status == "True")
}

/// Since when it has been ready, if it is.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|c| c.status == "True")?;
    ready.last_transition_time.as_ref().map(|t| t.0)
}

/// Seconds until it counts as available: 0 when it does, `None` when it is not ready.
pub fn seconds_until_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Option<i64> {
    if !is_ready(pod) {
        return None;
    }
    if min_ready_seconds == 0 {
        return Some(0);
    }
    let since = ready_since(pod)?.as_second();
    Some((since + i64::from(min_ready_seconds) - now.as_second()).max(0))
}

/// The order in which a controller gives pods up: first those that matter least. `rank` is the number of sibling
/// pods on the same node (upstream's `ActivePodsWithRanks`).
pub fn deletion_order(a: (&Pod, usize), b: (&Pod, usize), now: Timestamp) -> Ordering {
    let ((a, rank_a), (b, rank_b)) = (a, b);
    let assigned = |p: &Pod| p.spec.as_ref().and_then(|s| s.node_name.as_ref()).is_some();
    let phase_rank = |p: &Pod| match phase(p) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    assigned(a)
        .cmp(&assigned(b))
        .then(phase_rank(a).cmp(&phase_rank(b)))
        .then(is_ready(a).cmp(&is_ready(b)))
        .then(deletion_cost(a).cmp(&deletion_cost(b)))
        .then(rank_b.cmp(&rank_a))
        .then_with(|| youngest(ready_since(a), ready_since(b), now))
        .then(restarts(b).cmp(&restarts(a)))
        .then_with(|| {
            let made = |p: &Pod| p.metadata.creation_timestamp.as_ref().map(|t| t.0);
            youngest(made(a), made(b), now)
        })
}

fn deletion_cost(pod: &Pod) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    let cost = annotations.and_then(|a| a.get("controller.kubernetes.io/pod-deletion-cost"));
    cost.and_then(|c| c.parse().ok()).unwrap_or(0)
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref());
    statuses.into_iter().flatten().map(|c| c.restart_count).max().unwrap_or(0)
}

/// Younger first, with ages compared by magnitude as upstream's `LogarithmicScaleDown` does, so that pods of
/// similar age tie.
fn youngest(a: Option<Timestamp>, b: Option<Timestamp>, now: Timestamp) -> Ordering {
    let magnitude = |t: Option<Timestamp>| {
        let age = t.map_or(0, |t| now.as_second() - t.as_second()).max(0);
        64 - age.unsigned_abs().leading_zeros()
    };
    magnitude(a).cmp(&magnitude(b))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    /// A pod with a name, labels `app=<app>`, a phase and a readiness.
    pub(crate) fn pod(name: &str, app: &str, phase: &str, ready: bool) -> Pod {
        let status = if ready { "True" } else { "False" };
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"), "labels": {"app": app}},
            "spec": {"nodeName": "n1", "containers": []},
            "status": {"phase": phase, "conditions": [
                {"type": "Ready", "status": status, "lastTransitionTime": "2024-01-01T00:00:00Z"}
            ]}
        }))
        .unwrap()
    }

    #[test]
    fn the_least_useful_pod_goes_first() {
        let now = Timestamp::from_second(1_704_070_000).unwrap();
        let mut unassigned = pod("unassigned", "a", "Pending", false);
        unassigned.spec.as_mut().unwrap().node_name = None;
        let mut cheap = pod("cheap", "a", "Running", true);
        cheap.metadata.annotations =
            Some([("controller.kubernetes.io/pod-deletion-cost".to_owned(), "-5".to_owned())].into());
        let mut pods = [
            pod("ready", "a", "Running", true),
            cheap,
            pod("unready", "a", "Running", false),
            pod("pending", "a", "Pending", false),
            unassigned,
        ];
        pods.sort_by(|a, b| deletion_order((a, 0), (b, 0), now));
        let order: Vec<_> = pods.iter().map(|p| p.metadata.name.clone().unwrap()).collect();
        assert_eq!(order, ["unassigned", "pending", "unready", "cheap", "ready"]);
    }

    #[test]
    fn availability_waits_for_min_ready_seconds() {
        let now = Timestamp::from_second(1_704_067_205).unwrap();
        let ready = pod("p", "a", "Running", true);
        assert_eq!(seconds_until_available(&ready, 0, now), Some(0));
        assert_eq!(seconds_until_available(&ready, 8, now), Some(3));
        assert_eq!(seconds_until_available(&pod("p", "a", "Running", false), 8, now), None);
    }
}
