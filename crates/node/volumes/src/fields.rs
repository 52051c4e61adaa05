//! The downward API: pod fields and container resources as text.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use xebec_types::{Quantity, quoted};

use crate::VolumeError;

/// Text of a pod field, as in `metadata.name` or `metadata.labels['app']`. `None` when the field exists but is not set
/// yet (an address of a pod without one).
pub fn pod_field(pod: &Pod, path: &str) -> Result<Option<String>, VolumeError> {
    let meta = &pod.metadata;
    if let Some((base, key)) = subscript(path) {
        let map = match base {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(unknown(path)),
        };
        let value = map.as_ref().and_then(|m| m.get(key)).cloned();
        return Ok(Some(value.unwrap_or_default()));
    }
    let spec = pod.spec.as_ref();
    let status = pod.status.as_ref();
    Ok(match path {
        "metadata.name" => meta.name.clone(),
        "metadata.namespace" => meta.namespace.clone(),
        "metadata.uid" => meta.uid.clone(),
        "metadata.labels" => Some(format_map(meta.labels.as_ref())),
        "metadata.annotations" => Some(format_map(meta.annotations.as_ref())),
        "spec.nodeName" => spec.and_then(|s| s.node_name.clone()),
        "spec.serviceAccountName" => spec.and_then(|s| s.service_account_name.clone()),
        "status.hostIP" => status.and_then(|s| s.host_ip.clone()),
        "status.podIP" => status.and_then(|s| s.pod_ip.clone()),
        "status.hostIPs" => status
            .and_then(|s| s.host_ips.as_ref())
            .map(|ips| ips.iter().map(|i| i.ip.as_str()).collect::<Vec<_>>().join(",")),
        "status.podIPs" => status
            .and_then(|s| s.pod_ips.as_ref())
            .map(|ips| ips.iter().map(|i| i.ip.as_str()).collect::<Vec<_>>().join(",")),
        _ => return Err(unknown(path)),
    })
}

fn unknown(path: &str) -> VolumeError {
    VolumeError::Field(format!("unsupported fieldPath: {path}"))
}

/// Splits `metadata.labels['key']`.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (base, rest) = path.split_once("['")?;
    Some((base, rest.strip_suffix("']")?))
}

/// A map as downward API files show it: `key="value"` lines in order of the keys, values quoted as Go quotes them.
pub fn format_map(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<_> = map.into_iter().flatten().map(|(k, v)| format!("{k}={}", quoted(v))).collect();
    lines.join("\n")
}

/// What the node can give, for limits that are not set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allocatable {
    /// Thousandths of a CPU.
    pub cpu_millis: i64,
    /// Bytes of memory.
    pub memory_bytes: i64,
    /// Bytes of ephemeral storage.
    pub storage_bytes: i64,
}

/// Text of a container's resource, divided by the divisor and rounded up. A limit that is not set is the node's
/// allocatable amount; a request that is not set is 0.
pub fn resource_field(
    container: &Container,
    selector: &ResourceFieldSelector,
    node: &Allocatable,
) -> Result<String, VolumeError> {
    let resources = container.resources.clone().unwrap_or_default();
    let (list, name, is_limit) = match selector.resource.split_once('.') {
        Some(("limits", name)) => (resources.limits, name, true),
        Some(("requests", name)) => (resources.requests, name, false),
        _ => {
            return Err(VolumeError::Field(format!("unsupported container resource: {}", selector.resource)));
        }
    };
    let set = list.as_ref().and_then(|l| l.get(name)).and_then(|q| q.0.parse::<Quantity>().ok());
    let quantity = match (set, is_limit, name) {
        (Some(quantity), _, _) if !(is_limit && quantity.is_zero()) => quantity,
        (_, true, "cpu") => Quantity::millis(node.cpu_millis),
        (_, true, "memory") => Quantity::bytes(node.memory_bytes),
        (_, true, "ephemeral-storage") => Quantity::bytes(node.storage_bytes),
        _ => Quantity::units(0),
    };
    let divisor = selector.divisor.as_ref().and_then(|d| d.0.parse::<Quantity>().ok());
    let divisor = divisor.filter(|d| !d.is_zero()).unwrap_or_else(|| Quantity::units(1));
    let value = match name {
        "cpu" => div_ceil(quantity.milli_value(), divisor.milli_value()),
        _ => div_ceil(quantity.value(), divisor.value()),
    };
    Ok(value.to_string())
}

fn div_ceil(value: i64, by: i64) -> i64 {
    let by = by.max(1);
    value / by + i64::from(value % by > 0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_pod() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "n", "labels": {"a": "x\"y", "b": "2"}},
            "spec": {"containers": []},
            "status": {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd::1"}]}
        }))
        .unwrap();
        let get = |path| pod_field(&pod, path).unwrap().unwrap_or_default();
        assert_eq!(get("metadata.labels"), "a=\"x\\\"y\"\nb=\"2\"");
        assert_eq!(get("metadata.labels['b']"), "2");
        assert_eq!(get("status.podIPs"), "10.0.0.1,fd::1");
        assert_eq!(pod_field(&pod, "status.hostIP").unwrap(), None);
        assert!(pod_field(&pod, "spec.x").is_err());
    }

    #[test]
    fn resources_divide_and_round_up() {
        let container: Container = serde_json::from_value(serde_json::json!({
            "name": "c", "resources": {"limits": {"cpu": "1500m"}, "requests": {"memory": "64Mi"}}
        }))
        .unwrap();
        let node = Allocatable { cpu_millis: 2000, memory_bytes: 1 << 30, storage_bytes: 0 };
        let get = |resource: &str, divisor: &str| {
            let divisor = Some(k8s_openapi::apimachinery::pkg::api::resource::Quantity(divisor.into()));
            let selector = ResourceFieldSelector { resource: resource.into(), divisor, container_name: None };
            resource_field(&container, &selector, &node).unwrap()
        };
        assert_eq!(get("limits.cpu", "1"), "2");
        assert_eq!(get("limits.cpu", "1m"), "1500");
        assert_eq!(get("requests.memory", "1Mi"), "64");
        assert_eq!(get("limits.memory", "1Mi"), "1024");
    }
}
