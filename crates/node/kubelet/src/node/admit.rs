//! Whether the node takes a pod that was bound to it: the scheduler may have been bypassed or may have raced.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;

use crate::pods::PodTable;
use crate::spec::{self, Role};
use crate::worker::Shared;

/// Reason and message of the refusal, if the node refuses. A pod that has been here before is never refused.
pub fn admit(pod: &Pod, others: &PodTable, shared: &Shared) -> Option<(String, String)> {
    let started = pod.status.as_ref().is_some_and(|s| s.start_time.is_some());
    if started || pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let allocatable = &shared.facts.allocatable;
    let limits = [("cpu", allocatable.cpu_millis), ("memory", allocatable.memory_bytes)];
    let max_pods = usize::try_from(shared.config.max_pods).unwrap_or(usize::MAX);
    let labels = &shared.config.node_labels;
    check(pod, others, &limits, max_pods).or_else(|| {
        let selector = pod.spec.as_ref().and_then(|s| s.node_selector.as_ref())?;
        // Labels of others' making are the scheduler's business; what the kubelet set itself must match.
        let wrong = selector.iter().any(|(key, value)| labels.get(key).is_some_and(|own| own != value));
        wrong.then(|| {
            (
                "NodeAffinity".to_owned(),
                "Pod was rejected: Predicate NodeAffinity failed: \
             node(s) didn't match Pod's node affinity/selector"
                    .to_owned(),
            )
        })
    })
}

fn alive(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    !matches!(phase, Some("Succeeded" | "Failed"))
}

fn check(pod: &Pod, others: &PodTable, limits: &[(&str, i64)], max_pods: usize) -> Option<(String, String)> {
    let others: Vec<_> = others.values().filter(|p| spec::uid(p) != spec::uid(pod) && alive(p)).collect();
    let refuse = |resource: &str, requested: i64, used: i64, capacity: i64| {
        let message = format!(
            "Pod was rejected: Node didn't have enough resource: {resource}, \
             requested: {requested}, used: {used}, capacity: {capacity}"
        );
        Some((format!("OutOf{resource}"), message))
    };
    if others.len() >= max_pods {
        let signed = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        return refuse("pods", 1, signed(others.len()), signed(max_pods));
    }
    for (resource, capacity) in limits {
        let requested = request(pod, resource);
        let used = others.iter().map(|p| request(p, resource)).sum();
        if requested > 0 && requested + used > *capacity {
            return refuse(resource, requested, used, *capacity);
        }
    }
    let taken: BTreeSet<_> = others.iter().flat_map(|p| host_ports(p)).collect();
    if host_ports(pod).any(|port| taken.contains(&port)) {
        let message = "Pod was rejected: Predicate NodePorts failed: \
            node(s) didn't have free ports for the requested pod ports";
        return Some(("NodePorts".into(), message.into()));
    }
    None
}

/// Requests of a pod: thousandths of a CPU, or bytes.
fn request(pod: &Pod, resource: &str) -> i64 {
    let Some(pod_spec) = &pod.spec else { return 0 };
    let (mut running, mut peak) = (0i64, 0i64);
    for (role, container) in spec::containers(pod_spec) {
        let amount = spec::amounts(container, resource).0;
        let amount = amount.map_or(0, |q| if resource == "cpu" { q.milli_value() } else { q.value() });
        match role {
            Role::Init => peak = peak.max(running + amount),
            Role::Sidecar | Role::Main => running += amount,
        }
    }
    running.max(peak)
}

fn host_ports(pod: &Pod) -> impl Iterator<Item = (String, i32, String)> {
    let all = pod.spec.iter().flat_map(spec::containers);
    let ports = all.flat_map(|(_, c)| c.ports.iter().flatten());
    ports.filter_map(|p| {
        let port = p.host_port.filter(|port| *port > 0)?;
        let protocol = p.protocol.clone().unwrap_or_else(|| "TCP".into());
        Some((protocol, port, p.host_ip.clone().unwrap_or_default()))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use serde_json::json;

    fn pod(uid: &str, cpu: &str, port: i32) -> Pod {
        serde_json::from_value(json!({"metadata": {"uid": uid}, "spec": {"containers": [{"name": "a",
            "resources": {"requests": {"cpu": cpu}}, "ports": [{"containerPort": 1, "hostPort": port}]}]}}))
        .unwrap()
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let others: PodTable = [("a".to_owned(), Arc::new(pod("a", "600m", 80)))].into();
        let run = |p: &Pod, max| check(p, &others, &[("cpu", 1000)], max).map(|(r, _)| r).unwrap_or_default();
        assert_eq!(run(&pod("b", "400m", 81), 9), "");
        assert_eq!(run(&pod("b", "500m", 81), 9), "OutOfcpu");
        assert_eq!(run(&pod("b", "1m", 80), 9), "NodePorts");
        assert_eq!(run(&pod("b", "1m", 81), 1), "OutOfpods");
    }
}
