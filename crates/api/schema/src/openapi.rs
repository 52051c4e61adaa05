//! OpenAPI out of the type graph: the schemas of documents, with the extensions that kubectl and client-side
//! tools read.
//!
//! Descriptions are left out, so a reference stands alone where upstream wraps it to carry one.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::schema::{Field, Kind, List, ListType, Node, Schema};
use crate::table::{builtin_type, group_of};

/// The two forms of OpenAPI that the server publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// Swagger 2.0: `#/definitions/…`, no defaults.
    V2,
    /// OpenAPI 3.0: `#/components/schemas/…`.
    V3,
}

/// The published name of a built-in type: `core.v1.Pod` is `io.k8s.api.core.v1.Pod`.
#[must_use]
pub fn published_name(short: &str) -> String {
    let prefix = match short.split('.').next().unwrap_or_default() {
        "meta" => "io.k8s.apimachinery.pkg.apis",
        "runtime" => "io.k8s.apimachinery.pkg",
        "intstr" => "io.k8s.apimachinery.pkg.util",
        "apiextensions" => "io.k8s.apiextensions-apiserver.pkg.apis",
        "apiregistration" => "io.k8s.kube-aggregator.pkg.apis",
        "metrics" => "io.k8s.metrics.pkg.apis",
        _ if short == "resource.Quantity" => "io.k8s.apimachinery.pkg.api",
        _ => "io.k8s.api",
    };
    format!("{prefix}.{short}")
}

/// The reference to a built-in type by its short name.
#[must_use]
pub fn reference(short: &str, flavour: Flavour) -> Value {
    let place = match flavour {
        Flavour::V2 => "definitions",
        Flavour::V3 => "components/schemas",
    };
    json!({ "$ref": format!("#/{place}/{}", published_name(short)) })
}

/// The schemas of the built-in types with the given short names and of all they refer to, by published name: what
/// stands in `components.schemas` or `definitions`. `groups` are the groups and versions of the document, which
/// kinds that belong to every group (`DeleteOptions`, `WatchEvent`) list.
#[must_use]
pub fn schemas<'n>(
    names: impl IntoIterator<Item = &'n str>,
    groups: &[(&str, &str)],
    flavour: Flavour,
) -> Map<String, Value> {
    let mut publisher = Publisher { flavour, groups, queue: BTreeSet::new() };
    publisher.queue.extend(names.into_iter().map(str::to_owned));
    let mut done = Map::new();
    while let Some(name) = publisher.queue.pop_first() {
        let published = published_name(&name);
        if done.contains_key(&published) {
            continue;
        }
        let schema = match builtin_type(&name) {
            Some(schema) => publisher.definition(&schema),
            None => named_scalar(&name, flavour),
        };
        done.insert(published, schema);
    }
    done
}

/// The schema of a custom resource as documents publish it: the definition's own `openAPIV3Schema` with the fields
/// of every resource. The types it refers to are those of `meta.v1.ObjectMeta`.
#[must_use]
pub fn custom_schema(schema: &Value, group: &str, version: &str, kind: &str, flavour: Flavour) -> Value {
    let mut schema = match flavour {
        Flavour::V2 => for_v2(schema),
        Flavour::V3 => schema.clone(),
    };
    if !schema.is_object() {
        schema = json!({"type": "object"});
    }
    if let Some(map) = schema.as_object_mut() {
        map.insert("x-kubernetes-group-version-kind".to_owned(), json!([gvk(group, version, kind)]));
        let properties = map.entry("properties").or_insert_with(|| json!({}));
        if let Some(properties) = properties.as_object_mut() {
            properties.insert("apiVersion".to_owned(), json!({"type": "string"}));
            properties.insert("kind".to_owned(), json!({"type": "string"}));
            properties.insert("metadata".to_owned(), reference("meta.v1.ObjectMeta", flavour));
        }
    }
    schema
}

fn gvk(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

/// Swagger 2.0 knows no unions, and its clients refuse unknown fields where they see a full list of properties.
fn for_v2(schema: &Value) -> Value {
    const UNKNOWN_TO_V2: &[&str] = &["anyOf", "oneOf", "not", "allOf", "nullable", "default"];
    let Value::Object(map) = schema else { return schema.clone() };
    let open = map.get("x-kubernetes-preserve-unknown-fields").is_some_and(|value| value == true);
    let nullable = map.get("nullable").is_some_and(|value| value == true);
    let mut out = Map::new();
    for (key, value) in map {
        let structure = matches!(key.as_str(), "properties" | "items" | "additionalProperties" | "required");
        if UNKNOWN_TO_V2.contains(&key.as_str())
            || (open && structure)
            || (nullable && (structure || key == "type"))
        {
            continue;
        }
        let value = match (key.as_str(), value) {
            ("properties", Value::Object(properties)) => properties
                .iter()
                .map(|(name, value)| (name.clone(), for_v2(value)))
                .collect::<Map<_, _>>()
                .into(),
            ("items" | "additionalProperties", value) => for_v2(value),
            _ => value.clone(),
        };
        out.insert(key.clone(), value);
    }
    Value::Object(out)
}

fn named_scalar(name: &str, flavour: Flavour) -> Value {
    match (name, flavour) {
        ("resource.Quantity", Flavour::V2) => json!({"type": "string"}),
        ("resource.Quantity", Flavour::V3) => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        ("intstr.IntOrString", Flavour::V2) => json!({"type": "string", "format": "int-or-string"}),
        ("intstr.IntOrString", Flavour::V3) => {
            json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
        }
        ("meta.v1.Time" | "meta.v1.MicroTime", _) => json!({"type": "string", "format": "date-time"}),
        ("meta.v1.FieldsV1" | "runtime.RawExtension", _) => json!({"type": "object"}),
        _ => json!({}),
    }
}

struct Publisher<'g> {
    flavour: Flavour,
    groups: &'g [(&'g str, &'g str)],
    queue: BTreeSet<String>,
}

impl Publisher<'_> {
    fn definition(&mut self, schema: &Schema) -> Value {
        let mut out = Map::new();
        out.insert("type".to_owned(), json!("object"));
        let Some(object) = schema.object() else { return Value::Object(out) };
        let mut properties = Map::new();
        for field in &object.fields {
            properties.insert(field.name.clone(), self.property(field));
        }
        if !properties.is_empty() {
            out.insert("properties".to_owned(), properties.into());
        }
        let required: Vec<&str> =
            object.fields.iter().filter(|field| field.required).map(|field| field.name.as_str()).collect();
        if !required.is_empty() {
            out.insert("required".to_owned(), json!(required));
        }
        if object.atomic {
            out.insert("x-kubernetes-map-type".to_owned(), json!("atomic"));
        }
        if object.is_kind {
            out.insert("x-kubernetes-group-version-kind".to_owned(), self.kinds(&schema.name));
        }
        Value::Object(out)
    }

    fn kinds(&self, name: &str) -> Value {
        let mut parts = name.split('.').skip(1);
        let (version, kind) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if matches!(name, "meta.v1.DeleteOptions" | "meta.v1.WatchEvent") {
            return self.groups.iter().map(|(group, version)| gvk(group, version, kind)).collect();
        }
        let group = if name.starts_with("meta.") { "" } else { group_of(name) };
        json!([gvk(group, version, kind)])
    }

    fn property(&mut self, field: &Field) -> Value {
        let schema = self.inner(&field.schema);
        let Value::Object(mut out) = schema else { return schema };
        if let Kind::List(list) = &field.schema.kind {
            add_list_facts(&mut out, list);
        }
        if let Some(atomic) = field.atomic {
            let map_type = if atomic { "atomic" } else { "granular" };
            out.insert("x-kubernetes-map-type".to_owned(), json!(map_type));
        }
        if let Some(strategies) = strategies(field) {
            out.insert("x-kubernetes-patch-strategy".to_owned(), json!(strategies));
        }
        if let Some(key) = &field.patch.merge_key {
            out.insert("x-kubernetes-patch-merge-key".to_owned(), json!(key));
        }
        if let Some(default) = self.default(field) {
            out.insert("default".to_owned(), default);
        }
        // OpenAPI 3.0 ignores what stands beside a reference.
        if self.flavour == Flavour::V3
            && out.len() > 1
            && let Some(reference) = out.remove("$ref")
        {
            out.insert("allOf".to_owned(), json!([{ "$ref": reference }]));
        }
        Value::Object(out)
    }

    fn default(&self, field: &Field) -> Option<Value> {
        if self.flavour == Flavour::V2 {
            return None;
        }
        if let Some(default) = &field.default {
            return Some(default.clone());
        }
        if field.pointer {
            return None;
        }
        match &field.schema.kind {
            Kind::Object(_) => Some(json!({})),

            _ if field.omit_empty => None,
            Kind::String => Some(json!("")),
            Kind::Int32 | Kind::Int64 | Kind::Number => Some(json!(0)),
            Kind::Bool => Some(json!(false)),
            _ => None,
        }
    }

    fn inner(&mut self, node: &Node) -> Value {
        let named = match &node.kind {
            Kind::String => None,
            _ if node.name.is_empty() => None,
            _ => Some(node.name.as_str()),
        };
        if let Some(name) = node.reference().or(named) {
            self.queue.insert(name.to_owned());
            return reference(name, self.flavour);
        }
        match &node.kind {
            Kind::Map(map) => json!({"type": "object", "additionalProperties": self.inner(&map.values)}),
            Kind::List(list) => json!({"type": "array", "items": self.inner(&list.items)}),
            Kind::String | Kind::Duration => json!({"type": "string"}),
            Kind::Bool => json!({"type": "boolean"}),
            Kind::Int32 => json!({"type": "integer", "format": "int32"}),
            Kind::Int64 => json!({"type": "integer", "format": "int64"}),
            Kind::Number => json!({"type": "number", "format": "double"}),
            Kind::Bytes => json!({"type": "string", "format": "byte"}),
            _ => json!({"type": "object"}),
        }
    }
}

fn add_list_facts(out: &mut Map<String, Value>, list: &List) {
    if !list.list_type_declared {
        return;
    }
    let list_type = match list.list_type {
        ListType::Atomic => "atomic",
        ListType::Set => "set",
        ListType::Map => "map",
    };
    out.insert("x-kubernetes-list-type".to_owned(), json!(list_type));
    if !list.map_keys.is_empty() {
        out.insert("x-kubernetes-list-map-keys".to_owned(), json!(list.map_keys));
    }
}

fn strategies(field: &Field) -> Option<String> {
    let patch = &field.patch;
    let named = [(patch.merge, "merge"), (patch.replace, "replace"), (patch.retain_keys, "retainKeys")];
    let list: Vec<&str> = named.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
    (!list.is_empty()).then(|| list.join(","))
}
