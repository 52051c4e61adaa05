//! What is published equals what upstream publishes, descriptions aside.

#![allow(clippy::unwrap_used, missing_docs)]

use std::path::PathBuf;

use serde_json::{Value, json};
use xebec_schema::openapi::{Flavour, custom_schema, published_name, schemas};
use xebec_schema::table::builtin_names;

fn reference() -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../..").canonicalize().unwrap();
    let folder = root.parent()?.join("shared/reference");
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: {} is absent", folder.display());
    None
}

/// Drops what we do not publish, and the wrapping that only serves it.
fn bare(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, value| {
                !(key == "description" && value.is_string()) && key != "x-kubernetes-unions"
            });
            if map.len() == 1
                && let Some(Value::Array(list)) = map.get("allOf")
                && let [only] = list.as_slice()
            {
                *value = only.clone();
            }
            if let Value::Object(map) = value {
                map.values_mut().for_each(bare);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(bare),
        _ => {}
    }
}

fn every_group(kind: &Value) -> bool {
    kind == "DeleteOptions" || kind == "WatchEvent"
}

/// The kinds of every group list the groups, and the order of required fields means nothing.
fn comparable(mut schema: Value) -> Value {
    bare(&mut schema);
    if schema
        .get("x-kubernetes-group-version-kind")
        .is_some_and(|g| g[0]["group"] == "" && every_group(&g[0]["kind"]))
    {
        schema.as_object_mut().unwrap().remove("x-kubernetes-group-version-kind");
    }
    if let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut) {
        required.sort_by_key(Value::to_string);
    }
    schema
}

fn compare(document: &Value, pointer: &str, flavour: Flavour) -> usize {
    let groups = [("", "v1"), ("apps", "v1")];
    let ours = schemas(builtin_names(), &groups, flavour);
    let theirs = document.pointer(pointer).and_then(Value::as_object);
    let mut different = Vec::new();
    let theirs = theirs.into_iter().flatten();
    let count = theirs
        .map(|(name, schema)| {
            let ours = ours.get(name).cloned().unwrap_or(Value::Null);
            // The first two are not made of the table's types, and upstream calls the third's bytes a list. An alias
            // of a type is published as that type.
            let skipped =
                ["meta.v1.Patch", "version.Info", "v1.APIServiceSpec"].iter().any(|s| name.ends_with(s))
                    || name.contains("admissionregistration.v1alpha1.");
            if !skipped && comparable(ours.clone()) != comparable(schema.clone()) {
                different.push(format!("{name}\n  {}\n  {}", comparable(ours), comparable(schema.clone())));
            }
        })
        .count();
    assert!(
        different.is_empty(),
        "{} differ:\n{}",
        different.len(),
        different[..different.len().min(8)].join("\n")
    );
    count
}

#[test]
fn openapi_v2_is_upstreams() {
    let Some(reference) = reference() else { return };
    let text = std::fs::read(reference.join("openapi/swagger.json")).unwrap();
    let document: Value = serde_json::from_slice(&text).unwrap();
    assert!(compare(&document, "/definitions", Flavour::V2) > 700);
}

#[test]
fn openapi_v3_is_upstreams() {
    let Some(reference) = reference() else { return };
    for entry in std::fs::read_dir(reference.join("openapi/v3")).unwrap() {
        let document: Value = serde_json::from_slice(&std::fs::read(entry.unwrap().path()).unwrap()).unwrap();
        compare(&document, "/components/schemas", Flavour::V3);
    }
}

#[test]
fn custom_resources_are_published_as_kinds() {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "nullable": true}}});
    let v3 = custom_schema(&schema, "g", "v1", "K", Flavour::V3);
    assert_eq!(v3["x-kubernetes-group-version-kind"], json!([{"group": "g", "version": "v1", "kind": "K"}]));
    assert_eq!(
        v3["properties"]["metadata"]["$ref"],
        json!(format!("#/components/schemas/{}", published_name("meta.v1.ObjectMeta")))
    );
    assert_eq!(v3["properties"]["spec"]["nullable"], json!(true));
    let v2 = custom_schema(&schema, "g", "v1", "K", Flavour::V2);
    assert_eq!(v2["properties"]["spec"], json!({}));
}
