//! Configuration of a pod's sandbox.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use xebec_cri::{
    DnsConfig, NamespaceMode, NamespaceOptions, PortMapping, Protocol, SandboxConfig, SandboxMetadata,
};

use super::security::pid_mode;
use crate::labels;
use crate::spec;

/// What the node adds to a sandbox's configuration.
#[derive(Debug, Clone)]
pub struct SandboxInput {
    /// Attempt, counted from 0.
    pub attempt: u32,
    /// Directory of the logs of all pods.
    pub log_root: std::path::PathBuf,
    /// Resolver configuration.
    pub dns: DnsConfig,
    /// `cluster.local`.
    pub cluster_domain: String,
}

/// Directory of a pod's logs.
pub fn log_directory(root: &std::path::Path, pod: &Pod) -> std::path::PathBuf {
    root.join(format!("{}_{}_{}", spec::namespace(pod), spec::name(pod), spec::uid(pod)))
}

/// Makes the configuration.
pub fn sandbox(pod: &Pod, input: SandboxInput) -> SandboxConfig {
    let pod_spec = pod.spec.clone().unwrap_or_default();
    let host_network = spec::host_network(pod);
    let (host, domain) = spec::hostname(pod, &input.cluster_domain);
    let fqdn = pod_spec.set_hostname_as_fqdn == Some(true) && !domain.is_empty();
    let hostname = match (host_network, fqdn) {
        (true, _) => String::new(),
        (false, true) => format!("{host}.{domain}"),
        (false, false) => host,
    };
    let mut own_labels = pod.metadata.labels.clone().unwrap_or_default();
    own_labels.extend(labels::pod(pod));
    let sysctls = pod_spec.security_context.iter().flat_map(|c| c.sysctls.iter().flatten());
    let sysctls: BTreeMap<_, _> = sysctls.map(|s| (s.name.clone(), s.value.clone())).collect();
    let privileged = spec::containers(&pod_spec)
        .any(|(_, c)| c.security_context.as_ref().and_then(|s| s.privileged) == Some(true));
    let node_or = |node: bool| if node { NamespaceMode::Node } else { NamespaceMode::Pod };
    SandboxConfig {
        metadata: SandboxMetadata {
            name: spec::name(pod).to_owned(),
            uid: spec::uid(pod).to_owned(),
            namespace: spec::namespace(pod).to_owned(),
            attempt: input.attempt,
        },
        hostname,
        log_directory: log_directory(&input.log_root, pod),
        dns: Some(input.dns),
        port_mappings: if host_network { Vec::new() } else { port_mappings(pod) },
        labels: own_labels,
        annotations: pod.metadata.annotations.clone().unwrap_or_default(),
        cgroup_parent: spec::qos(&pod_spec).cgroup(spec::uid(pod)),
        namespaces: NamespaceOptions {
            network: node_or(host_network),
            pid: pid_mode(pod),
            ipc: node_or(pod_spec.host_ipc == Some(true)),
        },
        sysctls,
        privileged,
    }
}

fn port_mappings(pod: &Pod) -> Vec<PortMapping> {
    let Some(pod_spec) = &pod.spec else { return Vec::new() };
    let ports = spec::containers(pod_spec).flat_map(|(_, c)| c.ports.iter().flatten());
    ports
        .filter_map(|port| {
            Some(PortMapping {
                protocol: match port.protocol.as_deref() {
                    Some("UDP") => Protocol::Udp,
                    Some("SCTP") => Protocol::Sctp,
                    _ => Protocol::Tcp,
                },
                container_port: u16::try_from(port.container_port).ok()?,
                host_port: u16::try_from(port.host_port?).ok().filter(|p| *p > 0)?,
                host_ip: port.host_ip.as_deref().and_then(|ip| ip.parse().ok()),
            })
        })
        .collect()
}
