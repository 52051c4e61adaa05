//! From a Service and its endpoints to fronts: pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use crate::{
    class::Class,
    input::{NodeInfo, ServiceInfo, ServicePortInfo, SliceEndpoint, SliceInfo},
    model::{Endpoint, Front, FrontKey},
};

/// Endpoints of one front beyond this are left out: their number has 16 bits.
const MOST_ENDPOINTS: usize = 0xffff;

/// What one Service comes down to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// Its fronts.
    pub fronts: Vec<(FrontKey, Arc<Front>)>,
    /// Its addresses inside the cluster: their other ports reject.
    pub vips: Vec<IpAddr>,
    /// Port of its health check and the number of ready endpoints on this node.
    pub health: Option<(u16, usize)>,
}

/// Compiles one Service on `node`.
pub fn compile(service: &ServiceInfo, slices: &[&SliceInfo], node: &NodeInfo) -> Compiled {
    let mut fronts = Vec::new();
    let mut local_ready = BTreeSet::new();
    for port in &service.ports {
        let families: BTreeSet<bool> = service.cluster_ips.iter().map(IpAddr::is_ipv4).collect();
        for ipv4 in [true, false] {
            let found = endpoints(port, slices, ipv4);
            let usable = Usable::choose(&found, node);
            local_ready.extend(ready_here(&found, node));
            let of_family = |ip: &&IpAddr| ip.is_ipv4() == ipv4;
            for ip in service.cluster_ips.iter().filter(of_family) {
                let key = FrontKey { ip: *ip, transport: port.transport, port: port.port };
                fronts.push((key, Arc::new(internal_front(service, &usable))));
            }
            for ip in service.external_ips.iter().filter(of_family) {
                let key = FrontKey { ip: *ip, transport: port.transport, port: port.port };
                let mut front = external_front(service, &usable, false);
                if service.balancer_ips.contains(ip) && !service.source_ranges.is_empty() {
                    restrict(&mut front, service, ipv4);
                }
                fronts.push((key, Arc::new(front)));
            }
            if port.node_port != 0 && families.contains(&ipv4) {
                let key = FrontKey::node_port(ipv4, port.transport, port.node_port);
                fronts.push((key, Arc::new(external_front(service, &usable, true))));
            }
        }
    }
    let health = (service.health_port != 0 && service.external_local)
        .then_some((service.health_port, local_ready.len()));
    Compiled { fronts, vips: service.cluster_ips.clone(), health }
}

/// Endpoints that serve a port in one family, each once.
fn endpoints<'a>(
    port: &ServicePortInfo,
    slices: &[&'a SliceInfo],
    ipv4: bool,
) -> BTreeMap<Endpoint, &'a SliceEndpoint> {
    let mut found: BTreeMap<Endpoint, &SliceEndpoint> = BTreeMap::new();
    for slice in slices {
        let mut numbers = slice
            .ports
            .iter()
            .filter(|(name, transport, _)| *name == port.name && *transport == port.transport);
        let Some((_, _, number)) = numbers.next() else { continue };
        for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.ip.is_ipv4() == ipv4) {
            let key = Endpoint { ip: endpoint.ip, port: *number };
            // An endpoint that moves from one slice to another is in both for a moment: the better state counts.
            let better = |old: &&SliceEndpoint| (endpoint.ready, endpoint.serving) > (old.ready, old.serving);
            if found.get(&key).is_none_or(better) {
                found.insert(key, endpoint);
            }
        }
    }
    found
}

fn ready_here(found: &BTreeMap<Endpoint, &SliceEndpoint>, node: &NodeInfo) -> BTreeSet<IpAddr> {
    let here = found.iter().filter(|(_, endpoint)| endpoint.ready && is_local(endpoint, node));
    here.map(|(key, _)| key.ip).collect()
}

fn is_local(endpoint: &SliceEndpoint, node: &NodeInfo) -> bool {
    endpoint.node.as_deref() == Some(node.name.as_str())
}

/// Endpoints that take connections, everywhere and here.
struct Usable {
    cluster: Vec<Endpoint>,
    local: Vec<Endpoint>,
    hairpin: BTreeSet<IpAddr>,
}

impl Usable {
    /// Ready endpoints; if there are none, those that still serve while they terminate (KEP-1669); for the cluster
    /// and for this node each.
    fn choose(found: &BTreeMap<Endpoint, &SliceEndpoint>, node: &NodeInfo) -> Self {
        let all: Vec<(Endpoint, &SliceEndpoint)> =
            found.iter().map(|(key, endpoint)| (*key, *endpoint)).collect();
        let here: Vec<_> = all.iter().filter(|(_, endpoint)| is_local(endpoint, node)).copied().collect();
        let cluster = close(&ready_else_terminating(&all), node);
        let local = keys(&ready_else_terminating(&here));
        let of_pods = here.iter().map(|(key, _)| key.ip).filter(|ip| !node.addresses.contains(ip));
        Self { cluster, local, hairpin: of_pods.collect() }
    }
}

fn ready_else_terminating<'a>(all: &[(Endpoint, &'a SliceEndpoint)]) -> Vec<(Endpoint, &'a SliceEndpoint)> {
    let ready: Vec<_> = all.iter().filter(|(_, endpoint)| endpoint.ready).copied().collect();
    if !ready.is_empty() {
        return ready;
    }
    all.iter().filter(|(_, endpoint)| endpoint.serving && endpoint.terminating).copied().collect()
}

/// Endpoints hinted for this node, else for its zone. Hints count only if every endpoint has one and some are for
/// us: otherwise they are being rolled out or back (KEP-2433).
fn close(all: &[(Endpoint, &SliceEndpoint)], node: &NodeInfo) -> Vec<Endpoint> {
    let hinted = |hints: fn(&SliceEndpoint) -> &Vec<String>, ours: &String| {
        if all.iter().any(|(_, endpoint)| hints(endpoint).is_empty()) {
            return Vec::new();
        }
        all.iter().filter(|(_, endpoint)| hints(endpoint).contains(ours)).copied().collect()
    };
    let for_node = hinted(|endpoint| &endpoint.nodes, &node.name);
    if !for_node.is_empty() {
        return keys(&for_node);
    }
    let for_zone =
        node.zone.as_ref().map(|zone| hinted(|endpoint| &endpoint.zones, zone)).unwrap_or_default();
    if for_zone.is_empty() { keys(all) } else { keys(&for_zone) }
}

fn keys(endpoints: &[(Endpoint, &SliceEndpoint)]) -> Vec<Endpoint> {
    endpoints.iter().take(MOST_ENDPOINTS).map(|(key, _)| *key).collect()
}

fn count(endpoints: &[Endpoint]) -> u16 {
    u16::try_from(endpoints.len()).expect("invariant: cut to 16 bits")
}

fn front(class: Class, endpoints: &[Endpoint], local: &[Endpoint], usable: &Usable) -> Front {
    let pods =
        endpoints.iter().chain(local).map(|endpoint| endpoint.ip).filter(|ip| usable.hairpin.contains(ip));
    let hairpin: BTreeSet<IpAddr> = pods.collect();
    Front {
        class,
        endpoints: endpoints.to_vec(),
        local: local.to_vec(),
        hairpin: hairpin.into_iter().collect(),
        allowed: Vec::new(),
    }
}

/// A front for clients inside the cluster.
fn internal_front(service: &ServiceInfo, usable: &Usable) -> Front {
    let chosen = if service.internal_local { &usable.local } else { &usable.cluster };
    if chosen.is_empty() {
        // Endpoints on other nodes may not be used, but there are some: wait rather than fail.
        let class = if usable.cluster.is_empty() { Class::REJECT } else { Class::DROP };
        return Front { class, ..Front::default() };
    }
    let class = Class { endpoints: count(chosen), affinity: service.affinity, ..Class::default() };
    front(class, chosen, &[], usable)
}

/// A front for clients outside the cluster.
fn external_front(service: &ServiceInfo, usable: &Usable, node_port: bool) -> Front {
    if usable.cluster.is_empty() && (usable.local.is_empty() || !service.external_local) {
        return Front { class: Class::REJECT, ..Front::default() };
    }
    let class = Class {
        node_port,
        endpoints: count(&usable.cluster),
        affinity: service.affinity,
        ..Class::default()
    };
    if service.external_local {
        let class = Class { external_local: true, local: count(&usable.local), ..class };
        return front(class, &usable.cluster, &usable.local, usable);
    }
    front(Class { masquerade: true, ..class }, &usable.cluster, &[], usable)
}

fn restrict(front: &mut Front, service: &ServiceInfo, ipv4: bool) {
    if front.class.reject || front.class.drop {
        return;
    }
    front.class.restricted = true;
    let ranges: BTreeSet<_> = service.source_ranges.iter().map(xebec_netlink::Cidr::network).collect();
    let ranges: Vec<_> = ranges.into_iter().filter(|range| range.is_ipv4() == ipv4).collect();
    // A range inside another one adds nothing, and the kernel refuses ranges that overlap.
    let inside = |range: &xebec_netlink::Cidr| {
        ranges.iter().any(|other| other.prefix < range.prefix && other.contains(range.addr))
    };
    front.allowed = ranges.iter().filter(|range| !inside(range)).copied().collect();
}

#[cfg(test)]
#[path = "compile_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
