//! Environment variables that announce Services to containers.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;

/// Variables of the Services a pod of this namespace sees: with `links` those of its namespace, and always the
/// `kubernetes` Service of `default`. Services without an address announce nothing.
pub fn service_env(services: &[Service], namespace: &str, links: bool) -> Vec<(String, String)> {
    let mut chosen: Vec<&Service> = services
        .iter()
        .filter(|service| {
            let meta = &service.metadata;
            let (ns, name) = (meta.namespace.as_deref(), meta.name.as_deref());
            let master = ns == Some("default") && name == Some("kubernetes");
            master || (links && ns == Some(namespace) && name != Some("kubernetes"))
        })
        .collect();
    chosen.sort_by_key(|s| s.metadata.name.clone());
    chosen.into_iter().flat_map(variables).collect()
}

/// The variables of one Service, the older Docker-link ones included.
fn variables(service: &Service) -> Vec<(String, String)> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let Some(ip) = spec.cluster_ip.as_deref().and_then(|ip| ip.parse::<IpAddr>().ok()) else {
        return Vec::new();
    };
    let name = upper(service.metadata.name.as_deref().unwrap_or_default());
    let ports = spec.ports.as_deref().unwrap_or_default();
    let Some(first) = ports.first() else { return Vec::new() };
    let mut out = vec![
        (format!("{name}_SERVICE_HOST"), ip.to_string()),
        (format!("{name}_SERVICE_PORT"), first.port.to_string()),
    ];
    for port in ports {
        if let Some(port_name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            out.push((format!("{name}_SERVICE_PORT_{}", upper(port_name)), port.port.to_string()));
        }
    }
    for (index, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let lower = protocol.to_lowercase();
        let url = format!("{lower}://{}:{}", crate::spec::bracketed(ip), port.port);
        if index == 0 {
            out.push((format!("{name}_PORT"), url.clone()));
        }
        let prefix = format!("{name}_PORT_{}_{protocol}", port.port);
        out.push((prefix.clone(), url));
        out.push((format!("{prefix}_PROTO"), lower));
        out.push((format!("{prefix}_PORT"), port.port.to_string()));
        out.push((format!("{prefix}_ADDR"), ip.to_string()));
    }
    out
}

fn upper(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn service(ns: &str, name: &str, ip: &str) -> Service {
        serde_json::from_value(serde_json::json!({
            "metadata": {"namespace": ns, "name": name},
            "spec": {"clusterIP": ip, "ports": [{"name": "http-web", "port": 80}]}
        }))
        .unwrap()
    }

    #[test]
    fn links_and_the_master() {
        let services = [
            service("default", "kubernetes", "10.0.0.1"),
            service("a", "my-web", "10.0.0.2"),
            service("a", "headless", "None"),
            service("b", "other", "10.0.0.3"),
        ];
        let text = |links| {
            let vars = service_env(&services, "a", links);
            vars.iter().map(|(k, v)| format!("{k}={v}\n")).collect::<String>()
        };
        assert!(text(false).starts_with("KUBERNETES_SERVICE_HOST=10.0.0.1\nKUBERNETES_SERVICE_PORT=80\n"));
        assert!(!text(false).contains("MY_WEB"));
        assert!(text(true).contains("MY_WEB_SERVICE_PORT_HTTP_WEB=80\nMY_WEB_PORT=tcp://10.0.0.2:80\n"));
        assert!(text(true).contains("MY_WEB_PORT_80_TCP_ADDR=10.0.0.2\n"));
        assert!(!text(true).contains("OTHER"));
    }
}
