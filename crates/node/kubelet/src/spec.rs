//! Questions that everyone asks about a pod's spec.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use xebec_types::Quantity;

/// What role a container plays in its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Runs to completion before the main containers.
    Init,
    /// An init container with `restartPolicy: Always` (KEP-753).
    Sidecar,
    /// A main container.
    Main,
}

/// Role of an init container.
pub fn init_role(container: &Container) -> Role {
    if container.restart_policy.as_deref() == Some("Always") { Role::Sidecar } else { Role::Init }
}

/// All containers with their roles: init containers first, each list in its order.
pub fn containers(spec: &PodSpec) -> impl Iterator<Item = (Role, &Container)> {
    let inits = spec.init_containers.iter().flatten().map(|c| (init_role(c), c));
    inits.chain(spec.containers.iter().map(|c| (Role::Main, c)))
}

/// The container with this name.
pub fn container<'a>(pod: &'a Pod, name: &str) -> Option<(Role, &'a Container)> {
    containers(pod.spec.as_ref()?).find(|(_, c)| c.name == name)
}

/// UID.
pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// Name.
pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// Namespace.
pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or("default")
}

/// `name_namespace(uid)`, as upstream's messages show a pod.
pub fn display(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

/// Whether the pod uses the node's network.
pub fn host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|s| s.host_network).unwrap_or(false)
}

/// Restart policy of the pod.
pub fn restart_policy(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.restart_policy.as_deref()).unwrap_or("Always")
}

/// Grace period of the pod's end: of its deletion if it is being deleted, else of its spec. In seconds.
pub fn grace_seconds(pod: &Pod) -> i64 {
    let spec = pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds);
    let deletion = pod.metadata.deletion_timestamp.as_ref().and(pod.metadata.deletion_grace_period_seconds);
    deletion.or(spec).unwrap_or(30).max(0)
}

/// Quality of service classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Qos {
    /// Every container has equal requests and limits for cpu and memory.
    Guaranteed,
    /// Something is requested.
    Burstable,
    /// Nothing is requested.
    BestEffort,
}

impl Qos {
    /// As `status.qosClass` shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }

    /// Cgroup of a pod of this class, relative to the runtime's root.
    pub fn cgroup(self, uid: &str) -> String {
        match self {
            Self::Guaranteed => format!("pods/pod{uid}"),
            Self::Burstable => format!("pods/burstable/pod{uid}"),
            Self::BestEffort => format!("pods/besteffort/pod{uid}"),
        }
    }
}

/// A resource amount of a container: `(request, limit)`. A request that is not set is the limit.
pub fn amounts(container: &Container, resource: &str) -> (Option<Quantity>, Option<Quantity>) {
    let Some(resources) = &container.resources else { return (None, None) };
    let get = |list: &Option<std::collections::BTreeMap<String, _>>| {
        let list = list.as_ref()?;
        let q: &k8s_openapi::apimachinery::pkg::api::resource::Quantity = list.get(resource)?;
        q.0.parse::<Quantity>().ok()
    };
    let limit = get(&resources.limits);
    (get(&resources.requests).or(limit), limit)
}

/// Quality of service class of a pod.
pub fn qos(spec: &PodSpec) -> Qos {
    let mut any = false;
    let mut guaranteed = true;
    for (_, container) in containers(spec) {
        for resource in ["cpu", "memory"] {
            let (request, limit) = amounts(container, resource);
            let set = |q: &Option<Quantity>| q.as_ref().is_some_and(|q| !q.is_zero());
            any |= set(&request) || set(&limit);
            guaranteed &= set(&limit) && request == limit;
        }
    }
    match (any, guaranteed) {
        (false, _) => Qos::BestEffort,
        (true, true) => Qos::Guaranteed,
        (true, false) => Qos::Burstable,
    }
}

/// The number of a port given by number or by name.
pub fn resolve_port(container: &Container, port: &IntOrString) -> Option<u16> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => match name.parse::<i32>() {
            Ok(number) => number,
            Err(_) => {
                let mut ports = container.ports.iter().flatten();
                ports.find(|p| p.name.as_deref() == Some(name))?.container_port
            }
        },
    };
    u16::try_from(number).ok().filter(|p| *p > 0)
}

/// Host name and domain of a pod: `spec.hostname` or its name, cut to 63 characters.
pub fn hostname(pod: &Pod, cluster_domain: &str) -> (String, String) {
    let spec = pod.spec.clone().unwrap_or_default();
    if let Some(name) = spec.hostname_override.filter(|n| !n.is_empty()) {
        return (name, String::new());
    }
    let mut host = spec.hostname.filter(|h| !h.is_empty()).unwrap_or_else(|| name(pod).to_owned());
    if host.len() > 63 {
        host.truncate(63);
        host.truncate(host.trim_end_matches(['-', '.']).len());
    }
    let domain = match spec.subdomain.filter(|s| !s.is_empty()) {
        Some(sub) => format!("{sub}.{}.svc.{cluster_domain}", namespace(pod)),
        None => String::new(),
    };
    (host, domain)
}

/// An address as URLs and `host:port` show it.
pub fn bracketed(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_service() {
        let class = |resources: serde_json::Value| {
            let spec = serde_json::json!({"containers": [{"name": "a", "resources": resources}]});
            qos(&serde_json::from_value(spec).unwrap()).name()
        };
        assert_eq!(class(serde_json::json!({})), "BestEffort");
        assert_eq!(class(serde_json::json!({"requests": {"cpu": "1"}})), "Burstable");
        assert_eq!(class(serde_json::json!({"limits": {"cpu": "1", "memory": "1Gi"}})), "Guaranteed");
        let unequal = serde_json::json!({"limits": {"cpu": "1", "memory": "1"}, "requests": {"cpu": "500m"}});
        assert_eq!(class(unequal), "Burstable");
    }
}
