//! Every kind against upstream's facts, and whole objects against literal expectations.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};
use xebec_types::GroupResource;

use crate::*;

/// No other objects.
pub(crate) struct Nothing;

impl ObjectReader for Nothing {
    fn get(&self, _: &GroupResource, _: &str, _: &str) -> Option<Arc<Value>> {
        None
    }

    fn list(&self, _: &GroupResource, _: &str) -> Vec<Arc<Value>> {
        Vec::new()
    }
}

pub(crate) fn context(subresource: SubresourceName) -> Context<'static> {
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    Context { now, user: "test", dry_run: false, subresource, objects: &Nothing }
}

pub(crate) fn resource(kind: &str) -> Resource {
    builtin(&RegistryConfig::default()).into_iter().find(|r| r.names.kind == kind).unwrap()
}

/// The object as a create would store it, or what is wrong with it.
pub(crate) fn create(kind: &str, object: Value) -> Result<Value, Vec<String>> {
    let resource = resource(kind);
    create_with(&resource, object)
}

pub(crate) fn create_with(resource: &Resource, mut object: Value) -> Result<Value, Vec<String>> {
    let texts =
        |errors: Vec<xebec_schema::FieldError>| errors.iter().map(ToString::to_string).collect::<Vec<_>>();
    let version = resource.storage_version();
    xebec_schema::default(&mut object, &version.schema, &type_defaults());
    let cx = context(SubresourceName::Main);
    resource.strategy.prepare_create(&cx, &mut object);
    let allocation = resource.strategy.allocate(&cx, Some(&mut object), None).map_err(texts)?;
    let errors = resource.strategy.validate_create(&cx, &object);
    if !errors.is_empty() {
        return Err(texts(errors));
    }
    resource.strategy.observed(None, Some(&object));
    if let Some(allocation) = allocation {
        allocation.keep();
    }
    Ok(object)
}

pub(crate) fn update(kind: &str, new: &Value, old: &Value, subresource: SubresourceName) -> Vec<String> {
    let resource = resource(kind);
    let cx = context(subresource);
    let mut new = new.clone();
    resource.strategy.prepare_update(&cx, &mut new, old);
    resource.strategy.validate_update(&cx, &new, old).iter().map(ToString::to_string).collect()
}

#[test]
fn every_default_names_a_type() {
    assert_eq!(type_defaults().unknown_types().collect::<Vec<_>>(), Vec::<&str>::new());
}

#[test]
fn every_kind_has_a_cell_for_every_column() {
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    for resource in builtin(&RegistryConfig::default()) {
        let version = resource.storage_version();
        let cells = resource.strategy.cells(&version.name, &json!({"metadata": {"name": "a"}}), now);
        assert_eq!(cells.len(), version.columns.len(), "{}", resource.names.kind);
    }
}

fn discovery(group: &str, version: &str) -> Option<Value> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../../shared/reference/discovery");
    let file = match group {
        "" => format!("api__{version}.json"),
        group => format!("apis__{group}__{version}.json"),
    };
    serde_json::from_str(&std::fs::read_to_string(root.join(file)).ok()?).ok()
}

fn verbs(verbs: &[Verb]) -> Value {
    verbs.iter().map(|v| v.as_str()).collect::<Vec<_>>().into()
}

/// What discovery would say of a resource and its subresources.
fn entries(resource: &Resource) -> Vec<Value> {
    use Verb::{Get, Patch, Update};
    let version = resource.storage_version();
    let (names, own) = (&resource.names, resource.kind(&version.name));
    let list = |words: &[String]| if words.is_empty() { Value::Null } else { json!(words) };
    let mut all = vec![json!({
        "name": names.plural, "singularName": names.singular, "kind": names.kind,
        "namespaced": resource.namespaced(), "verbs": verbs(resource.verbs),
        "shortNames": list(&names.short), "categories": list(&names.categories),
    })];
    let sub = |name: &str, kind: &xebec_types::GroupVersionKind, v: Value| {
        let foreign = (kind.group != own.group || kind.version != own.version).then_some(kind);
        json!({
            "name": format!("{}/{name}", names.plural), "singularName": "", "kind": kind.kind,
            "namespaced": resource.namespaced(), "verbs": v,
            "group": foreign.map(|k| k.group.clone()), "version": foreign.map(|k| k.version.clone()),
        })
    };
    let subresources = &version.subresources;
    let autoscaling = xebec_types::GroupVersion { group: "autoscaling".into(), version: "v1".into() };
    if subresources.status {
        all.push(sub("status", &own, verbs(&[Get, Patch, Update])));
    }
    if subresources.scale.is_some() {
        all.push(sub("scale", &autoscaling.kind("Scale"), verbs(&[Get, Patch, Update])));
    }
    all.extend(subresources.extra.iter().map(|e| sub(e.name, &e.kind, verbs(e.verbs))));
    all
}

#[test]
fn names_verbs_and_subresources_equal_upstreams() {
    for resource in builtin(&RegistryConfig::default()) {
        let version = resource.storage_version().name.clone();
        let Some(document) = discovery(&resource.group, &version) else {
            eprintln!("skipped: upstream's discovery documents are not here");
            return;
        };
        let mut ours = entries(&resource);
        let prefix = format!("{}/", resource.names.plural);
        let is_ours = |r: &&Value| {
            let name = r["name"].as_str().unwrap();
            name == resource.names.plural || name.starts_with(&prefix)
        };
        let mut theirs: Vec<Value> =
            document["resources"].as_array().unwrap().iter().filter(is_ours).cloned().collect();
        for entry in ours.iter_mut().chain(&mut theirs) {
            let map = entry.as_object_mut().unwrap();
            map.retain(|key, value| key != "storageVersionHash" && !value.is_null());
        }
        let by_name = |v: &Value| v["name"].as_str().unwrap().to_owned();
        ours.sort_by_key(by_name);
        theirs.sort_by_key(by_name);
        assert_eq!(ours, theirs, "{}", resource.names.kind);
    }
}

#[test]
fn a_minimal_deployment_gets_upstreams_defaults() {
    let object = json!({
        "metadata": {"name": "web"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "nginx:1.27", "ports": [{"containerPort": 80}]}]},
            },
        },
    });
    let expected = json!({
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "containers": [{
                        "name": "c",
                        "image": "nginx:1.27",
                        "ports": [{"containerPort": 80, "protocol": "TCP"}],
                        "resources": {},
                        "terminationMessagePath": "/dev/termination-log",
                        "terminationMessagePolicy": "File",
                        "imagePullPolicy": "IfNotPresent",
                    }],
                    "restartPolicy": "Always",
                    "terminationGracePeriodSeconds": 30,
                    "dnsPolicy": "ClusterFirst",
                    "securityContext": {},
                    "schedulerName": "default-scheduler",
                },
            },
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"},
            },
            "revisionHistoryLimit": 10,
            "progressDeadlineSeconds": 600,
        },
        "status": {},
    });
    assert_eq!(create("Deployment", object).unwrap(), expected);
}

/// What Go holds by value it writes even when it is empty, so that an object that goes through a Go client and back is
/// the same afterwards.
#[test]
fn values_without_a_pointer_are_always_written() {
    let pod = json!({
        "metadata": {"name": "p"},
        "spec": {
            "containers": [{"name": "c", "image": "i", "env": [
                {"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            ]}],
            "volumes": [{"name": "v", "downwardAPI": {"items": [
                {"path": "p", "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu"}},
            ]}}],
        },
    });
    let pod = create("Pod", pod).unwrap();
    assert_eq!(pod["spec"]["containers"][0]["env"][0]["valueFrom"]["resourceFieldRef"]["divisor"], "0");
    let item = &pod["spec"]["volumes"][0]["downwardAPI"]["items"][0];
    assert_eq!(item["resourceFieldRef"]["divisor"], "0");
    let slice = json!({
        "metadata": {"name": "s"}, "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}],
    });
    assert_eq!(create("EndpointSlice", slice).unwrap()["endpoints"][0]["conditions"], json!({}));
}

fn deployment(change: impl FnOnce(&mut Value)) -> Value {
    let mut object = json!({
        "metadata": {"name": "web"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "nginx"}]},
            },
        },
    });
    change(&mut object["spec"]);
    object
}

#[test]
fn workloads_are_refused_in_upstreams_words() {
    let zero =
        r#"spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"#;
    type Case = (fn(&mut Value), &'static str);
    let cases: [Case; 8] = [
        (
            |spec| spec["template"]["spec"]["restartPolicy"] = "Never".into(),
            r#"spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always""#,
        ),
        (
            |spec| spec["template"]["metadata"]["labels"] = json!({"app": "other"}),
            "spec.template.metadata.labels: Invalid value: {\"app\":\"other\"}: `selector` does not match template \
             `labels`",
        ),
        (
            |spec| spec["template"]["spec"]["containers"][0]["name"] = json!(""),
            "spec.template.spec.containers[0].name: Required value",
        ),
        (
            |spec| spec["selector"] = json!({}),
            "spec.selector: Invalid value: {}: empty selector is invalid for deployment",
        ),
        (
            |spec| spec["replicas"] = (-1).into(),
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
        ),
        (|spec| spec["strategy"] = json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}), zero),
        (
            |spec| spec["strategy"] = json!({"type": "Recreate", "rollingUpdate": {}}),
            "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
        ),
        (
            |spec| spec["progressDeadlineSeconds"] = 0.into(),
            "spec.progressDeadlineSeconds: Invalid value: 0: must be greater than minReadySeconds",
        ),
    ];
    for (change, text) in cases {
        assert_eq!(create("Deployment", deployment(change)).unwrap_err(), [text]);
    }
    let errors =
        create("Deployment", deployment(|spec| drop(spec.as_object_mut().unwrap().remove("selector"))));
    let labels = "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template \
                  `labels`";
    assert_eq!(errors.unwrap_err(), ["spec.selector: Required value", labels]);
    let old = create("Deployment", deployment(|_| {})).unwrap();
    let mut new = old.clone();
    new["spec"]["selector"] = json!({"matchLabels": {"app": "x"}});
    let errors = update("Deployment", &new, &old, SubresourceName::Main);
    let text = r#"spec.selector: Invalid value: {"matchLabels":{"app":"x"}}: field is immutable"#;
    assert_eq!(errors[1..], [text], "after what would refuse the new object alone");
}

#[test]
fn config_maps_and_secrets_follow_their_rules() {
    let text = "data[a b]: Invalid value: \"a b\": a valid config key must consist of alphanumeric characters, '-', \
                '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is \
                '[-._a-zA-Z0-9]+')";
    assert_eq!(create("ConfigMap", json!({"data": {"a b": ""}})).unwrap_err(), [text]);
    let old = json!({"data": {"a": "1"}, "immutable": true});
    let errors =
        update("ConfigMap", &json!({"data": {"a": "2"}, "immutable": true}), &old, SubresourceName::Main);
    assert_eq!(errors, ["data: Forbidden: field is immutable when `immutable` is set"]);
    let secret =
        create("Secret", json!({"stringData": {"a": "b"}, "data": {"a": "eA==", "c": "eA=="}})).unwrap();
    assert_eq!(secret, json!({"type": "Opaque", "data": {"a": "Yg==", "c": "eA=="}}));
    let errors = create("Secret", json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}})).unwrap_err();
    assert_eq!(errors, ["data[tls.key]: Required value"]);
}

#[test]
fn namespaces_carry_their_name_and_finalizer() {
    let namespace = create("Namespace", json!({"metadata": {"name": "a"}})).unwrap();
    let expected = json!({
        "metadata": {"name": "a", "labels": {"kubernetes.io/metadata.name": "a"}},
        "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Active"},
    });
    assert_eq!(namespace, expected);
    let strategy = resource("Namespace").strategy;
    let mut new = namespace.clone();
    new["spec"] = json!({});
    strategy.prepare_update(&context(SubresourceName::Main), &mut new, &namespace);
    assert_eq!(new["spec"], namespace["spec"], "only finalize takes finalizers away");
    new["spec"] = json!({});
    strategy.prepare_update(&context(SubresourceName::Other("finalize")), &mut new, &namespace);
    assert_eq!(new["spec"], json!({}));
}

#[test]
fn roles_and_bindings_follow_their_rules() {
    let rule = json!({"rules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz"]}]});
    assert!(create("ClusterRole", rule.clone()).is_ok());
    let text = "rules[0].nonResourceURLs: Invalid value: [\"/healthz\"]: namespaced rules cannot apply to \
                non-resource URLs";
    assert_eq!(create("Role", rule).unwrap_err(), [text]);
    let binding = json!({
        "roleRef": {"kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "User", "name": "eve"}, {"kind": "ServiceAccount", "name": "sa", "namespace": "a"}],
    });
    let stored = create("ClusterRoleBinding", binding).unwrap();
    assert_eq!(stored["roleRef"]["apiGroup"], "rbac.authorization.k8s.io");
    assert_eq!(stored["subjects"][0]["apiGroup"], "rbac.authorization.k8s.io");
    assert!(stored["subjects"][1].get("apiGroup").is_none());
    let mut new = stored.clone();
    new["roleRef"]["name"] = "edit".into();
    let errors = update("ClusterRoleBinding", &new, &stored, SubresourceName::Main);
    assert!(errors[0].ends_with("cannot change roleRef"), "{errors:?}");
}

fn definition(change: impl FnOnce(&mut Value)) -> Value {
    let mut crd = json!({
        "metadata": {"name": "ships.sea.example.com"},
        "spec": {
            "group": "sea.example.com",
            "scope": "Namespaced",
            "names": {"plural": "ships", "kind": "Ship", "shortNames": ["sh"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {"masts": {"type": "integer", "default": 3}}},
                }}},
                "subresources": {"status": {}},
                "additionalPrinterColumns": [{"name": "Masts", "type": "integer", "jsonPath": ".spec.masts"}],
            }],
        },
    });
    change(&mut crd["spec"]);
    crd
}

#[test]
fn a_definition_becomes_a_resource() {
    let crd = create("CustomResourceDefinition", definition(|_| {})).unwrap();
    assert_eq!(crd["spec"]["names"]["listKind"], "ShipList");
    assert_eq!(crd["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(crd["status"]["conditions"][1]["type"], "Established");
    let ships = custom::resource(&crd).unwrap();
    assert_eq!(
        (ships.names.plural.as_str(), ships.key_prefix().as_str()),
        ("ships", "/registry/sea.example.com/ships/")
    );
    let ship =
        create_with(&ships, json!({"metadata": {"name": "a"}, "spec": {}, "status": {"x": 1}})).unwrap();
    assert_eq!(ship, json!({"metadata": {"name": "a"}, "spec": {"masts": 3}}));
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    assert_eq!(ships.strategy.cells("v1", &ship, now), [json!("a"), json!(3)]);
}

#[test]
fn definitions_are_refused_in_upstreams_words() {
    let errors = |change: fn(&mut Value)| create("CustomResourceDefinition", definition(change)).unwrap_err();
    let name =
        r#"metadata.name: Invalid value: "ships.sea.example.com": must be spec.names.plural+"."+spec.group"#;
    assert_eq!(errors(|spec| spec["names"]["plural"] = "boats".into()), [name]);
    let storage = errors(|spec| spec["versions"][0]["storage"] = false.into());
    assert!(storage[0].ends_with("must have exactly one version marked as storage version"), "{storage:?}");
    let cel = errors(|spec| {
        let schema = &mut spec["versions"][0]["schema"]["openAPIV3Schema"];
        schema["x-kubernetes-validations"] = json!([{"rule": "true"}]);
    });
    assert!(
        cel[0].contains("x-kubernetes-validations: Forbidden: CEL rules are not supported yet"),
        "{cel:?}"
    );
    let webhook = errors(|spec| spec["conversion"] = json!({"strategy": "Webhook"}));
    assert!(
        webhook[0].starts_with("spec.conversion.strategy: Forbidden: conversion by webhook"),
        "{webhook:?}"
    );
}

#[test]
fn endpoints_are_repacked() {
    let endpoints = create(
        "Endpoints",
        json!({"subsets": [
            {"addresses": [{"ip": "10.0.0.2"}], "ports": [{"port": 80}]},
            {"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]},
        ]}),
    );
    let expected = json!([{
        "addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}],
        "ports": [{"port": 80, "protocol": "TCP"}],
    }]);
    assert_eq!(endpoints.unwrap()["subsets"], expected);
}
