//! Packing backends into slices, and changing as few existing slices as possible.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::backends::{Backend, Port};
use super::{HEADLESS, MANAGED_BY, SERVICE_NAME, SLICE_CONTROLLER};
use crate::owners::controller_reference;

/// Most endpoints of one slice.
const MAX_ENDPOINTS: usize = 100;

/// What belongs into slices of one kind: address type and ports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shape {
    /// `IPv4` or `IPv6`.
    pub family: &'static str,
    /// Ports that all endpoints of the slice offer.
    pub ports: Vec<Port>,
}

/// Endpoints by shape.
pub type Groups = BTreeMap<Shape, Vec<Endpoint>>;

/// Changes to the slices of a Service.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// Slices to create.
    pub create: Vec<EndpointSlice>,
    /// Slices to write.
    pub update: Vec<EndpointSlice>,
    /// Names of slices to delete.
    pub delete: Vec<String>,
}

impl Plan {
    /// The end of all slices.
    pub fn delete_all(existing: &[Arc<EndpointSlice>]) -> Self {
        Self { delete: existing.iter().map(|slice| slice.name_any()).collect(), ..Self::default() }
    }
}

/// The metadata of every slice of a Service.
pub fn for_service(service: &Service) -> ObjectMeta {
    let mut labels = service.labels().clone();
    labels.remove("service.kubernetes.io/service-proxy-name");
    let proxy = service.labels().get("service.kubernetes.io/service-proxy-name").cloned();
    labels.extend(proxy.map(|name| ("service.kubernetes.io/service-proxy-name".to_owned(), name)));
    template(service, labels, SLICE_CONTROLLER)
}

/// Metadata with the labels and the owner that slices of a Service carry.
pub fn template(service: &Service, mut labels: BTreeMap<String, String>, managed_by: &str) -> ObjectMeta {
    let name = service.name_any();
    labels.insert(SERVICE_NAME.into(), name.clone());
    labels.insert(MANAGED_BY.into(), managed_by.into());
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    ObjectMeta {
        generate_name: Some(format!("{name}-")),
        namespace: service.namespace(),
        labels: Some(labels),
        owner_references: Some(vec![controller_reference("v1", "Service", &service.metadata)]),
        ..ObjectMeta::default()
    }
}

/// Whether a Service has no address of its own.
pub fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

/// Sorts backends into shapes, one per address family of the Service and set of ports.
pub fn group(service: &Service, backends: &[Backend]) -> Groups {
    let spec = service.spec.clone().unwrap_or_default();
    let families = spec.ip_families.clone().unwrap_or_else(|| vec!["IPv4".into()]);
    let distribution = spec.traffic_distribution.as_deref();
    let mut groups = Groups::new();
    for backend in backends {
        for (family, v4) in [("IPv4", true), ("IPv6", false)] {
            let address = backend.addresses.iter().find(|ip| ip.is_ipv4() == v4);
            let Some(address) = address.filter(|_| families.iter().any(|f| f == family)) else { continue };
            let mut ports = backend.ports.clone();
            ports.sort();
            let endpoints = groups.entry(Shape { family, ports }).or_default();
            endpoints.push(endpoint(backend, address.to_string(), distribution));
        }
    }
    if groups.is_empty() {
        for family in families {
            let family = if family == "IPv6" { "IPv6" } else { "IPv4" };
            groups.insert(Shape { family, ports: Vec::new() }, Vec::new());
        }
    }
    groups
}

fn endpoint(backend: &Backend, address: String, distribution: Option<&str>) -> Endpoint {
    Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(backend.ready),
            serving: Some(backend.serving),
            terminating: Some(backend.terminating),
        }),
        hostname: backend.hostname.clone(),
        node_name: backend.node.clone(),
        target_ref: Some(backend.pod.clone()),
        zone: backend.zone.clone(),
        hints: hints(backend, distribution),
        ..Endpoint::default()
    }
}

/// Hints of `trafficDistribution` (KEP-4444, KEP-3015): every endpoint is meant for its own zone, or node first.
fn hints(backend: &Backend, distribution: Option<&str>) -> Option<EndpointHints> {
    let for_zones = backend.zone.clone().map(|name| vec![ForZone { name }]);
    let for_nodes = backend.node.clone().map(|name| vec![ForNode { name }]);
    match distribution? {
        "PreferClose" | "PreferSameZone" if for_zones.is_some() => {
            Some(EndpointHints { for_zones, for_nodes: None })
        }
        "PreferSameNode" if for_nodes.is_some() => Some(EndpointHints { for_zones, for_nodes }),
        _ => None,
    }
}

/// Plans the slices for these groups. Endpoints stay in the slice that has them; new ones fill slices with room;
/// slices that end up empty go, except the last of its shape.
pub fn plan(template: &ObjectMeta, groups: Groups, existing: &[Arc<EndpointSlice>]) -> Plan {
    let mut plan = Plan::default();
    let mut left: Vec<Arc<EndpointSlice>> = existing.to_vec();
    left.sort_by_key(|slice| slice.name_any());
    for (shape, endpoints) in groups {
        let (ours, others) = left.into_iter().partition(|slice| has_shape(slice, &shape));
        left = others;
        plan_shape(template, &shape, endpoints, ours, &mut plan);
    }
    plan.delete.extend(left.iter().map(|slice| slice.name_any()));
    plan
}

fn identity(endpoint: &Endpoint) -> (String, Option<String>) {
    let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.clone());
    (endpoint.addresses.first().cloned().unwrap_or_default(), uid)
}

fn plan_shape(
    template: &ObjectMeta,
    shape: &Shape,
    endpoints: Vec<Endpoint>,
    existing: Vec<Arc<EndpointSlice>>,
    plan: &mut Plan,
) {
    let mut wanted: BTreeMap<_, Endpoint> = endpoints.into_iter().map(|e| (identity(&e), e)).collect();
    let mut kept: Vec<(Arc<EndpointSlice>, Vec<Endpoint>)> = existing
        .into_iter()
        .map(|slice| {
            let stay = slice.endpoints.iter().flatten().filter_map(|e| wanted.remove(&identity(e))).collect();
            (slice, stay)
        })
        .collect();
    let mut new = wanted.into_values().peekable();
    for (_, endpoints) in &mut kept {
        while endpoints.len() < MAX_ENDPOINTS && new.peek().is_some() {
            endpoints.extend(new.next());
        }
    }
    let mut any = kept.iter().any(|(_, endpoints)| !endpoints.is_empty()) || new.peek().is_some();
    while new.peek().is_some() {
        let endpoints = new.by_ref().take(MAX_ENDPOINTS).collect();
        plan.create.push(make(template, shape, endpoints));
    }
    if kept.is_empty() && !any {
        plan.create.push(make(template, shape, Vec::new()));
    }
    for (slice, endpoints) in kept {
        if endpoints.is_empty() && any {
            plan.delete.push(slice.name_any());
            continue;
        }
        any = true;
        plan.update.extend(changed(template, &slice, endpoints));
    }
}

fn make(template: &ObjectMeta, shape: &Shape, endpoints: Vec<Endpoint>) -> EndpointSlice {
    EndpointSlice {
        metadata: template.clone(),
        address_type: shape.family.into(),
        endpoints: Some(endpoints),
        ports: Some(shape.ports.iter().map(slice_port).collect()),
    }
}

fn slice_port(port: &Port) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone()),
        protocol: Some(port.protocol.clone()),
        port: Some(port.port),
        app_protocol: port.app_protocol.clone(),
    }
}

fn has_shape(slice: &EndpointSlice, shape: &Shape) -> bool {
    let ports: BTreeSet<_> = slice.ports.iter().flatten().map(as_port).collect();
    slice.address_type == shape.family && ports == shape.ports.iter().cloned().collect()
}

fn as_port(port: &EndpointPort) -> Port {
    Port {
        name: port.name.clone().unwrap_or_default(),
        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
        port: port.port.unwrap_or(0),
        app_protocol: port.app_protocol.clone(),
    }
}

/// The slice with these endpoints and the template's labels, if that is a change.
fn changed(template: &ObjectMeta, slice: &EndpointSlice, endpoints: Vec<Endpoint>) -> Option<EndpointSlice> {
    let same_labels = slice.metadata.labels == template.labels;
    let same_owner = slice.metadata.owner_references == template.owner_references;
    if same_labels && same_owner && slice.endpoints.as_deref().unwrap_or_default() == endpoints {
        return None;
    }
    let mut slice = slice.clone();
    slice.metadata.labels.clone_from(&template.labels);
    slice.metadata.owner_references.clone_from(&template.owner_references);
    slice.endpoints = Some(endpoints);
    Some(slice)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::super::backends;
    use super::*;
    use crate::pods::tests::pod;

    fn service() -> Service {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "s", "labels": {"l": "1"}},
            "spec": {"selector": {"app": "web"}, "ipFamilies": ["IPv4"], "clusterIP": "10.96.0.9",
                     "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}
        }))
        .unwrap()
    }

    fn backends(range: std::ops::Range<u8>) -> Vec<Backend> {
        let pods: Vec<_> = range
            .map(|n| {
                let mut pod = pod(&format!("p{n}"), "web", "Running", true);
                pod.status.as_mut().unwrap().pod_ip = Some(format!("10.244.0.{n}"));
                Arc::new(pod)
            })
            .collect();
        backends::of(&service(), &pods, &BTreeMap::new())
    }

    fn planned(range: std::ops::Range<u8>, existing: &[Arc<EndpointSlice>]) -> Plan {
        let service = service();
        plan(&for_service(&service), group(&service, &backends(range)), existing)
    }

    fn sizes<'a>(slices: impl IntoIterator<Item = &'a EndpointSlice>) -> Vec<usize> {
        slices.into_iter().map(|slice| slice.endpoints.as_ref().unwrap().len()).collect()
    }

    fn stored(plan: Plan) -> Vec<Arc<EndpointSlice>> {
        let name = |(i, mut slice): (usize, EndpointSlice)| {
            slice.metadata.name = Some(format!("web-{i}"));
            Arc::new(slice)
        };
        plan.create.into_iter().enumerate().map(name).collect()
    }

    #[test]
    fn a_service_without_pods_has_an_empty_slice() {
        let plan = planned(0..0, &[]);
        assert_eq!((plan.create.len(), sizes(&plan.create)[0]), (1, 0));
    }

    #[test]
    fn endpoints_stay_where_they_are() {
        let existing = stored(planned(1..151, &[]));
        assert_eq!(sizes(existing.iter().map(AsRef::as_ref)), [100, 50]);
        assert_eq!(planned(1..151, &existing), Plan::default(), "nothing changed, nothing to do");
        let plan = planned(1..152, &existing);
        assert_eq!((plan.create.len(), plan.update.len(), plan.delete.len()), (0, 1, 0));
    }

    #[test]
    fn empty_slices_go_except_the_last() {
        let existing = stored(planned(1..151, &[]));
        let plan = planned(0..0, &existing);
        assert_eq!(
            (plan.create.len(), plan.update.len(), plan.delete.len()),
            (1, 0, 2),
            "its ports are unknown"
        );
        let plan = planned(1..5, &existing);
        assert_eq!((plan.create.len(), plan.update.len(), plan.delete.len()), (0, 1, 1));
    }
}
