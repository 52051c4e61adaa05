//! Where a request about a pod, node or Service goes, worked out from the objects.

use std::fmt::Write;

use serde_json::Value;
use xebec_registry::ObjectReader;
use xebec_types::{GroupResource, Status, object};

use crate::api::{Api, Call};

/// The kubelet's port when a node does not say.
const KUBELET_PORT: u16 = 10250;
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// How the connection is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Via {
    /// TLS to a kubelet.
    Kubelet,
    /// Plain, to a pod.
    Plain,
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub via: Via,
    pub host: String,
    pub port: u16,
    /// Path and query.
    pub path: String,
}

impl Place {
    pub fn address(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

/// Parameters of `pods/log` that the kubelet understands.
const LOG_PARAMETERS: [&str; 9] = [
    "follow",
    "previous",
    "sinceSeconds",
    "sinceTime",
    "timestamps",
    "tailLines",
    "limitBytes",
    "insecureSkipTLSVerifyBackend",
    "stream",
];

pub(super) fn log(api: &Api, call: &Call, pod: &Value) -> Result<Place, Status> {
    let container = container(pod, call.query.get("container"), "")?;
    let mut query = String::new();
    for key in LOG_PARAMETERS {
        if call.query.has(key) && key != "insecureSkipTLSVerifyBackend" {
            append(&mut query, key, call.query.get(key));
        }
    }
    let (namespace, name) = (object::namespace(pod), object::name(pod));
    at_kubelet(api, pod, format!("/containerLogs/{namespace}/{name}/{container}"), &query)
}

pub(super) fn exec(api: &Api, call: &Call, pod: &Value, verb: &str) -> Result<Place, Status> {
    let container = container(pod, call.query.get("container"), verb)?;
    let mut query = String::new();
    for (from, to) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
        if call.query.flag(from) {
            append(&mut query, to, "1");
        }
    }
    for command in call.query.all("command") {
        append(&mut query, "command", command);
    }
    let (namespace, name) = (object::namespace(pod), object::name(pod));
    at_kubelet(api, pod, format!("/{verb}/{namespace}/{name}/{container}"), &query)
}

pub(super) fn port_forward(api: &Api, call: &Call, pod: &Value) -> Result<Place, Status> {
    let mut query = String::new();
    for ports in call.query.all("ports") {
        append(&mut query, "port", ports);
    }
    at_kubelet(api, pod, format!("/portForward/{}/{}", object::namespace(pod), object::name(pod)), &query)
}

pub(super) fn pod_proxy(call: &Call, pod: &Value) -> Result<Place, Status> {
    let ip = object::str_at(pod, "status.podIP");
    if ip.is_empty() {
        return Err(Status::bad_request(format!(
            "address not allowed: pod {} has no IP yet",
            object::name(pod)
        )));
    }
    let ports = object::at(pod, "spec.containers").and_then(Value::as_array).into_iter().flatten();
    let mut ports = ports.flat_map(|c| c["ports"].as_array().into_iter().flatten());
    let port = ports.find_map(|port| port["containerPort"].as_u64()).and_then(|p| u16::try_from(p).ok());
    Ok(Place { via: Via::Plain, host: ip.into(), port: port.unwrap_or(80), path: rest(call) })
}

pub(super) fn node_proxy(call: &Call, node: &Value) -> Result<Place, Status> {
    let (host, port) = kubelet_of(node)?;
    Ok(Place { via: Via::Kubelet, host, port, path: rest(call) })
}

/// A Service is reached at any of its ready endpoints.
pub(super) fn service_proxy(api: &Api, call: &Call, service: &Value) -> Result<Place, Status> {
    let name = object::name(service);
    let slices =
        api.cache.list(&GroupResource::new("discovery.k8s.io", "endpointslices"), object::namespace(service));
    let own = slices
        .iter()
        .filter(|slice| object::labels(slice).any(|(k, v)| k == "kubernetes.io/service-name" && v == name));
    for slice in own {
        let port = slice["ports"].as_array().into_iter().flatten().find_map(|port| port["port"].as_u64());
        let endpoints = slice["endpoints"].as_array().into_iter().flatten();
        let mut ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != false);
        let address = ready.find_map(|endpoint| endpoint["addresses"][0].as_str());
        if let (Some(host), Some(port)) = (address, port.and_then(|port| u16::try_from(port).ok())) {
            return Ok(Place { via: Via::Plain, host: host.into(), port, path: rest(call) });
        }
    }
    Err(Status::unavailable(format!("no endpoints available for service {name:?}")))
}

fn rest(call: &Call) -> String {
    format!("/{}", call.info.rest)
}

fn at_kubelet(api: &Api, pod: &Value, path: String, query: &str) -> Result<Place, Status> {
    let node = object::str_at(pod, "spec.nodeName");
    if node.is_empty() {
        return Err(Status::bad_request(format!("pod {} does not have a host assigned", object::name(pod))));
    }
    let resource = GroupResource::new("", "nodes");
    let node = api.cache.get(&resource, "", node).ok_or_else(|| Status::not_found(&resource, node))?;
    let (host, port) = kubelet_of(&node)?;
    let path = if query.is_empty() { path } else { format!("{path}?{query}") };
    Ok(Place { via: Via::Kubelet, host, port, path })
}

/// Address and port of a node's kubelet: upstream prefers the name, which need not resolve; the internal address does.
fn kubelet_of(node: &Value) -> Result<(String, u16), Status> {
    let addresses = object::at(node, "status.addresses").and_then(Value::as_array);
    let of = |kind: &str| {
        let found = addresses?.iter().find(|address| address["type"] == kind)?;
        found["address"].as_str().map(str::to_owned)
    };
    let host = of("InternalIP").or_else(|| of("ExternalIP")).or_else(|| of("Hostname"));
    let host = host.ok_or_else(|| {
        Status::internal(format!("no preferred addresses found on node {}", object::name(node)))
    })?;
    let port = object::at(node, "status.daemonEndpoints.kubeletEndpoint.Port").and_then(Value::as_u64);
    Ok((host, port.and_then(|port| u16::try_from(port).ok()).unwrap_or(KUBELET_PORT)))
}

/// The container that is meant: the named one, the default one, or the only one.
fn container(pod: &Value, wanted: &str, verb: &str) -> Result<String, Status> {
    let named = |list: &str| -> Vec<String> {
        let list = pod["spec"][list].as_array().into_iter().flatten();
        list.filter_map(|c| c["name"].as_str()).map(str::to_owned).collect()
    };
    let containers = named("containers");
    let (inits, ephemeral) = (named("initContainers"), named("ephemeralContainers"));
    let name = object::name(pod);
    if !wanted.is_empty() {
        let known = [&containers, &inits, &ephemeral].into_iter().flatten().any(|c| c == wanted);
        return match known {
            true => Ok(wanted.to_owned()),
            false => Err(Status::bad_request(format!("container {wanted} is not valid for pod {name}"))),
        };
    }
    if let [only] = containers.as_slice() {
        return Ok(only.clone());
    }
    let annotated = object::at(pod, "metadata.annotations").and_then(|a| a.get(DEFAULT_CONTAINER));
    if let Some(default) = annotated.and_then(Value::as_str).filter(|d| containers.iter().any(|c| c == d)) {
        return Ok(default.to_owned());
    }
    if containers.is_empty() {
        return Err(Status::bad_request(format!("pod {name} has no containers")));
    }
    if verb.is_empty() || inits.is_empty() && ephemeral.is_empty() {
        let mut text = format!(
            "a container name must be specified for pod {name}, choose one of: [{}]",
            containers.join(" ")
        );
        if !inits.is_empty() {
            text.push_str(&format!(" or one of the init containers: [{}]", inits.join(" ")));
        }
        return Err(Status::bad_request(text));
    }
    Ok(containers[0].clone())
}

fn append(query: &mut String, key: &str, value: &str) {
    if !query.is_empty() {
        query.push('&');
    }
    query.push_str(key);
    query.push('=');
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                query.push(char::from(byte))
            }
            _ => write!(query, "%{byte:02X}").expect("invariant: strings take everything"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn containers_are_chosen_as_upstream_does() {
        let one = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}]}});
        assert_eq!(container(&one, "", "exec").unwrap(), "a");
        assert_eq!(container(&one, "x", "exec").unwrap_err().message, "container x is not valid for pod p");
        let mut two = json!({"metadata": {"name": "p"}, "spec": {
            "containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        assert_eq!(
            container(&two, "", "").unwrap_err().message,
            "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]"
        );
        assert_eq!(container(&two, "i", "").unwrap(), "i");
        two["metadata"]["annotations"] = json!({DEFAULT_CONTAINER: "b"});
        assert_eq!(container(&two, "", "exec").unwrap(), "b");
    }

    #[test]
    fn kubelets_are_found_by_address_and_port() {
        let node = json!({"metadata": {"name": "n"}, "status": {
            "addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "10.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 1234}}}});
        assert_eq!(kubelet_of(&node).unwrap(), ("10.0.0.1".to_owned(), 1234));
        let mut query = String::new();
        append(&mut query, "command", "a b&c");
        assert_eq!(query, "command=a%20b%26c");
    }
}
