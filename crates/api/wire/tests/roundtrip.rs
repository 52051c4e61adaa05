//! Every kind of upstream's round-trip data converts both ways, byte for byte.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use xebec_schema::{Schema, builtin};
use xebec_types::GroupVersion;
use xebec_wire::{WireError, decode, encode};

/// The only sample whose envelope and JSON name no kind: nothing says what to read it as. Events travel in streams
/// without an envelope of their own.
const NAMELESS: &str = "core.v1.WatchEvent";

fn reference() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(4)?;
    let path = root.join("shared/reference/roundtrip");
    if !path.is_dir() {
        eprintln!("skipped: no reference data at {}", path.display());
        return None;
    }
    Some(path)
}

fn names(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> =
        entries.filter_map(|name| name.to_str()?.strip_suffix(".pb").map(str::to_owned)).collect();
    names.sort();
    names
}

#[test]
fn upstream_bytes_are_upstream_json() {
    let Some(path) = reference() else { return };
    let mut wrong = Vec::new();
    let names = names(&path);
    for name in &names {
        let bytes = std::fs::read(path.join(format!("{name}.pb"))).unwrap();
        let wanted = std::fs::read(path.join(format!("{name}.json"))).unwrap();
        let wanted: Value = serde_json::from_slice(&wanted).unwrap();
        match decode(&bytes) {
            Err(WireError::UnknownKind { kind, .. }) if name == NAMELESS && kind.is_empty() => {}
            Ok(value) if value == wanted => {}
            Ok(value) => wrong.push(format!("{name}: {}", difference("", &value, &wanted))),
            Err(error) => wrong.push(format!("{name}: {error}")),
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), names.len(), wrong.join("\n"));
    assert!(names.len() > 150);
}

#[test]
fn upstream_json_is_upstream_bytes() {
    let Some(path) = reference() else { return };
    let mut wrong = Vec::new();
    for name in names(&path) {
        let wanted = std::fs::read(path.join(format!("{name}.pb"))).unwrap();
        let value: Value =
            serde_json::from_slice(&std::fs::read(path.join(format!("{name}.json"))).unwrap()).unwrap();
        let schema = match name.as_str() {
            NAMELESS => builtin("", "v1", "WatchEvent").unwrap(),
            _ => schema_of(&value),
        };
        let text = |key: &str| value[key].as_str().unwrap_or_default();
        match encode(&value, &schema, text("apiVersion"), text("kind")) {
            Ok(bytes) if bytes == wanted => {}
            Ok(bytes) => {
                let at = bytes.iter().zip(&wanted).take_while(|(a, b)| a == b).count();
                wrong.push(format!("{name}: {} and {} bytes, differ at {at}", bytes.len(), wanted.len()));
            }
            Err(error) => wrong.push(format!("{name}: {error}")),
        }
    }
    assert!(wrong.is_empty(), "{} kinds:\n{}", wrong.len(), wrong.join("\n"));
}

fn schema_of(value: &Value) -> Arc<Schema> {
    let version = GroupVersion::parse(value["apiVersion"].as_str().unwrap()).unwrap();
    builtin(&version.group, &version.version, value["kind"].as_str().unwrap()).unwrap()
}

fn difference(path: &str, a: &Value, b: &Value) -> String {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let keys = a.keys().chain(b.keys());
            let key = keys.into_iter().find(|key| a.get(*key) != b.get(*key)).unwrap();
            let of = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or_default();
            difference(&format!("{path}.{key}"), &of(a), &of(b))
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let at = a.iter().zip(b).position(|(a, b)| a != b).unwrap();
            difference(&format!("{path}[{at}]"), &a[at], &b[at])
        }
        _ => format!("{path}: {a} instead of {b}"),
    }
}

#[test]
fn small_objects_come_back() {
    for value in [
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}, "spec": {}, "status": {}}),
        json!({"apiVersion": "apps/v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}),
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "x"},
            "spec": {
                "group": "g", "scope": "Cluster", "names": {"plural": "x", "kind": "X"},
                "versions": [{
                    "name": "v1", "served": true, "storage": false,
                    "schema": {"openAPIV3Schema": {
                        "type": "object", "default": {"a": [1.5, null]}, "enum": [null, "a", 1],
                        "minimum": 1.5, "maximum": 7,
                        "items": {"type": "string"}, "additionalProperties": true,
                        "properties": {
                            "a": {"additionalProperties": {"type": "string"}, "items": [{"type": "integer"}]},
                            "b": {"additionalProperties": false, "dependencies": {"x": ["y"], "z": {"not": {}}}},
                        },
                    }},
                }],
            },
            "status": {
                "conditions": [], "storedVersions": [], "acceptedNames": {"plural": "x", "kind": "X"},
            },
        }),
    ] {
        let kind = value["kind"].as_str().unwrap();
        let bytes = encode(&value, &schema_of(&value), value["apiVersion"].as_str().unwrap(), kind).unwrap();
        let mut back = decode(&bytes).unwrap();
        if kind == "CustomResourceDefinition" {
            // Protobuf cannot tell empty lists from absent ones.
            back["status"]["conditions"] = json!([]);
            back["status"]["storedVersions"] = json!([]);
        }
        assert_eq!(back, value, "{}", difference("", &back, &value));
    }
}

#[test]
fn what_has_no_tables_is_refused() {
    let schema = builtin("", "v1", "Table").unwrap();
    let table = encode(&json!({"rows": []}), &schema, "meta.k8s.io/v1", "Table");
    assert!(matches!(table, Err(WireError::UnknownKind { .. })), "{table:?}");
    let crontab = b"k8s\0\x0a\x19\x0a\x0estable.acme/v1\x12\x07CronTab";
    assert!(matches!(decode(crontab), Err(WireError::UnknownKind { kind, .. }) if kind == "CronTab"));
    assert!(matches!(decode(b"{}"), Err(WireError::NoEnvelope)));
}
