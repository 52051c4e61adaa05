//! The rules of `metadata` that hold for every kind (`k8s.io/apimachinery/pkg/api/validation/objectmeta.go`).

use serde_json::{Map, Value};
use xebec_registry::Resource;
use xebec_schema::error::{forbidden, invalid, required};
use xebec_schema::{FieldError, Path};
use xebec_types::{Status, names, object};

/// Letters of generated name suffixes: no vowels, no digits that look like letters.
const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Length of generated suffixes.
const SUFFIX: usize = 5;
/// Longest base that a suffix is put behind.
const MAX_GENERATED_BASE: usize = 63 - SUFFIX;
/// Bytes that all annotations of an object may have together.
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// Fields that only the server sets.
const SERVER_SET: [&str; 4] =
    ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion"];

/// Prepares the metadata of a new object.
///
/// # Errors
/// 400 if the object names another namespace, 500 (as upstream) if it has a resourceVersion.
pub fn prepare_create(
    resource: &Resource,
    namespace: &str,
    now: &str,
    value: &mut Value,
) -> Result<(), Status> {
    if !matches!(object::meta_str(value, "resourceVersion"), "" | "0") {
        return Err(Status::new(500, "", "resourceVersion should not be set on objects to be created"));
    }
    check_namespace(resource, namespace, value)?;
    let generated = generated_name(value);
    let metadata = object::metadata_mut(value);
    for field in SERVER_SET {
        metadata.remove(field);
    }
    match resource.namespaced() {
        true => metadata.insert("namespace".into(), namespace.into()),
        false => metadata.remove("namespace"),
    };
    if let Some(name) = generated {
        metadata.insert("name".into(), name.into());
    }
    metadata.insert("creationTimestamp".into(), now.into());
    metadata.insert("uid".into(), new_uid().into());
    match resource.strategy.has_generation() {
        true => metadata.insert("generation".into(), 1.into()),
        false => metadata.remove("generation"),
    };
    Ok(())
}

fn check_namespace(resource: &Resource, namespace: &str, value: &Value) -> Result<(), Status> {
    let own = object::namespace(value);
    if !resource.namespaced() || own.is_empty() || own == namespace {
        return Ok(());
    }
    let text = "the namespace of the provided object does not match the namespace sent on the request";
    Err(Status::bad_request(text))
}

fn generated_name(value: &Value) -> Option<String> {
    let base = object::meta_str(value, "generateName");
    if base.is_empty() || !object::name(value).is_empty() {
        return None;
    }
    let cut = base
        .char_indices()
        .map(|(at, c)| at + c.len_utf8())
        .take_while(|end| *end <= MAX_GENERATED_BASE)
        .last();
    Some(format!("{}{}", &base[..cut.unwrap_or(0)], suffix()))
}

fn suffix() -> String {
    (0..SUFFIX).map(|_| char::from(SUFFIX_LETTERS[rand::random_range(0..SUFFIX_LETTERS.len())])).collect()
}

/// A random (version 4) UUID.
pub fn new_uid() -> String {
    let mut bytes: [u8; 16] = rand::random();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let n = u128::from_be_bytes(bytes);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        n >> 96,
        n >> 80 & 0xffff,
        n >> 64 & 0xffff,
        n >> 48 & 0xffff,
        n & 0xffff_ffff_ffff
    )
}

/// Fields that keep their value for the object's life, and are taken over when the client leaves them out.
const IMMUTABLE: [&str; 5] =
    ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "namespace"];

/// Takes over from `old` what a change may leave out or may not touch.
pub fn prepare_update(resource: &Resource, new: &mut Value, old: &Value) {
    let none = Map::new();
    let before = object::metadata(old).unwrap_or(&none);
    let metadata = object::metadata_mut(new);
    metadata.remove("selfLink");
    for field in IMMUTABLE {
        let missing = metadata.get(field).is_none_or(|v| v.is_null() || v.as_str() == Some(""));
        if let (true, Some(value)) = (missing, before.get(field)) {
            metadata.insert(field.into(), value.clone());
        }
    }
    for field in ["generation", "resourceVersion"] {
        match before.get(field) {
            Some(value) => metadata.insert(field.into(), value.clone()),
            None => metadata.remove(field),
        };
    }
    if !resource.namespaced() {
        metadata.remove("namespace");
    }
}

/// Raises `metadata.generation` if anything but metadata and status differs.
pub fn raise_generation(new: &mut Value, old: &Value) {
    let rest = |value: &Value| -> Map<String, Value> {
        let fields = value.as_object().into_iter().flatten();
        fields
            .filter(|(k, _)| !matches!(k.as_str(), "metadata" | "status" | "apiVersion" | "kind"))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    };
    if rest(new) != rest(old) {
        let generation = object::metadata(old).and_then(|m| m.get("generation")).and_then(Value::as_i64);
        object::metadata_mut(new).insert("generation".into(), (generation.unwrap_or(0) + 1).into());
    }
}

/// Checks the metadata of a new object.
pub fn validate(resource: &Resource, value: &Value) -> Vec<FieldError> {
    let path = Path::new("metadata");
    let mut errors = Vec::new();
    let name = object::name(value);
    if name.is_empty() {
        errors.push(required(&path.child("name"), "name or generateName is required"));
    } else {
        let broken = resource.strategy.validate_name(name);
        errors.extend(broken.into_iter().map(|rule| invalid(&path.child("name"), name, rule)));
    }
    if resource.namespaced() {
        let namespace = object::namespace(value);
        let broken = names::dns1123_label(namespace);
        errors.extend(broken.into_iter().map(|rule| invalid(&path.child("namespace"), namespace, rule)));
    }
    errors.extend(validate_maps(value, &path));
    errors.extend(validate_lists(value, &path, resource.strategy.standard_finalizers_only()));
    errors
}

fn validate_maps(value: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (key, text) in object::labels(value) {
        let at = path.child("labels");
        errors.extend(names::qualified_name(key).into_iter().map(|rule| invalid(&at, key, rule)));
        errors.extend(names::label_value(text).into_iter().map(|rule| invalid(&at, text, rule)));
    }
    let annotations = object::at(value, "metadata.annotations").and_then(Value::as_object);
    let at = path.child("annotations");
    let mut total = 0;
    for (key, text) in annotations.into_iter().flatten() {
        let broken = names::qualified_name(&key.to_lowercase());
        errors.extend(broken.into_iter().map(|rule| invalid(&at, key.as_str(), rule)));
        total += key.len() + text.as_str().map_or(0, str::len);
    }
    if total > MAX_ANNOTATIONS {
        errors.push(xebec_schema::error::too_long(&at, MAX_ANNOTATIONS));
    }
    errors
}

/// The finalizers that need no domain.
const STANDARD_FINALIZERS: [&str; 3] = ["foregroundDeletion", "kubernetes", "orphan"];

/// `standard_only` says whether finalizers without a domain must be standard ones.
fn validate_lists(value: &Value, path: &Path, standard_only: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let at = path.child("finalizers");
    let finalizers = object::finalizers(value);
    for (i, finalizer) in finalizers.iter().enumerate() {
        errors
            .extend(names::qualified_name(finalizer).into_iter().map(|rule| invalid(&at, *finalizer, rule)));
        if standard_only && !finalizer.contains('/') && !STANDARD_FINALIZERS.contains(finalizer) {
            let text = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(invalid(&at.index(i), *finalizer, text));
        }
    }
    if finalizers.contains(&"orphan") && finalizers.contains(&"foregroundDeletion") {
        let text = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(invalid(&at, finalizers.clone(), text));
    }
    let owners = object::at(value, "metadata.ownerReferences").and_then(Value::as_array);
    let mut controller = None;
    for (i, owner) in owners.into_iter().flatten().enumerate() {
        let at = path.child("ownerReferences").index(i);
        for (field, rule) in [
            ("apiVersion", "version must not be empty"),
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ] {
            if object::str_at(owner, field).is_empty() {
                errors.push(invalid(&at.child(field), "", rule));
            }
        }
        if owner["controller"] == true && controller.replace(i).is_some() {
            let text = "Only one reference can have Controller set to true";
            errors.push(invalid(&path.child("ownerReferences"), Value::Null, text));
        }
    }
    errors
}

/// Checks what may not change.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let path = Path::new("metadata");
    let none = Map::new();
    let (now, before) = (object::metadata(new).unwrap_or(&none), object::metadata(old).unwrap_or(&none));
    let mut errors = Vec::new();
    for field in ["name"].into_iter().chain(IMMUTABLE) {
        if now.get(field) != before.get(field) {
            let value = now.get(field).cloned().unwrap_or(Value::Null);
            errors.push(invalid(&path.child(field), value, "field is immutable"));
        }
    }
    if object::deletion_timestamp(old).is_some() {
        let known = object::finalizers(old);
        let added: Vec<_> = object::finalizers(new).into_iter().filter(|f| !known.contains(f)).collect();
        if !added.is_empty() {
            let list = added.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>().join(", ");
            let text = format!(
                "no new finalizers can be added if the object is being deleted, \
                 found new finalizers []string{{{list}}}"
            );
            errors.push(forbidden(&path.child("finalizers"), text));
        }
    }
    errors.extend(validate_maps(new, &path));
    errors.extend(validate_lists(new, &path, false));
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_and_suffixes_have_their_shape() {
        let uid = new_uid();
        assert_eq!((uid.len(), &uid[14..15]), (36, "4"), "{uid}");
        assert!(suffix().bytes().all(|b| SUFFIX_LETTERS.contains(&b)));
        let long = serde_json::json!({"metadata": {"generateName": "x".repeat(100)}});
        assert_eq!(generated_name(&long).map(|n| n.len()), Some(63));
    }

    #[test]
    fn generation_follows_everything_but_metadata_and_status() {
        let old = serde_json::json!({"metadata": {"generation": 3}, "spec": {"a": 1}, "status": {}});
        let mut same = old.clone();
        same["status"] = serde_json::json!({"x": 1});
        raise_generation(&mut same, &old);
        assert_eq!(same["metadata"]["generation"], 3);
        let mut changed = old.clone();
        changed["spec"]["a"] = 2.into();
        raise_generation(&mut changed, &old);
        assert_eq!(changed["metadata"]["generation"], 4);
    }
}
