//! `/openapi/v3` and `/openapi/v2`: the schemas of everything that is served, made when asked for and kept until the
//! catalog changes.

mod proto;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::{ETAG, HeaderValue, VARY};
use serde_json::{Map, Value, json};
use xebec_registry::{Resource, Verb};
use xebec_schema::openapi::{Flavour, reference, schemas};
use xebec_types::{GroupVersionKind, Status};

use crate::api::Call;
use crate::catalog::{Served, Snapshot};
use crate::discovery::{self, fnv};
use crate::reply::{self, Reply};
use crate::server::Server;

/// Documents by path, of one generation of the catalog.
#[derive(Default)]
pub struct Documents(Mutex<(u64, HashMap<String, Bytes>)>);

impl Documents {
    fn get(&self, generation: u64, path: &str, make: impl FnOnce() -> Bytes) -> Bytes {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.0 != generation {
            *kept = (generation, HashMap::new());
        }
        kept.1.entry(path.to_owned()).or_insert_with(make).clone()
    }
}

/// Answers a path below `/openapi`.
///
/// # Errors
/// 404; 406 if the client takes no form that there is.
pub fn answer(server: &Arc<Server>, call: &Call, rest: &[&str]) -> Reply {
    let snapshot = server.api.catalog.snapshot();
    let kept = |path: &str, make: &dyn Fn() -> Bytes| server.openapi.get(snapshot.generation, path, make);
    let document = |path: &str, make: &dyn Fn() -> Value| kept(path, &|| make().to_string().into());
    match rest {
        ["v2"] => {
            let mut response = match form(call)? {
                Form::Json => tagged(JSON, document("v2", &|| v2(server, &snapshot))),
                Form::Protobuf => {
                    let make = || proto::document(&v2(server, &snapshot)).into();
                    tagged(proto::MEDIA_TYPE, kept("v2 protobuf", &make))
                }
            };
            response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
            Ok(response)
        }
        ["v3"] => {
            let mut paths = Map::new();
            for (path, group, version) in group_versions(&snapshot) {
                let body = document(&path, &|| v3(server, &snapshot, &group, &version));
                let url = format!("/openapi/v3/{path}?hash={:016X}", fnv(&body));
                paths.insert(path, json!({ "serverRelativeURL": url }));
            }
            Ok(reply::value(200, &json!({ "paths": paths })))
        }
        ["v3", path @ ..] => {
            let path = path.join("/");
            let known = group_versions(&snapshot).into_iter().find(|(known, ..)| *known == path);
            let (path, group, version) = known.ok_or_else(Status::no_such_resource)?;
            Ok(tagged(JSON, document(&path, &|| v3(server, &snapshot, &group, &version))))
        }
        _ => Err(Status::no_such_resource()),
    }
}

/// Media type of the JSON form.
const JSON: &str = "application/json";

/// How the v2 document is written.
enum Form {
    Json,
    Protobuf,
}

/// The first form of the v2 document that the client takes.
fn form(call: &Call) -> Result<Form, Status> {
    let accepted = crate::negotiate::accepted(&call.headers);
    let known = accepted.iter().find_map(|media| match media.kind {
        kind if proto::asked(kind) => Some(Form::Protobuf),
        kind if kind.contains("json") || matches!(kind, "*/*" | "application/*") => Some(Form::Json),
        _ => None,
    });
    match known {
        None if !accepted.is_empty() => Err(Status::not_acceptable(&[JSON, proto::MEDIA_TYPE])),
        known => Ok(known.unwrap_or(Form::Json)),
    }
}

fn tagged(media_type: &str, body: Bytes) -> http::Response<crate::body::Body> {
    let etag = format!("\"{:016X}\"", fnv(&body));
    let mut response = reply::typed(media_type, body);
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(ETAG, etag);
    }
    response
}

/// Path, group and version of every document.
fn group_versions(snapshot: &Snapshot) -> Vec<(String, String, String)> {
    let mut all = Vec::new();
    if snapshot.has_version("", "v1") {
        all.push(("api/v1".to_owned(), String::new(), "v1".to_owned()));
    }
    for (group, versions) in discovery::groups(snapshot) {
        for version in versions {
            all.push((format!("apis/{group}/{version}"), group.clone(), version));
        }
    }
    all
}

fn v3(server: &Server, snapshot: &Snapshot, group: &str, version: &str) -> Value {
    let served: Vec<&Served> = in_version(snapshot, group, version);
    let groups = [(group, version)];
    let schemas = definitions(server, &served, &groups, version, Flavour::V3);
    let mut paths = Map::new();
    for served in served {
        add_paths(&mut paths, &served.resource, version, Flavour::V3);
    }
    json!({
        "openapi": "3.0.0",
        "info": { "title": "Kubernetes", "version": "v1.36.0" },
        "paths": paths,
        "components": { "schemas": schemas },
    })
}

fn v2(server: &Server, snapshot: &Snapshot) -> Value {
    let versions = group_versions(snapshot);
    let groups: Vec<(&str, &str)> = versions.iter().map(|(_, g, v)| (g.as_str(), v.as_str())).collect();
    let (mut all, mut paths) = (Map::new(), Map::new());
    for (_, group, version) in &versions {
        let served = in_version(snapshot, group, version);
        all.extend(definitions(server, &served, &groups, version, Flavour::V2));
        for served in served {
            add_paths(&mut paths, &served.resource, version, Flavour::V2);
        }
    }
    json!({
        "swagger": "2.0",
        "info": { "title": "Kubernetes", "version": "v1.36.0" },
        "paths": paths,
        "definitions": all,
    })
}

fn in_version<'a>(snapshot: &'a Snapshot, group: &str, version: &str) -> Vec<&'a Served> {
    let resources = snapshot.resources.iter();
    resources.filter(|s| s.resource.group == group && s.resource.version(version).is_some()).collect()
}

/// The schemas that the resources of a version need.
fn definitions(
    server: &Server,
    served: &[&Served],
    groups: &[(&str, &str)],
    version: &str,
    flavour: Flavour,
) -> Map<String, Value> {
    let mut names =
        vec!["meta.v1.DeleteOptions".to_owned(), "meta.v1.Status".into(), "meta.v1.ObjectMeta".into()];
    for served in served.iter().filter(|served| !served.custom) {
        let schema = served.resource.version(version).map(|version| version.schema.name.clone());
        names.extend(schema.iter().cloned());
        names.extend(schema.filter(|_| served.resource.stored).map(|name| format!("{name}List")));
    }
    let known: Vec<&str> =
        names.iter().map(String::as_str).filter(|name| xebec_schema::builtin_type(name).is_some()).collect();
    let mut all: Map<String, Value> = schemas(known, groups, flavour).into_iter().collect();
    for served in served.iter().filter(|served| served.custom) {
        let resource = &served.resource;
        let (name, list) = custom_names(resource, version);
        if let Some(schema) = stored_schema(server, resource, version) {
            let kind = &resource.names.kind;
            let schema =
                xebec_schema::openapi::custom_schema(&schema, &resource.group, version, kind, flavour);
            all.insert(name.clone(), schema);
            all.insert(list, list_schema(resource, version, &name, flavour));
        }
    }
    all
}

/// Published names of a custom kind and its list: the group's labels reversed, as upstream has them.
fn custom_names(resource: &Resource, version: &str) -> (String, String) {
    let reversed: Vec<&str> = resource.group.split('.').rev().collect();
    let base = format!("{}.{version}.", reversed.join("."));
    (format!("{base}{}", resource.names.kind), format!("{base}{}", resource.names.list_kind))
}

fn list_schema(resource: &Resource, version: &str, item: &str, flavour: Flavour) -> Value {
    json!({
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": { "type": "string" },
            "kind": { "type": "string" },
            "metadata": reference("meta.v1.ListMeta", flavour),
            "items": { "type": "array", "items": { "$ref": format!("#/{}/{item}", place(flavour)) } },
        },
        "x-kubernetes-group-version-kind":
            [{ "group": resource.group, "version": version, "kind": resource.names.list_kind }],
    })
}

fn place(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::V2 => "definitions",
        Flavour::V3 => "components/schemas",
    }
}

/// The schema of a version as its definition gives it.
fn stored_schema(server: &Server, resource: &Resource, version: &str) -> Option<Value> {
    use xebec_registry::ObjectReader;
    let name = format!("{}.{}", resource.names.plural, resource.group);
    let definition = server.api.cache.get(&crate::crd::definitions(), "", &name)?;
    let versions = definition.pointer("/spec/versions")?.as_array()?;
    let version = versions.iter().find(|candidate| candidate["name"] == version)?;
    Some(version.pointer("/schema/openAPIV3Schema")?.clone())
}

/// The paths of a resource with what clients look for in them: the kind, and that `fieldValidation` is a parameter.
fn add_paths(paths: &mut Map<String, Value>, resource: &Resource, version: &str, flavour: Flavour) {
    let root = match resource.group.as_str() {
        "" => format!("/api/{version}"),
        group => format!("/apis/{group}/{version}"),
    };
    let namespace = if resource.namespaced() { "/namespaces/{namespace}" } else { "" };
    let collection = format!("{root}{namespace}/{}", resource.names.plural);
    let gvk = resource.kind(version);
    let has = |verb| resource.verbs.contains(&verb);
    let mut operations = Map::new();
    for (method, action, verb) in [
        ("get", "list", Verb::List),
        ("post", "post", Verb::Create),
        ("delete", "deletecollection", Verb::DeleteCollection),
    ] {
        if has(verb) {
            operations.insert(method.into(), operation(&gvk, action, flavour));
        }
    }
    if resource.namespaced() && has(Verb::List) {
        let get = operation(&gvk, "list", flavour);
        paths.insert(format!("{root}/{}", resource.names.plural), json!({ "get": get }));
    }
    paths.insert(collection.clone(), operations.into());
    let mut operations = Map::new();
    for (method, action, verb) in [
        ("get", "get", Verb::Get),
        ("put", "put", Verb::Update),
        ("patch", "patch", Verb::Patch),
        ("delete", "delete", Verb::Delete),
    ] {
        if has(verb) {
            operations.insert(method.into(), operation(&gvk, action, flavour));
        }
    }
    if !operations.is_empty() {
        paths.insert(format!("{collection}/{{name}}"), operations.into());
    }
}

fn operation(gvk: &GroupVersionKind, action: &str, flavour: Flavour) -> Value {
    let parameter = |name: &str, kind: &str| match flavour {
        Flavour::V2 => json!({ "name": name, "in": "query", "type": kind, "uniqueItems": true }),
        Flavour::V3 => {
            json!({ "name": name, "in": "query", "schema": { "type": kind, "uniqueItems": true } })
        }
    };
    let mut parameters = Vec::new();
    if matches!(action, "post" | "put" | "patch") {
        parameters =
            ["dryRun", "fieldManager", "fieldValidation"].map(|name| parameter(name, "string")).into();
    }
    if action == "patch" {
        parameters.push(parameter("force", "boolean"));
    }
    json!({
        "parameters": parameters,
        "responses": { "200": { "description": "OK" } },
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind":
            { "group": gvk.group, "version": gvk.version, "kind": gvk.kind },
    })
}
