//! Whether a node is alive, and what its pods are told.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// How long a node may be silent (upstream's `--node-monitor-grace-period`).
const GRACE_SECONDS: i64 = 50;
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions that become taints, with the status that means trouble.
const PRESSURE: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];

/// What is known of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It reports and is ready.
    Ready,
    /// It reports and is not ready.
    NotReady,
    /// It has not reported for too long.
    Silent,
}

fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

/// Whether the node's own report says ready.
pub fn says_ready(node: &Node) -> bool {
    condition(node, "Ready").is_some_and(|c| c.status == "True")
}

/// Judges a node by its last sign of life, and tells after which time it must be judged again.
pub fn judge(node: &Node, lease: Option<&Lease>, now: Timestamp) -> (Health, Option<Duration>) {
    let renewed = lease.and_then(|l| l.spec.as_ref()).and_then(|s| s.renew_time.as_ref()).map(|t| t.0);
    let heartbeat = condition(node, "Ready").and_then(|c| c.last_heartbeat_time.as_ref()).map(|t| t.0);
    let created = node.metadata.creation_timestamp.as_ref().map(|t| t.0);
    let last = [renewed, heartbeat, created].into_iter().flatten().max().unwrap_or(now);
    let left = last.as_second() + GRACE_SECONDS - now.as_second();
    if left <= 0 {
        return (Health::Silent, None);
    }
    let health = if says_ready(node) { Health::Ready } else { Health::NotReady };
    (health, u64::try_from(left).ok().map(|s| Duration::from_secs(s + 1)))
}

/// The node with every condition unknown, if that is a change.
pub fn with_unknown_conditions(node: &Node, now: Timestamp) -> Option<Node> {
    let mut changed = node.clone();
    changed.metadata.managed_fields = None;
    let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
    let conditions = changed.status.get_or_insert_default().conditions.get_or_insert_default();
    let mut any = false;
    for kind in ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] {
        let unknown = NodeCondition {
            type_: kind.into(),
            status: "Unknown".into(),
            reason: Some("NodeStatusUnknown".into()),
            message: Some("Kubelet stopped posting node status.".into()),
            last_transition_time: Some(now.clone()),
            last_heartbeat_time: None,
        };
        match conditions.iter_mut().find(|c| c.type_ == kind) {
            Some(c) if c.status == "Unknown" => {}
            Some(c) => {
                let heartbeat = c.last_heartbeat_time.clone();
                *c = NodeCondition { last_heartbeat_time: heartbeat, ..unknown };
                any = true;
            }
            None => {
                conditions.push(unknown);
                any = true;
            }
        }
    }
    any.then_some(changed)
}

fn is_ours(taint: &Taint) -> bool {
    [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&taint.key.as_str())
        || PRESSURE.iter().any(|(_, key)| *key == taint.key)
}

/// The taints that the node should have, if they differ from those it has.
pub fn taints(node: &Node, health: Health, now: Timestamp) -> Option<Vec<Taint>> {
    let has = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    match health {
        Health::Ready => {}
        Health::NotReady => wanted.extend([(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")]),
        Health::Silent => wanted.extend([(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]),
    }
    if node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let pressed = |kind: &str| condition(node, kind).is_some_and(|c| c.status == "True");
    wanted.extend(PRESSURE.iter().filter(|(kind, _)| pressed(kind)).map(|(_, key)| (*key, "NoSchedule")));
    let mut taints: Vec<Taint> = has.iter().filter(|taint| !is_ours(taint)).cloned().collect();
    for (key, effect) in wanted {
        let before = has.iter().find(|taint| taint.key == key && taint.effect == effect).cloned();
        taints.push(before.unwrap_or_else(|| Taint {
            key: key.into(),
            effect: effect.into(),
            time_added:
                (effect == "NoExecute").then(|| Time(Timestamp::from_second(now.as_second()).unwrap_or(now))),
            value: None,
        }));
    }
    let same = taints.len() == has.len() && taints.iter().all(|taint| has.contains(taint));
    (!same).then_some(taints)
}

/// Whether pods may have to leave the node.
pub fn has_eviction_taint(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    taints.is_some_and(|taints| taints.iter().any(|taint| taint.effect == "NoExecute"))
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or("");
    let key = toleration.key.as_deref().unwrap_or("");
    if !(effect.is_empty() || effect == taint.effect) || !(key.is_empty() || key == taint.key) {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => true,
        _ => {
            !key.is_empty()
                && toleration.value.as_deref().unwrap_or("") == taint.value.as_deref().unwrap_or("")
        }
    }
}

/// How long the pod may stay: `None` for good, zero if it must go now.
pub fn tolerated_for(node: &Node, pod: &Pod, now: Timestamp) -> Option<Duration> {
    let taints = node.spec.as_ref()?.taints.as_ref()?;
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.clone()).unwrap_or_default();
    let left_for = |taint: &Taint| {
        let matching: Vec<_> = tolerations.iter().filter(|t| tolerates(t, taint)).collect();
        if matching.is_empty() {
            return Some(Duration::ZERO);
        }
        let seconds = matching.iter().filter_map(|t| t.toleration_seconds).min()?;
        let since = taint.time_added.as_ref().map_or(now, |t| t.0).as_second();
        let left = since + seconds.max(0) - now.as_second();
        Some(Duration::from_secs(u64::try_from(left).unwrap_or(0)))
    };
    taints.iter().filter(|taint| taint.effect == "NoExecute").filter_map(left_for).min()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(ready: &str, heartbeat: &str) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "n"},
            "status": {"conditions": [{"type": "Ready", "status": ready, "lastHeartbeatTime": heartbeat}]}
        }))
        .unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn silence_is_noticed_in_time() {
        let node = node("True", "2024-01-01T00:00:00Z");
        let (health, next) = judge(&node, None, at("2024-01-01T00:00:20Z"));
        assert_eq!((health, next), (Health::Ready, Some(Duration::from_secs(31))));
        assert_eq!(judge(&node, None, at("2024-01-01T00:00:50Z")).0, Health::Silent);
        let changed = with_unknown_conditions(&node, at("2024-01-01T00:01:00Z")).unwrap();
        assert!(with_unknown_conditions(&changed, at("2024-01-01T00:02:00Z")).is_none());
    }

    #[test]
    fn taints_follow_health_and_leave_others_alone() {
        let mut node = node("False", "2024-01-01T00:00:00Z");
        node.spec =
            serde_json::from_value(json!({"taints": [{"key": "mine", "effect": "NoSchedule"}]})).unwrap();
        let now = at("2024-01-01T00:00:10Z");
        let tainted = taints(&node, Health::NotReady, now).unwrap();
        assert_eq!(tainted.len(), 3);
        node.spec.as_mut().unwrap().taints = Some(tainted);
        assert_eq!(taints(&node, Health::NotReady, now), None);
        assert_eq!(taints(&node, Health::Ready, now).unwrap().len(), 1);
    }

    #[test]
    fn pods_leave_when_their_toleration_ends() {
        let mut node = node("Unknown", "2024-01-01T00:00:00Z");
        node.spec = serde_json::from_value(json!({"taints": [
            {"key": UNREACHABLE, "effect": "NoExecute", "timeAdded": "2024-01-01T00:01:00Z"}
        ]}))
        .unwrap();
        let pod = |tolerations: serde_json::Value| -> Pod {
            serde_json::from_value(json!({"spec": {"containers": [], "tolerations": tolerations}})).unwrap()
        };
        let now = at("2024-01-01T00:02:00Z");
        let limited = json!([
            {"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
        ]);
        assert_eq!(tolerated_for(&node, &pod(limited), now), Some(Duration::from_secs(240)));
        assert_eq!(tolerated_for(&node, &pod(json!([{"operator": "Exists"}])), now), None);
        assert_eq!(tolerated_for(&node, &pod(json!([])), now), Some(Duration::ZERO));
    }
}
