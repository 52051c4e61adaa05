//! The pods behind a Service, each with the ports that the Service's ports lead to.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use crate::pods;

/// A port as pods offer it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// Name of the Service's port; empty for an only one.
    pub name: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Number in the pod.
    pub port: i32,
    /// `appProtocol` of the Service's port.
    pub app_protocol: Option<String>,
}

/// A pod behind a Service.
#[derive(Debug, Clone, PartialEq)]
pub struct Backend {
    /// All its addresses.
    pub addresses: Vec<IpAddr>,
    /// The ports it offers; pods may differ where target ports are names.
    pub ports: Vec<Port>,
    /// Counts as ready (also because the Service publishes addresses that are not).
    pub ready: bool,
    /// Answers, even if it is being deleted.
    pub serving: bool,
    /// Is being deleted.
    pub terminating: bool,
    /// Node it runs on.
    pub node: Option<String>,
    /// Zone of that node.
    pub zone: Option<String>,
    /// Host name that DNS gives it.
    pub hostname: Option<String>,
    /// The pod.
    pub pod: ObjectReference,
}

/// The backends of a Service among the pods that its selector matches.
pub fn of(service: &Service, pods: &[Arc<Pod>], zones: &BTreeMap<String, String>) -> Vec<Backend> {
    let spec = service.spec.clone().unwrap_or_default();
    let publish_all = spec.publish_not_ready_addresses.unwrap_or(false);
    let mut backends: Vec<Backend> = pods
        .iter()
        .filter_map(|pod| backend(service, pod, spec.ports.as_deref().unwrap_or(&[]), publish_all, zones))
        .collect();
    backends.sort_by(|a, b| a.addresses.cmp(&b.addresses));
    backends
}

fn backend(
    service: &Service,
    pod: &Pod,
    ports: &[ServicePort],
    publish_all: bool,
    zones: &BTreeMap<String, String>,
) -> Option<Backend> {
    let addresses = addresses(pod);
    if addresses.is_empty() {
        return None;
    }
    let pod_spec = pod.spec.as_ref()?;
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let serving = pods::is_ready(pod);
    let hostname = pod_spec.hostname.clone().filter(|_| pod_spec.subdomain == service.metadata.name);
    let zone = pod_spec.node_name.as_ref().and_then(|node| zones.get(node)).cloned();
    Some(Backend {
        addresses,
        ports: ports.iter().filter_map(|port| target(pod, port)).collect(),
        ready: publish_all || (serving && !terminating),
        serving: publish_all || serving,
        terminating,
        node: pod_spec.node_name.clone(),
        zone,
        hostname,
        pod: ObjectReference {
            kind: Some("Pod".into()),
            name: pod.metadata.name.clone(),
            namespace: pod.namespace(),
            uid: pod.uid(),
            ..ObjectReference::default()
        },
    })
}

fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let Some(status) = &pod.status else { return Vec::new() };
    let listed: Vec<IpAddr> = status.pod_ips.iter().flatten().filter_map(|ip| ip.ip.parse().ok()).collect();
    if !listed.is_empty() {
        return listed;
    }
    status.pod_ip.as_deref().and_then(|ip| ip.parse().ok()).into_iter().collect()
}

/// What a Service port leads to in this pod; `None` when it has no port of that name.
fn target(pod: &Pod, port: &ServicePort) -> Option<Port> {
    let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
    let number = match &port.target_port {
        None => port.port,
        Some(IntOrString::Int(0)) => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) => named_port(pod, name, &protocol)?,
    };
    let app_protocol = port.app_protocol.clone();
    Some(Port { name: port.name.clone().unwrap_or_default(), protocol, port: number, app_protocol })
}

fn named_port(pod: &Pod, name: &str, protocol: &str) -> Option<i32> {
    let spec = pod.spec.as_ref()?;
    let sidecar = |c: &&Container| c.restart_policy.as_deref() == Some("Always");
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten().filter(sidecar));
    containers
        .flat_map(|container| container.ports.iter().flatten())
        .find(|p| p.name.as_deref() == Some(name) && p.protocol.as_deref().unwrap_or("TCP") == protocol)
        .map(|p| p.container_port)
}

/// Whether the difference between two states of a pod can matter to endpoints.
pub fn concerns_endpoints(old: &Pod, new: &Pod) -> bool {
    let host =
        |pod: &Pod| pod.spec.as_ref().map(|s| (s.hostname.clone(), s.subdomain.clone(), s.node_name.clone()));
    addresses(old) != addresses(new)
        || pods::is_ready(old) != pods::is_ready(new)
        || pods::is_terminal(old) != pods::is_terminal(new)
        || old.metadata.deletion_timestamp != new.metadata.deletion_timestamp
        || old.metadata.labels != new.metadata.labels
        || host(old) != host(new)
}
