//! `Service`.

mod allocate;
mod cells;
mod families;
mod pool;
mod range;
#[cfg(test)]
mod tests;
mod validate;

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use xebec_schema::FieldError;
use xebec_types::{names, object};

pub use range::{IpRange, IpRangeError};

use self::pool::Pools;
use crate::builder::{AGE, ColumnRow, Kind, NAME, text, wide};
use crate::cells::{int_at, list_at};
use crate::defaults::{Row, absent, has, items_mut, text as field_text, zero};
use crate::{Allocation, Cells, Context, RegistryConfig, Resource, Strategy, SubresourceName, Verb};

const COLUMNS: &[ColumnRow] =
    &[NAME, text("Type"), text("Cluster-IP"), text("External-IP"), text("Port(s)"), AGE, wide("Selector")];

/// How long session affinity lasts unless the Service says otherwise, in seconds.
const AFFINITY_SECONDS: i64 = 10800;

/// The rows for [`crate::defaults::table`].
pub(crate) const DEFAULTS: &[Row] = &[
    ("core.v1.Service", service),
    ("core.v1.ServiceSpec", spec),
    ("core.v1.ServicePort", port),
    ("core.v1.LoadBalancerIngress", ingress),
];

/// The resource, with its pools.
pub(crate) fn resource(config: &RegistryConfig) -> Resource {
    use Verb::{Create, Delete, Get, List, Patch, Update, Watch};
    let strategy = ServiceStrategy {
        ranges: config.service_cidrs.clone(),
        node_ports: config.node_ports.clone(),
        pools: Arc::default(),
    };
    Kind::namespaced("v1", "Service", "services")
        .short(&["svc"])
        .categories(&["all"])
        .verbs(&[Create, Delete, Verb::DeleteCollection, Get, List, Patch, Update, Watch])
        .columns(COLUMNS)
        .status()
        .extra("proxy", "ServiceProxyOptions", &[Create, Delete, Get, Patch, Update])
        .strategy(strategy)
        .build()
}

fn service(service: &mut Map<String, Value>) {
    let status = service.entry("status").or_insert_with(|| json!({}));
    if let Some(status) = status.as_object_mut() {
        absent(status, "loadBalancer", json!({}));
    }
}

fn spec(spec: &mut Map<String, Value>) {
    zero(spec, "sessionAffinity", "None");
    if field_text(spec, "sessionAffinity") == "None" {
        spec.remove("sessionAffinityConfig");
    } else {
        absent(spec, "sessionAffinityConfig", json!({}));
        if let Some(config) = spec.get_mut("sessionAffinityConfig").and_then(Value::as_object_mut) {
            absent(config, "clientIP", json!({}));
            if let Some(client) = config.get_mut("clientIP").and_then(Value::as_object_mut) {
                absent(client, "timeoutSeconds", AFFINITY_SECONDS);
            }
        }
    }
    zero(spec, "type", "ClusterIP");
    let kind = field_text(spec, "type").to_owned();
    let external = spec.get("externalIPs").and_then(Value::as_array).is_some_and(|ips| !ips.is_empty());
    let reachable = match kind.as_str() {
        "NodePort" | "LoadBalancer" => true,
        "ClusterIP" => external,
        _ => false,
    };
    if reachable {
        zero(spec, "externalTrafficPolicy", "Cluster");
    }
    if ["ClusterIP", "NodePort", "LoadBalancer"].contains(&kind.as_str()) {
        absent(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        absent(spec, "allocateLoadBalancerNodePorts", true);
    }
    for port in items_mut(spec, "ports") {
        self::port(port);
    }
}

fn port(port: &mut Map<String, Value>) {
    zero(port, "protocol", "TCP");
    let number = port.get("port").cloned().unwrap_or(Value::Null);
    if !number.is_null() {
        zero(port, "targetPort", number);
    }
}

fn ingress(ingress: &mut Map<String, Value>) {
    if has(ingress, "ip") {
        absent(ingress, "ipMode", "VIP");
    }
}

/// What differs for services, and the pools they take from.
pub(crate) struct ServiceStrategy {
    ranges: Vec<IpRange>,
    node_ports: RangeInclusive<u16>,
    pools: Arc<Pools>,
}

/// `spec.type`, with its default.
fn kind(service: &Value) -> &str {
    match object::str_at(service, "spec.type") {
        "" => "ClusterIP",
        kind => kind,
    }
}

fn needs_node_port(service: &Value) -> bool {
    ["NodePort", "LoadBalancer"].contains(&kind(service))
}

fn needs_cluster_ip(service: &Value) -> bool {
    kind(service) != "ExternalName"
}

fn needs_health_port(service: &Value) -> bool {
    kind(service) == "LoadBalancer" && object::str_at(service, "spec.externalTrafficPolicy") == "Local"
}

/// The addresses of a Service that came from a pool.
fn addresses(service: &Value) -> Vec<IpAddr> {
    list_at(service, "spec.clusterIPs")
        .iter()
        .filter_map(Value::as_str)
        .filter_map(|ip| ip.parse().ok())
        .collect()
}

/// The node ports of a Service, each once.
fn node_ports(service: &Value) -> Vec<u16> {
    let mut ports: Vec<u16> = list_at(service, "spec.ports")
        .iter()
        .map(|port| int_at(port, "nodePort"))
        .chain([int_at(service, "spec.healthCheckNodePort")])
        .filter_map(|port| u16::try_from(port).ok())
        .filter(|port| *port != 0)
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// Clears what the old type brought and the new one does not have, unless the client set it anew.
fn drop_type_dependent(new: &mut Value, old: &Value) {
    let same = |new: &Value, path: &str| object::at(new, path) == object::at(old, path);
    let mut gone: Vec<&str> = Vec::new();
    if needs_cluster_ip(old) && !needs_cluster_ip(new) && same(new, "spec.clusterIP") {
        gone.extend(["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"]);
    }
    if needs_health_port(old) && !needs_health_port(new) && same(new, "spec.healthCheckNodePort") {
        gone.push("healthCheckNodePort");
    }
    if kind(old) == "LoadBalancer" && kind(new) != "LoadBalancer" {
        let fields = ["allocateLoadBalancerNodePorts", "loadBalancerClass"];
        gone.extend(fields.iter().filter(|f| same(new, &format!("spec.{f}"))));
    }
    if needs_node_port(old) && !needs_node_port(new) && same(new, "spec.externalTrafficPolicy") {
        gone.push("externalTrafficPolicy");
    }
    let ports = |service: &Value| -> Vec<i64> {
        list_at(service, "spec.ports").iter().map(|p| int_at(p, "nodePort")).collect()
    };
    let clear_ports = needs_node_port(old) && !needs_node_port(new) && ports(new) == ports(old);
    let spec = object::child_mut(new, "spec");
    for field in gone {
        spec.remove(field);
    }
    if clear_ports {
        for port in items_mut(spec, "ports") {
            port.remove("nodePort");
        }
    }
}

impl Strategy for ServiceStrategy {
    fn key_prefix(&self) -> Option<&'static str> {
        Some("services/specs")
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::dns1035_label(name)
    }

    fn prepare_create(&self, _cx: &Context<'_>, object: &mut Value) {
        object["status"] = json!({"loadBalancer": {}});
        families::normalize(object, None);
    }

    fn prepare_update(&self, cx: &Context<'_>, new: &mut Value, old: &Value) {
        if cx.subresource == SubresourceName::Main {
            families::normalize(new, Some(old));
            drop_type_dependent(new, old);
            allocate::carry_over(new, old);
        }
    }

    fn allocate(
        &self,
        cx: &Context<'_>,
        new: Option<&mut Value>,
        old: Option<&Value>,
    ) -> Result<Option<Box<dyn Allocation>>, Vec<FieldError>> {
        match (new, cx.subresource) {
            (Some(new), SubresourceName::Main) => self.take(new, old).map(Some),
            _ => Ok(None),
        }
    }

    fn observes(&self) -> bool {
        true
    }

    fn observed(&self, old: Option<&Value>, new: Option<&Value>) {
        let both =
            |f: fn(&Value) -> Vec<IpAddr>| (old.map(f).unwrap_or_default(), new.map(f).unwrap_or_default());
        let (before, after) = both(addresses);
        self.pools.addresses.observed(&before, &after);
        let before = old.map(node_ports).unwrap_or_default();
        self.pools.ports.observed(&before, &new.map(node_ports).unwrap_or_default());
    }

    fn validate_create(&self, _cx: &Context<'_>, object: &Value) -> Vec<FieldError> {
        validate::create(object)
    }

    fn validate_update(&self, cx: &Context<'_>, new: &Value, old: &Value) -> Vec<FieldError> {
        if cx.subresource == SubresourceName::Status { Vec::new() } else { validate::update(new, old) }
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["spec.clusterIP", "spec.type"]
    }

    fn cells(&self, _version: &str, object: &Value, now: Timestamp) -> Cells {
        cells::cells(object, now)
    }
}
