//! What every cluster has besides the API's own bootstrap: the `kube-dns` Service and the roles of the DNS server.

use std::net::IpAddr;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The service account as which DNS reads the API.
pub const DNS_ACCOUNT: &str = "coredns";

/// Makes the roles of the DNS server.
pub async fn roles(client: &Client) -> Result<()> {
    let role = json!({
        "metadata": {"name": "system:coredns", "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}},
        "rules": [
            {"apiGroups": [""], "resources": ["services", "namespaces"], "verbs": ["list", "watch"]},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]}
        ]
    });
    let binding = json!({
        "metadata": {"name": "system:coredns", "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns"},
        "subjects": [{"kind": "ServiceAccount", "name": DNS_ACCOUNT, "namespace": "kube-system"}]
    });
    ensure::<ClusterRole>(Api::all(client.clone()), role).await?;
    ensure::<ClusterRoleBinding>(Api::all(client.clone()), binding).await
}

/// Makes the `kube-dns` Service and this node's share of it. The Service has no selector: every node answers its
/// own pods.
pub async fn dns(client: &Client, address: IpAddr, node: &str, gateways: &[IpAddr]) -> Result<()> {
    let service = json!({
        "metadata": {"name": "kube-dns", "labels": {
            "k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS", "kubernetes.io/cluster-service": "true"
        }},
        "spec": {
            "clusterIP": address.to_string(),
            "internalTrafficPolicy": "Local",
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP"},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP"}
            ]
        }
    });
    let services: Api<Service> = Api::namespaced(client.clone(), "kube-system");
    ensure(services, service).await?;
    let Some(gateway) = gateways.iter().find(|gateway| gateway.is_ipv4() == address.is_ipv4()) else {
        return Ok(());
    };
    let slice = json!({
        "metadata": {"name": format!("kube-dns-{node}"), "labels": {
            "kubernetes.io/service-name": "kube-dns",
            "endpointslice.kubernetes.io/managed-by": "dns.xebec"
        }},
        "addressType": if address.is_ipv4() { "IPv4" } else { "IPv6" },
        "ports": [
            {"name": "dns", "port": 53, "protocol": "UDP"},
            {"name": "dns-tcp", "port": 53, "protocol": "TCP"}
        ],
        "endpoints": [{
            "addresses": [gateway.to_string()], "nodeName": node,
            "conditions": {"ready": true, "serving": true, "terminating": false}
        }]
    });
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), "kube-system");
    ensure(slices, slice).await
}

/// Merges what the object should say into the one that is there, or creates it.
async fn ensure<K>(api: Api<K>, wanted: Value) -> Result<()>
where
    K: Resource + Clone + DeserializeOwned + Serialize + std::fmt::Debug,
{
    let object: K = serde_json::from_value(wanted.clone()).context("addon")?;
    let name = object.name_any();
    let result = match api.patch(&name, &PatchParams::default(), &Patch::Merge(&wanted)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {
            api.create(&PostParams::default(), &object).await
        }
        other => other,
    };
    result.map(drop).with_context(|| format!("set up {name}"))
}
