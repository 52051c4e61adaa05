//! Slices for Endpoints that somebody else wrote (KEP-0752, EndpointSlice mirroring).

use k8s_openapi::api::core::v1::{EndpointAddress, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::backends::Port;
use super::slices::{Groups, Shape, template};
use super::{MIRROR_CONTROLLER, legacy};

/// Most addresses of a subset that are mirrored.
const MAX_PER_SUBSET: usize = 1000;

/// Whether these Endpoints are to be mirrored: not our own, not a leader election record, not opted out.
pub fn wanted(endpoints: &Endpoints) -> bool {
    let opted_out =
        endpoints.labels().get("endpointslice.kubernetes.io/skip-mirror").is_some_and(|v| v == "true");
    let leader = endpoints.annotations().contains_key("control-plane.alpha.kubernetes.io/leader");
    !opted_out && !leader && !legacy::is_ours(endpoints) && endpoints.metadata.deletion_timestamp.is_none()
}

/// Metadata and groups of the mirrored slices.
pub fn groups(service: &Service, endpoints: &Endpoints) -> (ObjectMeta, Groups) {
    let mut groups = Groups::new();
    for subset in endpoints.subsets.iter().flatten() {
        let mut ports: Vec<Port> = subset
            .ports
            .iter()
            .flatten()
            .map(|port| Port {
                name: port.name.clone().unwrap_or_default(),
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
                port: port.port,
                app_protocol: port.app_protocol.clone(),
            })
            .collect();
        ports.sort();
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let not_ready = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
        for (address, is_ready) in ready.chain(not_ready).take(MAX_PER_SUBSET) {
            let family = if address.ip.contains(':') { "IPv6" } else { "IPv4" };
            let shape = Shape { family, ports: ports.clone() };
            groups.entry(shape).or_default().push(endpoint(address, is_ready));
        }
    }
    (template(service, endpoints.labels().clone(), MIRROR_CONTROLLER), groups)
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}
