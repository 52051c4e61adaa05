//! Small checks that many validations share.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use xebec_schema::{FieldError, Path, error};
use xebec_types::names;

/// What is wrong, so far.
pub(crate) type Errors = Vec<FieldError>;

/// Decodes an object into its typed form. Objects have passed their schema by then, so a failure names the whole
/// object.
pub(crate) fn typed<T: DeserializeOwned>(object: &Value) -> Result<T, Errors> {
    T::deserialize(object)
        .map_err(|e| vec![error::invalid(&Path::root(), Value::Null, format!("cannot be decoded: {e}"))])
}

/// One `Invalid` for every broken rule.
pub(crate) fn rules(path: &Path, value: &str, broken: Vec<String>, errors: &mut Errors) {
    errors.extend(broken.into_iter().map(|rule| error::invalid(path, value, rule)));
}

/// A value that must be given and follow rules.
pub(crate) fn required_name(path: &Path, value: &str, rule: fn(&str) -> Vec<String>, errors: &mut Errors) {
    if value.is_empty() {
        errors.push(error::required(path, ""));
    } else {
        rules(path, value, rule(value), errors);
    }
}

/// A value out of an enumeration; `Required` when it is empty.
pub(crate) fn one_of(path: &Path, value: &str, supported: &[&str], errors: &mut Errors) {
    if value.is_empty() {
        errors.push(error::required(path, ""));
    } else if !supported.contains(&value) {
        errors.push(error::not_supported(path, value, supported));
    }
}

/// A number that may not be negative.
pub(crate) fn non_negative(path: &Path, value: i64, errors: &mut Errors) {
    if value < 0 {
        errors.push(error::invalid(path, value, "must be greater than or equal to 0"));
    }
}

/// A port number.
pub(crate) fn port(path: &Path, value: i64, errors: &mut Errors) {
    if !(1..=65535).contains(&value) {
        errors.push(error::invalid(path, value, "must be between 1 and 65535, inclusive"));
    }
}

/// A field that an update may not change.
pub(crate) fn immutable(path: &Path, new: Option<&Value>, old: Option<&Value>, errors: &mut Errors) {
    let (new, old) = (new.filter(|v| !v.is_null()), old.filter(|v| !v.is_null()));
    if new != old {
        errors.push(error::invalid(path, new.cloned().unwrap_or(Value::Null), "field is immutable"));
    }
}

/// Labels: qualified names as keys, label values as values.
pub(crate) fn labels(map: Option<&BTreeMap<String, String>>, path: &Path, errors: &mut Errors) {
    for (key, value) in map.into_iter().flatten() {
        rules(path, key, names::qualified_name(key), errors);
        rules(path, value, names::label_value(value), errors);
    }
}

/// Most bytes that the annotations of an object may have together.
const ANNOTATIONS_MAX: usize = 256 * 1024;

/// Annotations: qualified names (whatever their case) as keys, and not too much of them.
pub(crate) fn annotations(map: Option<&BTreeMap<String, String>>, path: &Path, errors: &mut Errors) {
    let mut size = 0;
    for (key, value) in map.into_iter().flatten() {
        rules(path, key, names::qualified_name(&key.to_lowercase()), errors);
        size += key.len() + value.len();
    }
    if size > ANNOTATIONS_MAX {
        errors.push(error::too_long(path, ANNOTATIONS_MAX));
    }
}

/// A `metav1.LabelSelector`.
pub(crate) fn label_selector(selector: &LabelSelector, path: &Path, errors: &mut Errors) {
    labels(selector.match_labels.as_ref(), &path.child("matchLabels"), errors);
    for (i, e) in selector.match_expressions.iter().flatten().enumerate() {
        let path = path.child("matchExpressions").index(i);
        let values = e.values.as_deref().unwrap_or_default();
        match e.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => {
                let why = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(error::required(&path.child("values"), why));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(error::forbidden(&path.child("values"), why));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => {
                errors.push(error::invalid(&path.child("operator"), other, "not a valid selector operator"))
            }
        }
        rules(&path.child("key"), &e.key, names::qualified_name(&e.key), errors);
        for (j, value) in values.iter().enumerate() {
            rules(&path.child("values").index(j), value, names::label_value(value), errors);
        }
    }
}

/// Whether a selector selects everything, because it says nothing.
pub(crate) fn selects_everything(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

/// A typed value as JSON, for messages.
pub(crate) fn shown<T: serde::Serialize>(value: &T) -> Value {
    json!(value)
}
