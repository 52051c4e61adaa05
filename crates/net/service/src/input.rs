//! The parts of Services, EndpointSlices and the Node that matter here, parsed once.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use k8s_openapi::api::{
    core::v1::{Node, Service},
    discovery::v1::{Endpoint as ApiEndpoint, EndpointSlice},
};
use xebec_netlink::Cidr;

use crate::model::Transport;

/// Another proxy serves the Service (KEP-2447); so it is with its slices.
const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// Slices of a Service without address.
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// `spec.sessionAffinityConfig.clientIP.timeoutSeconds` by default: three hours.
const DEFAULT_AFFINITY: u32 = 10_800;

/// Namespace and name.
pub type Name = (String, String);

/// A Service that is to be served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceInfo {
    /// Its addresses inside the cluster.
    pub cluster_ips: Vec<IpAddr>,
    /// `externalIPs` and the load balancer's addresses.
    pub external_ips: Vec<IpAddr>,
    /// The load balancer's addresses alone, which source ranges apply to.
    pub balancer_ips: Vec<IpAddr>,
    /// `loadBalancerSourceRanges`.
    pub source_ranges: Vec<Cidr>,
    /// Its ports.
    pub ports: Vec<ServicePortInfo>,
    /// Seconds that a client keeps its endpoint; 0 without affinity.
    pub affinity: u32,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
    /// `externalTrafficPolicy: Local`.
    pub external_local: bool,
    /// Port of the health check, 0 without.
    pub health_port: u16,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePortInfo {
    /// Its name, empty when it has none.
    pub name: String,
    /// Transport protocol.
    pub transport: Transport,
    /// Port.
    pub port: u16,
    /// Port of the node, 0 without.
    pub node_port: u16,
}

/// The endpoints of one slice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SliceInfo {
    /// The Service, in the slice's namespace.
    pub service: String,
    /// Port numbers by name and protocol.
    pub ports: Vec<(String, Transport, u16)>,
    /// Its endpoints.
    pub endpoints: Vec<SliceEndpoint>,
}

/// One endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Its address: the first one, as all are the same endpoint.
    pub ip: IpAddr,
    /// Takes new connections.
    pub ready: bool,
    /// Answers, though perhaps about to end.
    pub serving: bool,
    /// About to end.
    pub terminating: bool,
    /// Its node.
    pub node: Option<String>,
    /// Zones that should use it (KEP-2433).
    pub zones: Vec<String>,
    /// Nodes that should use it (KEP-3015).
    pub nodes: Vec<String>,
}

/// What is known of the node that packets are to be served on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its name.
    pub name: String,
    /// Its zone.
    pub zone: Option<String>,
    /// Its addresses.
    pub addresses: BTreeSet<IpAddr>,
}

impl ServiceInfo {
    /// The Service, or `None` when there is nothing to serve: headless, `ExternalName`, without address, or another
    /// proxy's.
    pub fn parse(service: &Service) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        let labels = service.metadata.labels.as_ref();
        let kind = spec.type_.as_deref().unwrap_or("ClusterIP");
        if kind == "ExternalName" || labels.is_some_and(|labels| labels.contains_key(PROXY_NAME_LABEL)) {
            return None;
        }
        let single = spec.cluster_ip.iter().cloned().collect::<Vec<_>>();
        let cluster_ips =
            addresses(spec.cluster_ips.as_ref().filter(|ips| !ips.is_empty()).unwrap_or(&single));
        if cluster_ips.is_empty() {
            return None;
        }
        let balancer = kind == "LoadBalancer";
        let balancer_ips = if balancer { balancer_addresses(service) } else { Vec::new() };
        let mut external_ips = addresses(spec.external_ips.as_deref().unwrap_or_default());
        external_ips
            .extend(balancer_ips.iter().filter(|ip| !external_ips.contains(ip)).copied().collect::<Vec<_>>());
        let ranges = spec.load_balancer_source_ranges.as_deref().unwrap_or_default();
        let has_node_ports = balancer || kind == "NodePort";
        let affinity = match spec.session_affinity.as_deref() {
            Some("ClientIP") => {
                let config =
                    spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
                let seconds = config.and_then(|config| config.timeout_seconds);
                seconds.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(DEFAULT_AFFINITY)
            }
            _ => 0,
        };
        let ports = spec.ports.as_deref().unwrap_or_default().iter().filter_map(|port| {
            Some(ServicePortInfo {
                name: port.name.clone().unwrap_or_default(),
                transport: Transport::parse(port.protocol.as_deref())?,
                port: u16::try_from(port.port).ok()?,
                node_port: if has_node_ports { number(port.node_port) } else { 0 },
            })
        });
        Some(Self {
            cluster_ips,
            source_ranges: if balancer {
                ranges.iter().filter_map(|r| r.trim().parse().ok()).collect()
            } else {
                vec![]
            },
            external_ips,
            balancer_ips,
            ports: ports.collect(),
            affinity,
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
            health_port: if balancer { number(spec.health_check_node_port) } else { 0 },
        })
    }
}

impl SliceInfo {
    /// The slice, or `None` when it belongs to no Service that is served.
    pub fn parse(slice: &EndpointSlice) -> Option<Self> {
        let labels = slice.metadata.labels.as_ref()?;
        if labels.contains_key(HEADLESS_LABEL) || labels.contains_key(PROXY_NAME_LABEL) {
            return None;
        }
        let service = labels.get(SERVICE_NAME_LABEL).filter(|name| !name.is_empty())?.clone();
        let ports = slice.ports.as_deref().unwrap_or_default().iter().filter_map(|port| {
            let number = u16::try_from(port.port?).ok()?;
            Some((port.name.clone().unwrap_or_default(), Transport::parse(port.protocol.as_deref())?, number))
        });
        let endpoints = slice.endpoints.as_deref().unwrap_or_default().iter().filter_map(endpoint);
        // Names of hosts (address type FQDN) do not parse and drop out.
        Some(Self { service, ports: ports.collect(), endpoints: endpoints.collect() })
    }
}

impl NodeInfo {
    /// What matters of a Node.
    pub fn parse(node: &Node) -> Self {
        let labels = node.metadata.labels.as_ref();
        let status = node.status.as_ref();
        let listed = status.and_then(|status| status.addresses.as_deref()).unwrap_or_default();
        Self {
            name: node.metadata.name.clone().unwrap_or_default(),
            zone: labels.and_then(|labels: &BTreeMap<_, _>| labels.get(ZONE_LABEL)).cloned(),
            addresses: listed.iter().filter_map(|address| address.address.parse().ok()).collect(),
        }
    }
}

fn endpoint(endpoint: &ApiEndpoint) -> Option<SliceEndpoint> {
    let conditions = endpoint.conditions.as_ref();
    // An absent condition is to be read as ready (`discovery/v1`), and serving follows ready.
    let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
    let hints = endpoint.hints.as_ref();
    let zones = hints.and_then(|hints| hints.for_zones.as_deref()).unwrap_or_default();
    let nodes = hints.and_then(|hints| hints.for_nodes.as_deref()).unwrap_or_default();
    Some(SliceEndpoint {
        ip: endpoint.addresses.first()?.parse().ok()?,
        ready,
        serving: conditions.and_then(|conditions| conditions.serving).unwrap_or(ready),
        terminating: conditions.and_then(|conditions| conditions.terminating).unwrap_or(false),
        node: endpoint.node_name.clone(),
        zones: zones.iter().map(|zone| zone.name.clone()).collect(),
        nodes: nodes.iter().map(|node| node.name.clone()).collect(),
    })
}

fn balancer_addresses(service: &Service) -> Vec<IpAddr> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|status| status.ingress.as_deref()).unwrap_or_default();
    // In Proxy mode the balancer itself has to see the packets (KEP-1860).
    let direct = ingress.iter().filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"));
    direct.filter_map(|ingress| ingress.ip.as_ref()?.parse().ok()).collect()
}

fn addresses(texts: &[String]) -> Vec<IpAddr> {
    // "None" of a headless Service does not parse either.
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

fn number(port: Option<i32>) -> u16 {
    port.and_then(|port| u16::try_from(port).ok()).unwrap_or(0)
}
