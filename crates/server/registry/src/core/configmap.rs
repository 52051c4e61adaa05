//! `ConfigMap`.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Map, Value};
use xebec_schema::{FieldError, Path, error};
use xebec_types::names;

use crate::builder::{AGE, ColumnRow, Kind, NAME, integer};
use crate::cells::{age, map_len, name};
use crate::check::{self, Errors};
use crate::{Cells, Context, Resource, Strategy};

const COLUMNS: &[ColumnRow] = &[NAME, integer("Data"), AGE];

/// Most bytes of all values together, for ConfigMaps and Secrets.
pub(crate) const MAX_SIZE: usize = 1024 * 1024;

/// The resource.
pub(crate) fn resource() -> Resource {
    Kind::namespaced("v1", "ConfigMap", "configmaps")
        .short(&["cm"])
        .columns(COLUMNS)
        .strategy(ConfigMapStrategy)
        .build()
}

/// Refuses changes of the fields of something that calls itself immutable.
pub(crate) fn immutable(new: &Value, old: &Value, fields: &[&'static str], errors: &mut Errors) {
    if old.get("immutable") != Some(&Value::Bool(true)) {
        return;
    }
    let why = "field is immutable when `immutable` is set";
    if new.get("immutable") != Some(&Value::Bool(true)) {
        errors.push(error::forbidden(&Path::new("immutable"), why));
    }
    for field in fields {
        let get = |o: &Value| o.get(*field).filter(|v| v.as_object().is_none_or(|m| !m.is_empty())).cloned();
        if get(new) != get(old) {
            errors.push(error::forbidden(&Path::new(*field), why));
        }
    }
}

fn map<'a>(object: &'a Value, key: &str) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
    object.get(key).and_then(Value::as_object).into_iter().flat_map(Map::iter)
}

/// Bytes that base64 text stands for.
pub(crate) fn decoded_len(text: &str) -> usize {
    text.trim_end_matches('=').len() * 3 / 4
}

/// What differs for config maps.
struct ConfigMapStrategy;

impl Strategy for ConfigMapStrategy {
    fn validate_create(&self, _cx: &Context<'_>, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let (mut keys, mut size) = (BTreeSet::new(), 0);
        for (key, value) in map(object, "data") {
            let path = Path::new("data").key(key.clone());
            check::rules(&path, key, names::config_map_key(key), &mut errors);
            keys.insert(key);
            size += value.as_str().map_or(0, str::len);
        }
        for (key, value) in map(object, "binaryData") {
            let path = Path::new("binaryData").key(key.clone());
            check::rules(&path, key, names::config_map_key(key), &mut errors);
            if keys.contains(key) {
                errors.push(error::invalid(&path, key.as_str(), "duplicate of key present in data"));
            }
            size += value.as_str().map_or(0, decoded_len);
        }
        if size > MAX_SIZE {
            errors.push(error::too_long(&Path::root(), MAX_SIZE));
        }
        errors
    }

    fn validate_update(&self, cx: &Context<'_>, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        immutable(new, old, &["data", "binaryData"], &mut errors);
        errors.extend(self.validate_create(cx, new));
        errors
    }

    fn cells(&self, _version: &str, object: &Value, now: Timestamp) -> Cells {
        let count = map_len(object, "data") + map_len(object, "binaryData");
        vec![name(object), count.into(), age(object, now)]
    }
}
