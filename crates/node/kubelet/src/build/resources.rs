//! Requests and limits as cgroup settings.

use k8s_openapi::api::core::v1::{Container, PodSpec};
use xebec_cri::LinuxResources;

use crate::spec::{self, Qos, Role};

/// CFS period in microseconds.
const PERIOD_US: u64 = 100_000;
const MIN_SHARES: u64 = 2;
const MAX_SHARES: u64 = 262_144;
/// The kernel refuses quotas below one millisecond.
const MIN_QUOTA_US: i64 = 1000;

/// CPU shares for thousandths of a CPU.
pub fn shares(millis: i64) -> u64 {
    let shares = u64::try_from(millis).unwrap_or(0) * 1024 / 1000;
    shares.clamp(MIN_SHARES, MAX_SHARES)
}

/// CFS quota in microseconds for thousandths of a CPU; `None` without a limit.
pub fn quota(millis: i64) -> Option<i64> {
    (millis > 0).then(|| (millis * (PERIOD_US as i64) / 1000).max(MIN_QUOTA_US))
}

/// `oom_score_adj`: Guaranteed −997, BestEffort 1000, Burstable between 3 and 999 by its share of the node's memory.
pub fn oom_score_adj(qos: Qos, request_bytes: i64, node_bytes: u64) -> i32 {
    match qos {
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let node = i64::try_from(node_bytes.max(1)).unwrap_or(i64::MAX);
            let adjust = 1000 - (1000i128 * i128::from(request_bytes) / i128::from(node)) as i64;
            match adjust {
                i64::MIN..3 => 3,
                1000 => 999,
                other => i32::try_from(other.min(999)).unwrap_or(999),
            }
        }
    }
}

/// Settings of a container.
pub fn container(container: &Container, qos: Qos, node_memory_bytes: u64) -> LinuxResources {
    let (cpu_request, cpu_limit) = spec::amounts(container, "cpu");
    let (memory_request, memory_limit) = spec::amounts(container, "memory");
    let request_bytes = memory_request.map_or(0, |q| q.value());
    let memory = memory_limit.and_then(|q| u64::try_from(q.value()).ok()).filter(|b| *b > 0);
    let mut resources = LinuxResources {
        cpu_period_us: Some(PERIOD_US),
        cpu_quota_us: cpu_limit.and_then(|q| quota(q.milli_value())),
        cpu_shares: Some(shares(cpu_request.map_or(0, |q| q.milli_value()))),
        memory_limit_bytes: memory,
        // No swap beyond memory, as upstream's default (`NoSwap`).
        memory_swap_limit_bytes: memory,
        oom_score_adj: Some(oom_score_adj(qos, request_bytes, node_memory_bytes)),
        // As upstream without `singleProcessOOMKill`: what is out of memory ends as a whole.
        unified: [("memory.oom.group".to_owned(), "1".to_owned())].into(),
        ..LinuxResources::default()
    };
    let limits = container.resources.as_ref().and_then(|r| r.limits.as_ref());
    for (name, amount) in limits.into_iter().flatten() {
        let Some(page) = name.strip_prefix("hugepages-") else { continue };
        if let Ok(bytes) = amount.0.parse::<xebec_types::Quantity>() {
            let page = page.replace("Mi", "MB").replace("Gi", "GB");
            resources.hugepage_limits.insert(page, u64::try_from(bytes.value()).unwrap_or(0));
        }
    }
    resources
}

/// Settings of the pod's cgroup: sums, where an init container counts only if it needs more than all others. Limits
/// hold only if every container has one.
pub fn pod(pod_spec: &PodSpec) -> LinuxResources {
    let total = |resource: &str, limit: bool, milli: bool| -> Option<i64> {
        let get = |c: &Container| {
            let (request, max) = spec::amounts(c, resource);
            let quantity = if limit { max } else { request };
            let value = quantity.map(|q| if milli { q.milli_value() } else { q.value() });
            value.filter(|v| *v > 0 || !limit)
        };
        let (mut running, mut peak) = (0i64, 0i64);
        for (role, c) in spec::containers(pod_spec) {
            let amount = match get(c) {
                Some(amount) => amount,
                None if limit => return None,
                None => 0,
            };
            match role {
                Role::Init => peak = peak.max(running + amount),
                Role::Sidecar | Role::Main => running += amount,
            }
        }
        Some(running.max(peak))
    };
    let memory = total("memory", true, false).and_then(|b| u64::try_from(b).ok());
    LinuxResources {
        cpu_period_us: Some(PERIOD_US),
        cpu_quota_us: total("cpu", true, true).and_then(quota),
        cpu_shares: Some(shares(total("cpu", false, true).unwrap_or(0))),
        memory_limit_bytes: memory,
        ..LinuxResources::default()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn shares_quota_and_score() {
        assert_eq!([shares(0), shares(1000), shares(100)], [2, 1024, 102]);
        assert_eq!([quota(0), quota(1), quota(1500)], [None, Some(1000), Some(150_000)]);
        assert_eq!(oom_score_adj(Qos::Burstable, 0, 1000), 999);
        assert_eq!(oom_score_adj(Qos::Burstable, 500, 1000), 500);
        assert_eq!(oom_score_adj(Qos::Burstable, 1000, 1000), 3);
    }

    #[test]
    fn pod_sums() {
        let spec: PodSpec = serde_json::from_value(serde_json::json!({
            "initContainers": [{"name": "i", "resources": {"limits": {"cpu": "3", "memory": "1Mi"}}}],
            "containers": [
                {"name": "a", "resources": {"limits": {"cpu": "1", "memory": "1Mi"}}},
                {"name": "b", "resources": {"limits": {"cpu": "1", "memory": "2Mi"}}}]
        }))
        .unwrap();
        let r = pod(&spec);
        assert_eq!((r.cpu_quota_us, r.memory_limit_bytes), (Some(300_000), Some(3 << 20)));
    }
}
