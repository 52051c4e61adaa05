//! Discovery: which groups, versions and resources there are, in the old and in the aggregated form (KEP-3352).

use std::sync::Arc;

use http::header::{ETAG, HeaderValue, IF_NONE_MATCH, VARY};
use serde_json::{Value, json};
pub use xebec_hash::fnv64 as fnv;
use xebec_registry::{Resource, Scale, Verb, Version};
use xebec_types::Status;

use crate::api::Call;
use crate::body::Body;
use crate::catalog::Snapshot;
use crate::negotiate;
use crate::reply::{self, Reply};
use crate::server::Server;

/// Built-in groups in upstream's order; others follow in the order of their names.
const ORDER: [&str; 20] = [
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "resource.k8s.io",
    "flowcontrol.apiserver.k8s.io",
];

/// Groups other than core, each with its versions, the preferred one first.
pub fn groups(snapshot: &Snapshot) -> Vec<(String, Vec<String>)> {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for served in snapshot.resources.iter().filter(|served| !served.resource.group.is_empty()) {
        let resource = &served.resource;
        let at = match groups.iter().position(|(group, _)| *group == resource.group) {
            Some(at) => at,
            None => {
                groups.push((resource.group.clone(), Vec::new()));
                groups.len() - 1
            }
        };
        for version in resource.versions.iter().filter(|version| version.served) {
            if !groups[at].1.contains(&version.name) {
                groups[at].1.push(version.name.clone());
            }
        }
    }
    let rank = |group: &str| ORDER.iter().position(|known| *known == group).unwrap_or(ORDER.len());
    groups.sort_by(|(a, _), (b, _)| rank(a).cmp(&rank(b)).then_with(|| a.cmp(b)));
    groups.retain(|(_, versions)| !versions.is_empty());
    groups
}

/// Answers a discovery path.
///
/// # Errors
/// 404 for unknown groups and versions, 406.
pub fn answer(server: &Arc<Server>, call: &Call, segments: &[&str]) -> Reply {
    let snapshot = server.api.catalog.snapshot();
    if let ([root], Some(version)) = (segments, aggregated(call)) {
        return Ok(aggregated_reply(&snapshot, call, root, version));
    }
    let wanted = negotiate::wanted(&call.headers, false)?;
    let document = match segments {
        ["api"] => json!({
            "kind": "APIVersions",
            "versions": ["v1"],
            "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": server.address() }],
        }),
        ["apis"] => {
            let groups: Vec<Value> =
                groups(&snapshot).iter().map(|(name, versions)| group(name, versions)).collect();
            json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
        }
        ["api", version] if snapshot.has_version("", version) => resource_list(&snapshot, "", version),
        ["apis", name] => {
            let known = groups(&snapshot).into_iter().find(|(group, _)| group == name);
            let (name, versions) = known.ok_or_else(Status::no_such_resource)?;
            let mut group = group(&name, &versions);
            group["kind"] = "APIGroup".into();
            group["apiVersion"] = "v1".into();
            group
        }
        ["apis", group, version] if snapshot.has_version(group, version) => {
            resource_list(&snapshot, group, version)
        }
        _ => return Err(Status::no_such_resource()),
    };
    Ok(reply::encoded(200, wanted.encoding, document.to_string().into()))
}

fn group(name: &str, versions: &[String]) -> Value {
    let version =
        |version: &String| json!({ "groupVersion": format!("{name}/{version}"), "version": version });
    json!({
        "name": name,
        "versions": versions.iter().map(version).collect::<Vec<_>>(),
        "preferredVersion": versions.first().map(version),
    })
}

fn verbs(verbs: &[Verb]) -> Vec<&'static str> {
    verbs.iter().map(|verb| verb.as_str()).collect()
}

/// The kind of a subresource, as group, version, kind; and its verbs.
struct Sub<'a> {
    name: &'a str,
    group: &'a str,
    version: &'a str,
    kind: &'a str,
    verbs: &'a [Verb],
}

const READ_WRITE: &[Verb] = &[Verb::Get, Verb::Patch, Verb::Update];

/// All subresources in the order of their names.
fn subresources<'a>(resource: &'a Resource, version: &'a Version) -> Vec<Sub<'a>> {
    let own = |name: &'static str| Sub {
        name,
        group: &resource.group,
        version: &version.name,
        kind: &resource.names.kind,
        verbs: READ_WRITE,
    };
    let mut all: Vec<Sub<'_>> = version
        .subresources
        .extra
        .iter()
        .map(|extra| Sub {
            name: extra.name,
            group: &extra.kind.group,
            version: &extra.kind.version,
            kind: &extra.kind.kind,
            verbs: extra.verbs,
        })
        .collect();
    if version.subresources.status {
        all.push(own("status"));
    }
    if let Some(Scale { .. }) = version.subresources.scale {
        all.push(Sub {
            name: "scale",
            group: "autoscaling",
            version: "v1",
            kind: "Scale",
            verbs: READ_WRITE,
        });
    }
    all.sort_by_key(|sub| sub.name);
    all
}

fn in_version<'a>(snapshot: &'a Snapshot, group: &str, version: &str) -> Vec<(&'a Resource, &'a Version)> {
    let mut found: Vec<_> = snapshot
        .resources
        .iter()
        .filter(|served| served.resource.group == group)
        .filter_map(|served| Some((&*served.resource, served.resource.version(version)?)))
        .collect();
    found.sort_by(|(a, _), (b, _)| a.names.plural.cmp(&b.names.plural));
    found
}

fn resource_list(snapshot: &Snapshot, group: &str, version: &str) -> Value {
    let mut list = Vec::new();
    for (resource, version) in in_version(snapshot, group, version) {
        let names = &resource.names;
        let mut item = json!({
            "name": names.plural,
            "singularName": names.singular,
            "namespaced": resource.namespaced(),
            "kind": names.kind,
            "verbs": verbs(resource.verbs),
        });
        if !names.short.is_empty() {
            item["shortNames"] = json!(names.short);
        }
        if !names.categories.is_empty() {
            item["categories"] = json!(names.categories);
        }
        if resource.stored {
            item["storageVersionHash"] = storage_hash(resource).into();
        }
        list.push(item);
        for sub in subresources(resource, version) {
            let mut item = json!({
                "name": format!("{}/{}", names.plural, sub.name),
                "singularName": "",
                "namespaced": resource.namespaced(),
                "kind": sub.kind,
                "verbs": verbs(sub.verbs),
            });
            if (sub.group, sub.version) != (&*resource.group, &*version.name) {
                item["group"] = sub.group.into();
                item["version"] = sub.version.into();
            }
            list.push(item);
        }
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list })
}

/// Tells clients when the storage version changes: a hash of group, version and kind.
fn storage_hash(resource: &Resource) -> String {
    use base64::Engine as _;
    let text = format!("{}/{}/{}", resource.group, resource.storage_version().name, resource.names.kind);
    base64::engine::general_purpose::STANDARD.encode(fnv(text.as_bytes()).to_be_bytes())
}

/// The version of the aggregated form that the client asks for first.
fn aggregated(call: &Call) -> Option<&'static str> {
    let media = negotiate::accepted(&call.headers);
    let first = media.iter().find(|media| media.kind == "application/json")?;
    let wanted =
        first.parameter("g") == "apidiscovery.k8s.io" && first.parameter("as") == "APIGroupDiscoveryList";
    match first.parameter("v") {
        "v2" if wanted => Some("v2"),
        "v2beta1" if wanted => Some("v2beta1"),
        _ => None,
    }
}

fn aggregated_reply(snapshot: &Snapshot, call: &Call, root: &str, version: &str) -> http::Response<Body> {
    let items: Vec<Value> = match root {
        "api" => vec![group_discovery(snapshot, "", &["v1".to_owned()])],
        _ => groups(snapshot)
            .iter()
            .map(|(name, versions)| group_discovery(snapshot, name, versions))
            .collect(),
    };
    let document = json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": items,
    })
    .to_string();
    let etag = format!("\"{:016X}\"", fnv(document.as_bytes()));
    let known = call.headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok()) == Some(&etag);
    let kind = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
    let mut response = reply::typed(&kind, document.into());
    if known {
        *response.status_mut() = http::StatusCode::NOT_MODIFIED;
        *response.body_mut() = Body::empty();
    }
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(ETAG, etag);
    }
    response
}

fn group_discovery(snapshot: &Snapshot, group: &str, versions: &[String]) -> Value {
    let version = |version: &String| {
        let resources: Vec<Value> = in_version(snapshot, group, version)
            .into_iter()
            .map(|(resource, version)| resource_discovery(resource, version))
            .collect();
        json!({ "version": version, "resources": resources, "freshness": "Current" })
    };
    let metadata = if group.is_empty() { json!({}) } else { json!({ "name": group }) };
    json!({ "metadata": metadata, "versions": versions.iter().map(version).collect::<Vec<_>>() })
}

fn resource_discovery(resource: &Resource, version: &Version) -> Value {
    let names = &resource.names;
    let kind =
        |group: &str, version: &str, kind: &str| json!({ "group": group, "version": version, "kind": kind });
    let mut item = json!({
        "resource": names.plural,
        "responseKind": kind(&resource.group, &version.name, &names.kind),
        "scope": if resource.namespaced() { "Namespaced" } else { "Cluster" },
        "singularResource": names.singular,
        "verbs": verbs(resource.verbs),
    });
    if !names.short.is_empty() {
        item["shortNames"] = json!(names.short);
    }
    if !names.categories.is_empty() {
        item["categories"] = json!(names.categories);
    }
    let subs: Vec<Value> = subresources(resource, version)
        .iter()
        .map(|sub| {
            json!({
                "subresource": sub.name,
                "responseKind": kind(sub.group, sub.version, sub.kind),
                "verbs": verbs(sub.verbs),
            })
        })
        .collect();
    if !subs.is_empty() {
        item["subresources"] = subs.into();
    }
    item
}
