//! What a definition may say.

use std::collections::BTreeSet;

use serde_json::Value;
use xebec_schema::{FieldError, Path, error};
use xebec_types::{names, object};

use super::jsonpath::JsonPath;
use crate::cells::list_at;
use crate::check::{self, Errors};

/// Everything wrong with a definition.
pub(crate) fn definition(crd: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let spec = crd.get("spec").unwrap_or(&Value::Null);
    let path = Path::new("spec");
    let group = object::str_at(spec, "group");
    let plural = object::str_at(spec, "names.plural");
    if object::name(crd) != format!("{plural}.{group}") {
        let at = Path::new("metadata").child("name");
        let why = r#"must be spec.names.plural+"."+spec.group"#;
        errors.push(error::invalid(&at, object::name(crd), why));
    }
    check::required_name(&path.child("group"), group, names::dns1123_subdomain, &mut errors);
    if !group.is_empty() && !group.contains('.') {
        errors.push(error::invalid(&path.child("group"), group, "should be a domain with at least one dot"));
    }
    protected(crd, group, &mut errors);
    let scope = object::str_at(spec, "scope");
    check::one_of(&path.child("scope"), scope, &["Cluster", "Namespaced"], &mut errors);
    if spec.get("preserveUnknownFields") == Some(&Value::Bool(true)) {
        let why = "must be false, use x-kubernetes-preserve-unknown-fields: true in the schema instead";
        errors.push(error::invalid(&path.child("preserveUnknownFields"), true, why));
    }
    conversion(spec, &path.child("conversion"), &mut errors);
    resource_names(spec.get("names").unwrap_or(&Value::Null), &path.child("names"), &mut errors);
    versions(spec, &path.child("versions"), &mut errors);
    errors
}

/// Groups of the Kubernetes community need an approval, so that nobody squats there (KEP-1111).
fn protected(crd: &Value, group: &str, errors: &mut Errors) {
    let community = [".k8s.io", ".kubernetes.io"].iter().any(|suffix| group.ends_with(suffix));
    let annotation = "api-approved.kubernetes.io";
    let approved = object::metadata(crd)
        .and_then(|m| m.get("annotations"))
        .and_then(|a| a.get(annotation))
        .and_then(Value::as_str)
        .is_some_and(|text| {
            text.starts_with("https://") || text.starts_with("http://") || text.starts_with("unapproved")
        });
    if community && !approved {
        let path = Path::new("metadata").child("annotations").key(annotation);
        let why = "protected groups must have approval annotation \"api-approved.kubernetes.io\", see \
                   https://github.com/kubernetes/enhancements/pull/1111";
        errors.push(error::required(&path, why));
    }
}

/// Only versions of equal shape can be served for now.
fn conversion(spec: &Value, path: &Path, errors: &mut Errors) {
    let strategy = object::str_at(spec, "conversion.strategy");
    match strategy {
        "None" if object::at(spec, "conversion.webhook").is_some() => {
            let why = "should not be set when strategy is not set to Webhook";
            errors.push(error::forbidden(&path.child("webhook"), why));
        }
        "None" => {}
        "Webhook" => {
            let why = "conversion by webhook is not supported yet: use None, and versions of the same shape";
            errors.push(error::forbidden(&path.child("strategy"), why));
        }
        other => errors.push(error::not_supported(&path.child("strategy"), other, &["None", "Webhook"])),
    }
}

fn resource_names(names_json: &Value, path: &Path, errors: &mut Errors) {
    let get = |field| object::str_at(names_json, field);
    for field in ["plural", "singular"] {
        check::required_name(&path.child(field), get(field), names::dns1035_label, errors);
    }
    for field in ["kind", "listKind"] {
        let lower = get(field).to_lowercase();
        if lower.is_empty() {
            errors.push(error::required(&path.child(field), ""));
        } else {
            for broken in names::dns1035_label(&lower) {
                let why = format!("may have mixed case, but should otherwise match: {broken}");
                errors.push(error::invalid(&path.child(field), get(field), why));
            }
        }
    }
    if !get("kind").is_empty() && get("kind") == get("listKind") {
        errors.push(error::invalid(
            &path.child("listKind"),
            get("listKind"),
            "kind and listKind may not be the same",
        ));
    }
    for field in ["shortNames", "categories"] {
        for (i, word) in list_at(names_json, field).iter().enumerate() {
            let word = word.as_str().unwrap_or("");
            check::rules(&path.child(field).index(i), word, names::dns1035_label(word), errors);
        }
    }
}

fn versions(spec: &Value, path: &Path, errors: &mut Errors) {
    let all = list_at(spec, "versions");
    let (mut seen, mut stored) = (BTreeSet::new(), 0);
    for (i, version) in all.iter().enumerate() {
        let at = path.index(i);
        let name = object::str_at(version, "name");
        check::rules(&at.child("name"), name, names::dns1035_label(name), errors);
        if !seen.insert(name) {
            errors.push(error::invalid(path, Value::from(all.to_vec()), "must contain unique version names"));
        }
        stored += usize::from(version.get("storage") == Some(&Value::Bool(true)));
        schema(version, &at.child("schema").child("openAPIV3Schema"), errors);
        columns(version, &at.child("additionalPrinterColumns"), errors);
        subresources(version, &at.child("subresources"), errors);
    }
    if stored != 1 {
        let why = "must have exactly one version marked as storage version";
        errors.push(error::invalid(path, Value::from(all.to_vec()), why));
    }
}

fn schema(version: &Value, path: &Path, errors: &mut Errors) {
    let Some(schema) = object::at(version, "schema.openAPIV3Schema") else {
        errors.push(error::required(path, ""));
        return;
    };
    rules(schema, path, errors);
    if let Err(broken) = super::custom::structural(schema, path) {
        errors.extend(broken);
    }
}

/// CEL rules are refused rather than ignored.
fn rules(schema: &Value, path: &Path, errors: &mut Errors) {
    if !list_at(schema, "x-kubernetes-validations").is_empty() {
        let why = "CEL rules are not supported yet: remove them, or say it with the schema";
        errors.push(error::forbidden(&path.child("x-kubernetes-validations"), why));
    }
    for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        rules(property, &path.child("properties").key(name.clone()), errors);
    }
    for field in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get(field).filter(|v| v.is_object()) {
            rules(inner, &path.child(field), errors);
        }
    }
    for field in ["allOf", "anyOf", "oneOf"] {
        for (i, inner) in list_at(schema, field).iter().enumerate() {
            rules(inner, &path.child(field).index(i), errors);
        }
    }
}

fn columns(version: &Value, path: &Path, errors: &mut Errors) {
    for (i, column) in list_at(version, "additionalPrinterColumns").iter().enumerate() {
        let at = path.index(i);
        if object::str_at(column, "name").is_empty() {
            errors.push(error::required(&at.child("name"), ""));
        }
        let kind = object::str_at(column, "type");
        let supported = ["boolean", "date", "integer", "number", "string"];
        check::one_of(&at.child("type"), kind, &supported, errors);
        let text = object::str_at(column, "jsonPath");
        if text.is_empty() {
            errors.push(error::required(&at.child("jsonPath"), ""));
        } else if let Err(e) = JsonPath::parse(text) {
            errors.push(error::invalid(&at.child("jsonPath"), text, e.to_string()));
        }
    }
}

fn subresources(version: &Value, path: &Path, errors: &mut Errors) {
    let Some(scale) = object::at(version, "subresources.scale") else { return };
    let path = path.child("scale");
    let below = [
        ("specReplicasPath", ".spec.", true),
        ("statusReplicasPath", ".status.", true),
        ("labelSelectorPath", "", false),
    ];
    for (field, prefix, required) in below {
        let text = object::str_at(scale, field);
        let at = path.child(field);
        if text.is_empty() {
            if required {
                errors.push(error::required(&at, ""));
            }
        } else if text.contains('[') {
            errors.push(error::invalid(&at, text, "should be a simple json path without arrays"));
        } else if !text.starts_with(prefix) || !text.starts_with('.') {
            errors.push(error::invalid(
                &at,
                text,
                format!("should be a json path under {}", prefix.trim_end_matches('.')),
            ));
        }
    }
}

/// Stored versions must exist.
pub(crate) fn stored_versions(crd: &Value) -> Vec<FieldError> {
    let versions = list_at(crd, "spec.versions");
    let missing = list_at(crd, "status.storedVersions")
        .iter()
        .enumerate()
        .filter(|(_, stored)| !versions.iter().any(|v| v.get("name") == Some(stored)));
    let path = Path::new("status").child("storedVersions");
    missing.map(|(i, v)| error::invalid(&path.index(i), v.clone(), "missing from spec.versions")).collect()
}
