//! Environment variables and where their values come from.

use k8s_openapi::api::core::v1::{
    Container, EnvFromSource, EnvVarSource, ObjectFieldSelector, ResourceFieldSelector,
};
use xebec_schema::{Path, error};
use xebec_types::names;

use crate::check::{self, Errors, shown};

/// Fields that variables may refer to.
const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Fields that files of downward API volumes may hold.
const FILE_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
/// Every field that exists for the downward API; others are no field labels at all.
const KNOWN_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// Checks `env` and `envFrom`.
pub(crate) fn validate(container: &Container, path: &Path, errors: &mut Errors) {
    for (i, variable) in container.env.iter().flatten().enumerate() {
        let path = path.child("env").index(i);
        check::required_name(&path.child("name"), &variable.name, variable_name, errors);
        if let Some(source) = &variable.value_from {
            let has_value = variable.value.as_deref().is_some_and(|v| !v.is_empty());
            value_from(source, has_value, &path.child("valueFrom"), errors);
        }
    }
    for (i, source) in container.env_from.iter().flatten().enumerate() {
        env_from(source, &path.child("envFrom").index(i), errors);
    }
}

/// Printable ASCII but `=` (KEP-4369).
fn variable_name(name: &str) -> Vec<String> {
    let ok = |c: u8| (0x20..0x7f).contains(&c) && c != b'=';
    if name.bytes().all(ok) {
        return Vec::new();
    }
    vec![
        "a valid environment variable name must consist only of printable ASCII characters other than '='"
            .into(),
    ]
}

fn value_from(source: &EnvVarSource, has_value: bool, path: &Path, errors: &mut Errors) {
    let mut given = 0;
    if let Some(reference) = &source.field_ref {
        given += 1;
        field_ref(reference, ENV_FIELDS, &path.child("fieldRef"), errors);
    }
    if let Some(reference) = &source.resource_field_ref {
        given += 1;
        resource_field_ref(reference, &path.child("resourceFieldRef"), errors);
    }
    let keys = [
        ("configMapKeyRef", source.config_map_key_ref.as_ref().map(|r| (r.name.as_str(), r.key.as_str()))),
        ("secretKeyRef", source.secret_key_ref.as_ref().map(|r| (r.name.as_str(), r.key.as_str()))),
    ];
    for (field, reference) in keys {
        let Some((name, key)) = reference else { continue };
        given += 1;
        let path = path.child(field);
        if name.is_empty() {
            errors.push(error::required(&path.child("name"), ""));
        }
        check::required_name(&path.child("key"), key, names::config_map_key, errors);
    }
    given += usize::from(source.file_key_ref.is_some());
    if given == 0 {
        let why = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or \
                   `fileKeyRef`";
        errors.push(error::invalid(path, "", why));
    } else if has_value {
        errors.push(error::invalid(path, "", "may not be specified when `value` is not empty"));
    } else if given > 1 {
        errors.push(error::invalid(path, "", "may not have more than one field specified at a time"));
    }
}

fn env_from(source: &EnvFromSource, path: &Path, errors: &mut Errors) {
    if let Some(prefix) = source.prefix.as_deref().filter(|p| !p.is_empty()) {
        check::rules(&path.child("prefix"), prefix, variable_name(prefix), errors);
    }
    let references = [
        ("configMapRef", source.config_map_ref.as_ref().map(|r| r.name.as_str())),
        ("secretRef", source.secret_ref.as_ref().map(|r| r.name.as_str())),
    ];
    let given: Vec<_> = references.iter().filter_map(|(f, n)| n.map(|n| (*f, n))).collect();
    for (field, name) in &given {
        if name.is_empty() {
            errors.push(error::required(&path.child(*field).child("name"), ""));
        }
    }
    match given.len() {
        0 => errors.push(error::invalid(path, "", "must specify one of: `configMapRef` or `secretRef`")),
        1 => {}
        _ => errors.push(error::invalid(path, "", "may not have more than one field specified at a time")),
    }
}

/// A reference to a field of the pod for a variable.
fn field_ref(reference: &ObjectFieldSelector, allowed: &[&str], path: &Path, errors: &mut Errors) {
    if reference.api_version.as_deref().unwrap_or("").is_empty() {
        errors.push(error::required(&path.child("apiVersion"), ""));
        return;
    }
    let field = reference.field_path.as_str();
    let path = path.child("fieldPath");
    if field.is_empty() {
        errors.push(error::required(&path, ""));
        return;
    }
    if let Some((base, subscript)) = subscripted(field) {
        match base {
            "metadata.annotations" => {
                check::rules(&path, subscript, names::qualified_name(&subscript.to_lowercase()), errors);
            }
            "metadata.labels" => check::rules(&path, subscript, names::qualified_name(subscript), errors),
            _ => errors.push(error::invalid(&path, field, format!("does not support subscript: {base:?}"))),
        }
    } else if !KNOWN_FIELDS.contains(&field) {
        let why = format!("error converting fieldPath: field label not supported: {field}");
        errors.push(error::invalid(&path, field, why));
    } else if !allowed.contains(&field) {
        errors.push(error::not_supported(&path, field, allowed));
    }
}

/// A reference to a field of the pod for a file of a downward API volume.
pub(crate) fn file_field_ref(reference: &ObjectFieldSelector, path: &Path, errors: &mut Errors) {
    field_ref(reference, FILE_FIELDS, path, errors);
}

/// `metadata.labels['a/b']` as its two parts.
fn subscripted(field: &str) -> Option<(&str, &str)> {
    field.strip_suffix("']")?.split_once("['")
}

/// A reference to a resource of a container.
pub(crate) fn resource_field_ref(reference: &ResourceFieldSelector, path: &Path, errors: &mut Errors) {
    let resource = reference.resource.as_str();
    let huge = ["limits.hugepages-", "requests.hugepages-"].iter().any(|p| resource.starts_with(p));
    if resource.is_empty() {
        errors.push(error::required(&path.child("resource"), ""));
    } else if !RESOURCES.contains(&resource) && !huge {
        errors.push(error::not_supported(&path.child("resource"), resource, RESOURCES));
    }
    let Some(divisor) = &reference.divisor else { return };
    let ok: &[&str] = match resource.rsplit('.').next().unwrap_or("") {
        "cpu" => &["", "0", "1", "1m"],
        _ => &["", "0", "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"],
    };
    if !ok.contains(&divisor.0.as_str()) {
        let why = if resource.ends_with("cpu") {
            "only divisor's values 1m and 1 are supported with the cpu resource".to_owned()
        } else {
            "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with \
             memory and storage resources"
                .to_owned()
        };
        errors.push(error::invalid(&path.child("divisor"), shown(&divisor.0), why));
    }
}
