//! The `apiextensions.k8s.io` group, and the resources it brings into being.

pub(crate) mod crd;
pub mod custom;
mod jsonpath;
mod names;
mod validate;

use serde_json::{Map, Value, json};

use crate::defaults::{Row, absent, text, zero};

/// The rows for [`crate::defaults::table`].
pub(crate) const DEFAULTS: &[Row] = &[
    ("apiextensions.v1.CustomResourceDefinitionSpec", spec),
    ("apiextensions.v1.ServiceReference", service),
];

fn spec(spec: &mut Map<String, Value>) {
    if let Some(names) = spec.get_mut("names").and_then(Value::as_object_mut) {
        let kind = text(names, "kind").to_owned();
        if !kind.is_empty() {
            zero(names, "singular", kind.to_lowercase());
            zero(names, "listKind", format!("{kind}List"));
        }
    }
    absent(spec, "conversion", json!({"strategy": "None"}));
}

fn service(reference: &mut Map<String, Value>) {
    absent(reference, "port", 443);
}
