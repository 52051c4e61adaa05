//! What a Service may say, and what may change in it.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;
use xebec_schema::{FieldError, Path, error};
use xebec_types::names;

use super::{kind, needs_cluster_ip};
use crate::cells::list_at;
use crate::check::{self, Errors};
use crate::core::pod_spec;

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
/// A day.
const MAX_AFFINITY_SECONDS: i32 = 86400;

/// Everything wrong with a new Service.
pub(crate) fn create(object: &Value) -> Vec<FieldError> {
    let service: Service = match check::typed(object) {
        Ok(service) => service,
        Err(errors) => return errors,
    };
    let spec = service.spec.unwrap_or_default();
    let path = Path::new("spec");
    let mut errors = Errors::new();
    let kind = spec.type_.as_deref().unwrap_or("");
    let headless = spec.cluster_ips.as_ref().is_some_and(|ips| ips.first().is_some_and(|ip| ip == "None"));
    check::one_of(&path.child("type"), kind, TYPES, &mut errors);
    by_type(&spec, kind, headless, &path, &mut errors);
    ports(&spec, kind, &path, &mut errors);
    check::labels(spec.selector.as_ref(), &path.child("selector"), &mut errors);
    affinity(&spec, &path, &mut errors);
    cluster_ips(&spec, kind, &path, &mut errors);
    traffic(&spec, kind, &path, &mut errors);
    for (i, ip) in spec.external_ips.iter().flatten().enumerate() {
        pod_spec::ip(ip, &path.child("externalIPs").index(i), &mut errors);
    }
    errors
}

/// Everything wrong with a changed Service.
pub(crate) fn update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    // Addresses may be won and lost with the type, never exchanged.
    if needs_cluster_ip(old) && needs_cluster_ip(new) {
        let path = Path::new("spec").child("clusterIPs");
        let (before, after) = (list_at(old, "spec.clusterIPs"), list_at(new, "spec.clusterIPs"));
        let first = |list: &[Value]| list.first().cloned();
        if first(before).is_some() && first(after) != first(before) {
            let value = first(after).unwrap_or_default();
            errors.push(error::invalid(&path.index(0), value.clone(), "may not change once set"));
        }
        if before.len() > 1 && after.len() > 1 && before[1] != after[1] {
            errors.push(error::invalid(&path.index(1), after[1].clone(), "may not change once set"));
        }
    }
    if kind(old) == "LoadBalancer" && kind(new) == "LoadBalancer" {
        let class = |s: &Value| s["spec"].get("loadBalancerClass").cloned();
        if class(new) != class(old) {
            let path = Path::new("spec").child("loadBalancerClass");
            errors.push(error::invalid(&path, class(new).unwrap_or_default(), "may not change once set"));
        }
    }
    errors.extend(create(new));
    errors
}

fn by_type(spec: &ServiceSpec, kind: &str, headless: bool, path: &Path, errors: &mut Errors) {
    let no_ports = spec.ports.as_ref().is_none_or(Vec::is_empty);
    if no_ports && !headless && kind != "ExternalName" {
        errors.push(error::required(&path.child("ports"), ""));
    }
    match kind {
        "LoadBalancer" if headless => {
            let why = "may not be set to 'None' for LoadBalancer services";
            errors.push(error::invalid(&path.child("clusterIPs").index(0), "None", why));
        }
        "NodePort" if headless => {
            let why = "may not be set to 'None' for NodePort services";
            errors.push(error::invalid(&path.child("clusterIPs").index(0), "None", why));
        }
        "ExternalName" => {
            if spec.cluster_ips.as_ref().is_some_and(|ips| !ips.is_empty()) {
                let why = "may not be set for ExternalName services";
                errors.push(error::forbidden(&path.child("clusterIPs"), why));
            }
            if spec.ip_families.as_ref().is_some_and(|f| !f.is_empty()) {
                let why = "may not be set for ExternalName services";
                errors.push(error::forbidden(&path.child("ipFamilies"), why));
            }
            if spec.ip_family_policy.is_some() {
                let why = "may not be set for ExternalName services";
                errors.push(error::forbidden(&path.child("ipFamilyPolicy"), why));
            }
            let name = spec.external_name.as_deref().unwrap_or("");
            let name = name.strip_suffix('.').unwrap_or(name);
            check::required_name(&path.child("externalName"), name, names::dns1123_subdomain, errors);
        }
        _ => {}
    }
}

fn ports(spec: &ServiceSpec, kind: &str, path: &Path, errors: &mut Errors) {
    let all = spec.ports.as_deref().unwrap_or_default();
    let (mut seen, mut triples, mut nodes) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (i, port) in all.iter().enumerate() {
        let path = path.child("ports").index(i);
        let label = port.name.as_deref().unwrap_or("");
        if label.is_empty() && all.len() > 1 {
            errors.push(error::required(&path.child("name"), ""));
        } else if !label.is_empty() {
            check::rules(&path.child("name"), label, names::dns1123_label(label), errors);
            if !seen.insert(label) {
                errors.push(error::duplicate(&path.child("name"), label));
            }
        }
        one_port(port, &path, errors);
        let protocol = port.protocol.as_deref().unwrap_or("");
        if !triples.insert((protocol, port.port)) {
            let value = serde_json::json!({"port": port.port, "protocol": protocol});
            errors.push(error::duplicate(&path, value));
        }
        let Some(node) = port.node_port.filter(|n| *n != 0) else { continue };
        if ["ClusterIP", "ExternalName"].contains(&kind) {
            let why = format!("may not be used when `type` is '{kind}'");
            errors.push(error::forbidden(&path.child("nodePort"), why));
        } else if !nodes.insert((protocol, node)) {
            errors.push(error::duplicate(&path.child("nodePort"), node));
        }
    }
}

fn one_port(port: &ServicePort, path: &Path, errors: &mut Errors) {
    check::port(&path.child("port"), port.port.into(), errors);
    let protocol = port.protocol.as_deref().unwrap_or("");
    check::one_of(&path.child("protocol"), protocol, &["SCTP", "TCP", "UDP"], errors);
    let target = path.child("targetPort");
    match &port.target_port {
        Some(IntOrString::Int(number)) => check::port(&target, (*number).into(), errors),
        Some(IntOrString::String(name)) => check::rules(&target, name, names::port_name(name), errors),
        None => {}
    }
    if let Some(protocol) = port.app_protocol.as_deref() {
        check::rules(&path.child("appProtocol"), protocol, names::qualified_name(protocol), errors);
    }
}

fn affinity(spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
    let affinity = spec.session_affinity.as_deref().unwrap_or("");
    check::one_of(&path.child("sessionAffinity"), affinity, &["ClientIP", "None"], errors);
    let config = spec.session_affinity_config.as_ref();
    let at = path.child("sessionAffinityConfig");
    if affinity == "None" && config.is_some() {
        errors.push(error::forbidden(&at, "must not be set when session affinity is None"));
    }
    let Some(client) = config.and_then(|c| c.client_ip.as_ref()) else { return };
    let seconds = client.timeout_seconds.unwrap_or(0);
    if !(1..=MAX_AFFINITY_SECONDS).contains(&seconds) {
        let why = format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}");
        errors.push(error::invalid(&at.child("clientIP").child("timeoutSeconds"), seconds, why));
    }
}

fn cluster_ips(spec: &ServiceSpec, kind: &str, path: &Path, errors: &mut Errors) {
    let ips = spec.cluster_ips.as_deref().unwrap_or_default();
    let at = path.child("clusterIPs");
    let single = spec.cluster_ip.as_deref().unwrap_or("");
    if kind != "ExternalName" && ips.first().is_some_and(|ip| !single.is_empty() && ip != single) {
        let why = "first value must match `clusterIP`";
        errors.push(error::invalid(&at, serde_json::json!(ips), why));
    }
    if ips.len() > 2 {
        errors.push(error::invalid(&at, serde_json::json!(ips), "may only hold up to 2 values"));
    }
    for (i, ip) in ips.iter().enumerate() {
        if ip == "None" {
            if ips.len() > 1 {
                let why = "'None' must be the first and only value";
                errors.push(error::invalid(&at, serde_json::json!(ips), why));
            }
            continue;
        }
        pod_spec::ip(ip, &at.index(i), errors);
    }
    for (i, family) in spec.ip_families.iter().flatten().enumerate() {
        check::one_of(&path.child("ipFamilies").index(i), family, &["IPv4", "IPv6"], errors);
    }
    if let Some(policy) = spec.ip_family_policy.as_deref() {
        let supported = ["SingleStack", "PreferDualStack", "RequireDualStack"];
        check::one_of(&path.child("ipFamilyPolicy"), policy, &supported, errors);
    }
}

fn traffic(spec: &ServiceSpec, kind: &str, path: &Path, errors: &mut Errors) {
    let external = spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty());
    let reachable = ["NodePort", "LoadBalancer"].contains(&kind) || (kind == "ClusterIP" && external);
    let at = path.child("externalTrafficPolicy");
    match spec.external_traffic_policy.as_deref() {
        None => {}
        Some(policy) if !reachable => {
            errors.push(error::invalid(&at, policy, "may only be set for externally-accessible services"));
        }
        Some(policy) => check::one_of(&at, policy, &["Cluster", "Local"], errors),
    }
    let at = path.child("internalTrafficPolicy");
    match spec.internal_traffic_policy.as_deref() {
        Some(policy) => check::one_of(&at, policy, &["Cluster", "Local"], errors),
        None if ["ClusterIP", "NodePort", "LoadBalancer"].contains(&kind) => {
            errors.push(error::required(&at, ""))
        }
        None => {}
    }
    let local = kind == "LoadBalancer" && spec.external_traffic_policy.as_deref() == Some("Local");
    if !local && spec.health_check_node_port.is_some_and(|p| p != 0) {
        let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        let port = spec.health_check_node_port.unwrap_or(0);
        errors.push(error::invalid(&path.child("healthCheckNodePort"), port, why));
    }
    for (field, set) in [
        ("allocateLoadBalancerNodePorts", spec.allocate_load_balancer_node_ports.is_some()),
        ("loadBalancerClass", spec.load_balancer_class.is_some()),
    ] {
        if set && kind != "LoadBalancer" {
            errors
                .push(error::forbidden(&path.child(field), "may only be used when `type` is 'LoadBalancer'"));
        }
    }
}
