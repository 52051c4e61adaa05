//! The defaults of built-in types: one table from Go type to function, applied wherever the type appears.
//!
//! Types are called as in `core.v1.Container`. Defaults that depend on the whole object (a Pod gets some
//! that a template does not) hang on the type of the object; those that need the server's configuration are the
//! strategies' work.

use serde_json::{Map, Value};
use xebec_schema::TypeDefaults;

pub use xebec_schema::DefaultFn;

use crate::{apiextensions, apps, authentication, core, discovery, rbac};

/// A row of the table: type and function.
pub(crate) type Row = (&'static str, DefaultFn);

/// The defaults of all built-in types, ready for [`xebec_schema::default`].
pub fn type_defaults() -> TypeDefaults {
    TypeDefaults::new(table())
}

/// Every default of the built-in types.
pub(crate) fn table() -> Vec<Row> {
    [
        core::pod_spec::defaults::ROWS,
        core::pod_spec::volume_defaults::ROWS,
        core::pod::DEFAULTS,
        core::service::DEFAULTS,
        core::namespace::DEFAULTS,
        core::node::DEFAULTS,
        core::secret::DEFAULTS,
        core::endpoints::DEFAULTS,
        discovery::endpointslice::DEFAULTS,
        apps::workload::DEFAULTS,
        rbac::DEFAULTS,
        apiextensions::DEFAULTS,
        authentication::tokenrequest::DEFAULTS,
    ]
    .concat()
}

/// Sets a field that Go holds by pointer: only when it is absent.
pub(crate) fn absent(map: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    if map.get(key).is_none_or(Value::is_null) {
        map.insert(key.into(), value.into());
    }
}

/// Sets a field that Go holds by value: also when it is the zero value.
pub(crate) fn zero(map: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    let is_zero = match map.get(key) {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Number(number)) => number.as_f64() == Some(0.0),
        Some(_) => false,
    };
    if is_zero {
        map.insert(key.into(), value.into());
    }
}

/// A struct that Go always writes, even when it is empty.
pub(crate) fn empty_object(map: &mut Map<String, Value>, key: &str) {
    absent(map, key, Value::Object(Map::new()));
}

/// The string under `key`, empty when it is missing.
pub(crate) fn text<'a>(map: &'a Map<String, Value>, key: &str) -> &'a str {
    map.get(key).and_then(Value::as_str).unwrap_or("")
}

/// Whether a field is there and not null.
pub(crate) fn has(map: &Map<String, Value>, key: &str) -> bool {
    map.get(key).is_some_and(|v| !v.is_null())
}

/// The objects in the list under `key`.
pub(crate) fn items_mut<'a>(
    map: &'a mut Map<String, Value>,
    key: &str,
) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    map.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}
