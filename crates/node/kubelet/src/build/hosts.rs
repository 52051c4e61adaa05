//! The `/etc/hosts` of a pod.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;

use crate::spec;

const OWN: &str = "\
# Kubernetes-managed hosts file.
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
fe00::0\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
";

/// The file's text. A pod on the host network gets the node's file instead of the standard entries.
pub fn hosts_file(pod: &Pod, ips: &[IpAddr], cluster_domain: &str, node_file: &str) -> String {
    let mut text = if spec::host_network(pod) {
        format!("# Kubernetes-managed hosts file (host network).\n{node_file}")
    } else {
        let (host, domain) = spec::hostname(pod, cluster_domain);
        let mut text = OWN.to_owned();
        for ip in ips {
            match domain.as_str() {
                "" => text.push_str(&format!("{ip}\t{host}\n")),
                _ => text.push_str(&format!("{ip}\t{host}.{domain}\t{host}\n")),
            }
        }
        text
    };
    let aliases = pod.spec.as_ref().and_then(|s| s.host_aliases.as_deref()).unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
            text.push_str(&format!("{}\t{names}\n", alias.ip));
        }
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn own_and_host_network_files() {
        let mut value = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": [],
            "subdomain": "web", "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]}});
        let pod: Pod = serde_json::from_value(value.clone()).unwrap();
        let text = hosts_file(&pod, &["10.0.0.5".parse().unwrap()], "cluster.local", "");
        assert!(text.contains("10.0.0.5\tp.web.n.svc.cluster.local\tp\n"));
        assert!(text.ends_with("\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"));
        value["spec"]["hostNetwork"] = json!(true);
        let pod: Pod = serde_json::from_value(value).unwrap();
        let text = hosts_file(&pod, &[], "cluster.local", "127.0.0.1 localhost\n");
        assert!(text.starts_with("# Kubernetes-managed hosts file (host network).\n127.0.0.1 localhost\n"));
    }
}
