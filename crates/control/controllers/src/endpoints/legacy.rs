//! `v1` Endpoints: the older form, kept for clients that read it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::HEADLESS;
use super::backends::{Backend, Port};
use super::slices::is_headless;

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpoint-controller";
/// Annotation on Endpoints that had to leave some addresses out.
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Most addresses of one Endpoints object.
const MAX_ADDRESSES: usize = 1000;

/// Whether this controller wrote the Endpoints.
pub fn is_ours(endpoints: &Endpoints) -> bool {
    endpoints.labels().get(MANAGED_BY).is_some_and(|by| by == CONTROLLER)
}

/// The Endpoints of a Service. They carry one address family, the Service's first.
pub fn make(service: &Service, backends: &[Backend]) -> Endpoints {
    let families = service.spec.as_ref().and_then(|spec| spec.ip_families.as_ref());
    let v6 = families.and_then(|f| f.first()).is_some_and(|family| family == "IPv6");
    let mut labels = service.labels().clone();
    labels.remove(HEADLESS);
    labels.insert(MANAGED_BY.into(), CONTROLLER.into());
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    let live: Vec<&Backend> = backends.iter().filter(|b| !b.terminating || b.ready).collect();
    let over = live.len() > MAX_ADDRESSES;
    let annotations = over.then(|| [(OVER_CAPACITY.to_owned(), "truncated".to_owned())].into());
    let subsets = subsets(live.into_iter().take(MAX_ADDRESSES), v6);
    Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.namespace(),
            labels: Some(labels),
            annotations,
            ..ObjectMeta::default()
        },
        subsets: (!subsets.is_empty()).then_some(subsets),
    }
}

fn subsets<'a>(backends: impl Iterator<Item = &'a Backend>, v6: bool) -> Vec<EndpointSubset> {
    let mut by_ports: BTreeMap<Vec<Port>, (Vec<EndpointAddress>, Vec<EndpointAddress>)> = BTreeMap::new();
    for backend in backends {
        let Some(ip) = backend.addresses.iter().find(|ip| ip.is_ipv6() == v6) else { continue };
        let address = EndpointAddress {
            ip: ip.to_string(),
            hostname: backend.hostname.clone(),
            node_name: backend.node.clone(),
            target_ref: Some(backend.pod.clone()),
        };
        let mut ports = backend.ports.clone();
        ports.sort();
        let (ready, not_ready) = by_ports.entry(ports).or_default();
        if backend.ready { ready.push(address) } else { not_ready.push(address) }
    }
    let some = |list: Vec<EndpointAddress>| (!list.is_empty()).then_some(list);
    by_ports
        .into_iter()
        .map(|(ports, (ready, not_ready))| EndpointSubset {
            addresses: some(ready),
            not_ready_addresses: some(not_ready),
            ports: (!ports.is_empty()).then(|| ports.iter().map(endpoint_port).collect()),
        })
        .collect()
}

fn endpoint_port(port: &Port) -> EndpointPort {
    EndpointPort {
        name: (!port.name.is_empty()).then(|| port.name.clone()),
        port: port.port,
        protocol: Some(port.protocol.clone()),
        app_protocol: port.app_protocol.clone(),
    }
}

/// `existing` with what `wanted` says, if that is a change.
pub fn updated(existing: &Endpoints, wanted: &Endpoints) -> Option<Endpoints> {
    let same = existing.subsets == wanted.subsets
        && existing.metadata.labels == wanted.metadata.labels
        && existing.annotations().get(OVER_CAPACITY) == wanted.annotations().get(OVER_CAPACITY);
    if same {
        return None;
    }
    let mut changed = existing.clone();
    changed.subsets.clone_from(&wanted.subsets);
    changed.metadata.labels.clone_from(&wanted.metadata.labels);
    let annotations = changed.metadata.annotations.get_or_insert_default();
    annotations.remove(OVER_CAPACITY);
    annotations.extend(wanted.annotations().clone());
    Some(changed)
}
