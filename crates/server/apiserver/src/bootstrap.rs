//! What every cluster starts with: namespaces, the RBAC policy, the `kubernetes` Service.

use std::net::{IpAddr, SocketAddr};

use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::PolicyRule;
use serde::Serialize;
use serde_json::{Value, json};
use xebec_auth::authz::uncovered;
use xebec_auth::bootstrap;
use xebec_registry::SubresourceName;
use xebec_schema::FieldValidation;
use xebec_types::{Status, object};

use crate::api::{Api, Call};
use crate::catalog::Target;
use crate::engine;
use crate::server::ApiServer;
use crate::write::Change;

/// Objects made at once: they share commits of the store.
const CONCURRENT: usize = 32;
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
const RBAC: &str = "rbac.authorization.k8s.io";
/// A role or binding that says `false` here is left as it is.
const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// Why a start is not possible.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// An object was refused.
    #[error("{resource} {name:?}: {status}")]
    Refused {
        /// The resource.
        resource: String,
        /// The object.
        name: String,
        /// Why.
        #[source]
        status: Status,
    },
    /// The policy cannot be written down.
    #[error("RBAC policy")]
    Policy(#[from] serde_json::Error),
}

/// Makes what is missing.
pub(crate) async fn run(
    server: &ApiServer,
    advertise: SocketAddr,
    service: Option<IpAddr>,
) -> Result<(), BootstrapError> {
    let api = &server.server().api;
    let namespaces = NAMESPACES.map(|name| json!({ "metadata": { "name": name } }));
    ensure_all(api, "", "namespaces", namespaces.to_vec()).await?;
    let policy = bootstrap::policy();
    ensure_all(api, RBAC, "clusterroles", values(policy.cluster_roles)?).await?;
    ensure_all(api, RBAC, "clusterrolebindings", values(policy.cluster_role_bindings)?).await?;
    ensure_all(api, RBAC, "roles", values(policy.roles)?).await?;
    ensure_all(api, RBAC, "rolebindings", values(policy.role_bindings)?).await?;
    if let Some(address) = service {
        let (service, endpoints, slice) = kubernetes_service(address, advertise);
        ensure_all(api, "", "services", vec![service]).await?;
        if advertise.ip().is_loopback() {
            tracing::warn!(%advertise, "pods cannot reach a loopback address: the kubernetes Service leads nowhere");
            return Ok(());
        }
        ensure_all(api, "", "endpoints", vec![endpoints]).await?;
        ensure_all(api, "discovery.k8s.io", "endpointslices", vec![slice]).await?;
    }
    Ok(())
}

fn values<T: Serialize>(objects: Vec<T>) -> Result<Vec<Value>, BootstrapError> {
    Ok(objects.into_iter().map(serde_json::to_value).collect::<Result<_, _>>()?)
}

async fn ensure_all(api: &Api, group: &str, plural: &str, objects: Vec<Value>) -> Result<(), BootstrapError> {
    let version = "v1";
    // A server may be built without some kinds.
    let Some(target) = api.catalog.snapshot().find(group, version, plural) else { return Ok(()) };
    let target = &target;
    stream::iter(objects)
        .map(|object| async move {
            let name = object::name(&object).to_owned();
            ensure(api, target, object).await.map_err(|status| BootstrapError::Refused {
                resource: target.group_resource().to_string(),
                name,
                status,
            })
        })
        .buffer_unordered(CONCURRENT)
        .try_collect::<()>()
        .await
}

async fn ensure(api: &Api, target: &Target, object: Value) -> Result<(), Status> {
    let call = Call::internal(Timestamp::now());
    let (name, namespace) = (object::name(&object).to_owned(), object::namespace(&object).to_owned());
    let (wanted, _) = engine::decode_body(
        target,
        "application/json",
        object.to_string().as_bytes(),
        FieldValidation::Strict,
    )?;
    if let Ok(entry) = api.cached(target, &namespace, &name) {
        let existing = entry.decode();
        if merged(&existing, &wanted).is_none() {
            return Ok(());
        }
        let change = Change {
            target,
            namespace: &namespace,
            name: &name,
            subresource: SubresourceName::Main,
            dry_run: false,
        };
        let update = |old: &Value| Ok((merged(old, &wanted).unwrap_or_else(|| old.clone()), Vec::new()));
        return api.change_object(&call, &change, update).await.map(|_| ());
    }
    match api.create_object(&call, target, &namespace, wanted, false).await {
        Err(status) if status.reason != "AlreadyExists" => Err(status),
        _ => Ok(()),
    }
}

/// What an existing object lacks, put into it; `None` if nothing does. Rules and subjects that others have added stay,
/// as in upstream's reconciliation; endpoints are ours alone.
fn merged(existing: &Value, wanted: &Value) -> Option<Value> {
    let mut new = existing.clone();
    match object::str_at(wanted, "kind") {
        "Endpoints" => new["subsets"] = wanted["subsets"].clone(),
        "EndpointSlice" => {
            new["endpoints"] = wanted["endpoints"].clone();
            new["ports"] = wanted["ports"].clone();
        }
        "ClusterRole" | "Role" if updates(existing) && wanted.get("aggregationRule").is_none() => {
            let rules = |value: &Value| -> Vec<PolicyRule> {
                serde_json::from_value(value["rules"].clone()).unwrap_or_default()
            };
            let missing = uncovered(&rules(existing), &rules(wanted));
            if missing.is_empty() {
                return None;
            }
            let mut all = rules(existing);
            all.extend(missing);
            new["rules"] = serde_json::to_value(all).ok()?;
        }
        "ClusterRoleBinding" | "RoleBinding"
            if updates(existing) && existing["roleRef"] == wanted["roleRef"] =>
        {
            let mut subjects = existing["subjects"].as_array().cloned().unwrap_or_default();
            let wanted = wanted["subjects"].as_array().into_iter().flatten();
            let missing: Vec<Value> = wanted.filter(|subject| !subjects.contains(subject)).cloned().collect();
            subjects.extend(missing);
            if !subjects.is_empty() {
                new["subjects"] = subjects.into();
            }
        }
        _ => return None,
    }
    (new != *existing).then_some(new)
}

fn updates(existing: &Value) -> bool {
    let annotations = object::at(existing, "metadata.annotations");
    annotations.and_then(|a| a.get(AUTO_UPDATE)).and_then(Value::as_str) != Some("false")
}

/// The Service by which pods reach the server, and where it leads.
fn kubernetes_service(address: IpAddr, advertise: SocketAddr) -> (Value, Value, Value) {
    let labels = json!({ "component": "apiserver", "provider": "kubernetes" });
    let service = json!({
        "metadata": { "name": "kubernetes", "namespace": "default", "labels": labels },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": address.to_string(),
            "ports": [{ "name": "https", "port": 443, "protocol": "TCP", "targetPort": advertise.port() }],
        },
    });
    let endpoints = json!({
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": { "endpointslice.kubernetes.io/skip-mirror": "true" },
        },
        "subsets": [{
            "addresses": [{ "ip": advertise.ip().to_string() }],
            "ports": [{ "name": "https", "port": advertise.port(), "protocol": "TCP" }],
        }],
    });
    let slice = json!({
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": { "kubernetes.io/service-name": "kubernetes" },
        },
        "addressType": if advertise.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{ "addresses": [advertise.ip().to_string()], "conditions": { "ready": true } }],
        "ports": [{ "name": "https", "port": advertise.port(), "protocol": "TCP" }],
    });
    (service, endpoints, slice)
}
