//! What a pod asks for and what a node has, in whole numbers.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource;
use xebec_types::Quantity;

/// CPU that a container without request counts with in scores, in thousandths of a core (as upstream).
const DEFAULT_CPU: i64 = 100;
/// Memory that a container without request counts with in scores, in bytes (as upstream).
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// Amounts of resources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// CPU in thousandths of a core.
    pub cpu: i64,
    /// Memory in bytes.
    pub memory: i64,
    /// Local storage in bytes.
    pub ephemeral: i64,
    /// Everything else by name: huge pages in bytes, extended resources in pieces.
    pub others: BTreeMap<String, i64>,
}

type List = BTreeMap<String, resource::Quantity>;

impl Resources {
    /// From a list of the API. Amounts that do not parse count as nothing: the API server refuses them.
    pub fn of(list: Option<&List>) -> Self {
        let mut all = Self::default();
        for (name, amount) in list.into_iter().flatten() {
            let amount = amount.0.parse().unwrap_or(Quantity::ZERO);
            match name.as_str() {
                "cpu" => all.cpu = amount.milli_value(),
                "memory" => all.memory = amount.value(),
                "ephemeral-storage" => all.ephemeral = amount.value(),
                "pods" => {}
                _ => drop(all.others.insert(name.clone(), amount.value())),
            }
        }
        all
    }

    /// Adds another amount.
    pub fn add(&mut self, other: &Self) {
        self.merge(other, i64::saturating_add);
    }

    /// Takes another amount away.
    pub fn subtract(&mut self, other: &Self) {
        self.merge(other, i64::saturating_sub);
    }

    /// The larger of each.
    pub fn maximum(&mut self, other: &Self) {
        self.merge(other, i64::max);
    }

    fn merge(&mut self, other: &Self, with: fn(i64, i64) -> i64) {
        self.cpu = with(self.cpu, other.cpu);
        self.memory = with(self.memory, other.memory);
        self.ephemeral = with(self.ephemeral, other.ephemeral);
        for (name, amount) in &other.others {
            let own = self.others.entry(name.clone()).or_insert(0);
            *own = with(*own, *amount);
        }
    }
}

/// CPU and memory as scores see them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weight {
    /// CPU in thousandths of a core.
    pub cpu: i64,
    /// Memory in bytes.
    pub memory: i64,
}

/// What a pod needs on its node: the larger of its containers together and any init container beside the
/// sidecars started before it (KEP-753), requests of the pod as a whole where given (KEP-2837), and the
/// overhead of its runtime class (KEP-688).
pub fn requests(pod: &Pod) -> Resources {
    total(pod, |container| container_requests(container.resources.as_ref()))
}

/// The same with defaults for containers that request no CPU or memory, so that such pods spread too.
pub fn weight(pod: &Pod) -> Weight {
    let total = total(pod, |container| {
        let requests = container.resources.as_ref().and_then(|r| r.requests.as_ref());
        let mut all = Resources::of(requests);
        if !requests.is_some_and(|r| r.contains_key("cpu")) {
            all.cpu = DEFAULT_CPU;
        }
        if !requests.is_some_and(|r| r.contains_key("memory")) {
            all.memory = DEFAULT_MEMORY;
        }
        all
    });
    Weight { cpu: total.cpu, memory: total.memory }
}

fn container_requests(resources: Option<&ResourceRequirements>) -> Resources {
    Resources::of(resources.and_then(|r| r.requests.as_ref()))
}

fn total(pod: &Pod, of: impl Fn(&Container) -> Resources) -> Resources {
    let Some(spec) = &pod.spec else { return Resources::default() };
    let mut all = containers_total(spec, of);
    if let Some(list) = spec.resources.as_ref().and_then(|r| r.requests.as_ref()) {
        let whole = Resources::of(Some(list));
        if list.contains_key("cpu") {
            all.cpu = whole.cpu;
        }
        if list.contains_key("memory") {
            all.memory = whole.memory;
        }
        all.others.extend(whole.others);
    }
    all.add(&Resources::of(spec.overhead.as_ref()));
    all
}

fn containers_total(spec: &PodSpec, of: impl Fn(&Container) -> Resources) -> Resources {
    let mut all = Resources::default();
    for container in &spec.containers {
        all.add(&of(container));
    }
    let (mut sidecars, mut peak) = (Resources::default(), Resources::default());
    for container in spec.init_containers.iter().flatten() {
        let own = of(container);
        let mut now = sidecars.clone();
        now.add(&own);
        peak.maximum(&now);
        if is_sidecar(container) {
            sidecars = now;
        }
    }
    all.add(&sidecars);
    all.maximum(&peak);
    all
}

/// Whether an init container goes on beside the others.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn requested(spec: serde_json::Value) -> (i64, i64) {
        let pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
        let all = requests(&pod);
        (all.cpu, all.memory)
    }

    fn container(cpu: &str) -> serde_json::Value {
        json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "1Ki"}}})
    }

    fn sidecar(cpu: &str) -> serde_json::Value {
        json!({"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": cpu}}})
    }

    #[test]
    fn a_pod_needs_its_peak() {
        let cases = [
            (json!({"containers": [container("1"), container("250m")]}), (1250, 2048)),
            (json!({"containers": [container("1")], "initContainers": [container("3")]}), (3000, 1024)),
            (json!({"containers": [container("1")], "initContainers": [sidecar("2")]}), (3000, 1024)),
            (
                json!({"containers": [container("1")], "initContainers": [sidecar("2"), container("4")]}),
                (6000, 1024),
            ),
            (
                json!({"containers": [container("1")], "initContainers": [container("4"), sidecar("2")]}),
                (4000, 1024),
            ),
            (json!({"containers": [container("1")], "overhead": {"cpu": "100m"}}), (1100, 1024)),
            (json!({"containers": [container("1")], "resources": {"requests": {"cpu": "2"}}}), (2000, 1024)),
        ];
        for (spec, wanted) in cases {
            assert_eq!(requested(spec.clone()), wanted, "{spec}");
        }
    }

    #[test]
    fn scores_count_pods_without_requests() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [{"name": "a"}]}})).unwrap();
        assert_eq!(weight(&pod), Weight { cpu: DEFAULT_CPU, memory: DEFAULT_MEMORY });
    }
}
