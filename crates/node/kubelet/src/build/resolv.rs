//! The resolver configuration of a pod, by `dnsPolicy` and `dnsConfig`.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use xebec_cri::DnsConfig;

use crate::spec;

/// glibc and upstream's validation take no more name servers than this.
const MAX_SERVERS: usize = 3;
/// Search domains upstream's validation allows (KEP-2595).
const MAX_SEARCHES: usize = 32;
/// Characters in all search domains together (KEP-2595).
const MAX_SEARCH_CHARS: usize = 2048;

/// Reads a `resolv.conf` (resolv.conf(5)).
pub fn parse(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => config.servers.extend(words.next().map(str::to_owned)),
            Some("search") => config.searches = words.filter(|w| *w != ".").map(str::to_owned).collect(),
            Some("options") => config.options = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    config
}

/// The pod's resolver configuration.
pub fn pod_dns(pod: &Pod, host: &DnsConfig, cluster_dns: &[IpAddr], domain: &str) -> DnsConfig {
    let Some(pod_spec) = &pod.spec else { return host.clone() };
    let policy = match pod_spec.dns_policy.as_deref().unwrap_or("ClusterFirst") {
        "ClusterFirst" if spec::host_network(pod) => "Default",
        "ClusterFirst" | "ClusterFirstWithHostNet" if cluster_dns.is_empty() => "Default",
        "ClusterFirstWithHostNet" => "ClusterFirst",
        other => other,
    };
    let mut config = match policy {
        "None" => DnsConfig::default(),
        "ClusterFirst" => {
            let namespace = spec::namespace(pod);
            let own = [format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()];
            DnsConfig {
                servers: cluster_dns.iter().map(ToString::to_string).collect(),
                searches: own.into_iter().chain(host.searches.iter().cloned()).collect(),
                options: vec!["ndots:5".into()],
            }
        }
        _ => host.clone(),
    };
    if let Some(extra) = &pod_spec.dns_config {
        config.servers.extend(extra.nameservers.iter().flatten().cloned());
        config.searches.extend(extra.searches.iter().flatten().cloned());
        for option in extra.options.iter().flatten() {
            let name = option.name.as_deref().unwrap_or_default();
            config.options.retain(|o| o.split(':').next() != Some(name));
            config.options.push(match option.value.as_deref().filter(|v| !v.is_empty()) {
                Some(value) => format!("{name}:{value}"),
                None => name.to_owned(),
            });
        }
    }
    limit(config)
}

fn limit(mut config: DnsConfig) -> DnsConfig {
    let unique = |list: Vec<String>| {
        let mut seen = std::collections::BTreeSet::new();
        list.into_iter().filter(|item| seen.insert(item.clone())).collect::<Vec<_>>()
    };
    config.servers = unique(config.servers);
    config.servers.truncate(MAX_SERVERS);
    config.searches = unique(config.searches);
    config.searches.truncate(MAX_SEARCHES);
    let mut chars = 0;
    config.searches.retain(|domain| {
        chars += domain.len() + 1;
        chars <= MAX_SEARCH_CHARS + 1
    });
    config
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn dns(pod_spec: serde_json::Value) -> String {
        let mut pod_spec = pod_spec;
        pod_spec["containers"] = json!([]);
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"namespace": "n"}, "spec": pod_spec})).unwrap();
        let host = parse("# c\nnameserver 9.9.9.9\nsearch corp.example\noptions timeout:1\n");
        let c = pod_dns(&pod, &host, &["10.96.0.10".parse().unwrap()], "cluster.local");
        format!("{} | {} | {}", c.servers.join(" "), c.searches.join(" "), c.options.join(" "))
    }

    #[test]
    fn policies() {
        let cluster =
            "10.96.0.10 | n.svc.cluster.local svc.cluster.local cluster.local corp.example | ndots:5";
        let host = "9.9.9.9 | corp.example | timeout:1";
        assert_eq!(dns(json!({})), cluster);
        assert_eq!(dns(json!({"hostNetwork": true})), host);
        assert_eq!(dns(json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"})), cluster);
        assert_eq!(dns(json!({"dnsPolicy": "Default"})), host);
        let own = json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1", "1.1.1.1"],
            "searches": ["x"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}});
        assert_eq!(dns(own), "1.1.1.1 | x | ndots:2 edns0");
        let merged = json!({"dnsConfig": {"options": [{"name": "ndots", "value": "2"}]}});
        assert!(dns(merged).ends_with("| ndots:2"));
    }
}
