//! `Namespace`.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use xebec_schema::{FieldError, Path};
use xebec_types::{names, object};

use crate::builder::{AGE, ColumnRow, Kind, NAME, text};
use crate::cells::{age, list_at, name};
use crate::check::{self, Errors};
use crate::defaults::{Row, text as field_text};
use crate::{Cells, Context, Resource, Strategy, SubresourceName, Verb};

const COLUMNS: &[ColumnRow] = &[NAME, text("Status"), AGE];

/// The label by which selectors find a namespace by name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The finalizer that the namespace controller takes away once the namespace is empty.
const FINALIZER: &str = "kubernetes";

/// The rows for [`crate::defaults::table`].
pub(crate) const DEFAULTS: &[Row] = &[("core.v1.Namespace", namespace)];

/// The resource.
pub(crate) fn resource() -> Resource {
    use Verb::{Create, Delete, Get, List, Patch, Update, Watch};
    Kind::cluster("v1", "Namespace", "namespaces")
        .short(&["ns"])
        .verbs(&[Create, Delete, Get, List, Patch, Update, Watch])
        .columns(COLUMNS)
        .status()
        .extra("finalize", "Namespace", &[Update])
        .strategy(NamespaceStrategy)
        .build()
}

fn namespace(namespace: &mut Map<String, Value>) {
    let Some(metadata) = namespace.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    let name = field_text(metadata, "name").to_owned();
    if name.is_empty() {
        return;
    }
    let labels = metadata.entry("labels").or_insert_with(|| json!({}));
    if let Some(labels) = labels.as_object_mut() {
        labels.insert(NAME_LABEL.into(), name.into());
    }
}

/// What differs for namespaces.
struct NamespaceStrategy;

impl Strategy for NamespaceStrategy {
    fn validate_name(&self, name: &str) -> Vec<String> {
        names::dns1123_label(name)
    }

    fn prepare_create(&self, _cx: &Context<'_>, object: &mut Value) {
        object["status"] = json!({"phase": "Active"});
        let spec = object::child_mut(object, "spec");
        let finalizers = spec.entry("finalizers").or_insert_with(|| json!([]));
        if let Some(list) = finalizers.as_array_mut()
            && !list.iter().any(|f| f == FINALIZER)
        {
            list.push(FINALIZER.into());
        }
    }

    /// Only `finalize` takes finalizers of the spec away; only it and `status` see the end coming.
    fn prepare_update(&self, cx: &Context<'_>, new: &mut Value, old: &Value) {
        let keep = |new: &mut Value, key: &str| match old.get(key) {
            Some(value) => new[key] = value.clone(),
            None => drop(new.as_object_mut().and_then(|o| o.remove(key))),
        };
        match cx.subresource {
            SubresourceName::Other("finalize") => keep(new, "status"),
            _ => keep(new, "spec"),
        }
    }

    fn validate_create(&self, _cx: &Context<'_>, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::new("spec").child("finalizers");
        for finalizer in list_at(object, "spec.finalizers").iter().filter_map(Value::as_str) {
            check::rules(&path, finalizer, names::qualified_name(finalizer), &mut errors);
            if !finalizer.contains('/') && finalizer != FINALIZER {
                let why = format!(
                    "name is neither a standard finalizer name nor is it fully qualified: {finalizer}"
                );
                errors.push(xebec_schema::error::invalid(&path, finalizer, why));
            }
        }
        errors
    }

    fn validate_update(&self, cx: &Context<'_>, new: &Value, _old: &Value) -> Vec<FieldError> {
        let mut errors = self.validate_create(cx, new);
        let phase = object::str_at(new, "status.phase");
        if cx.subresource == SubresourceName::Status {
            let path = Path::new("status").child("phase");
            let right = if object::deletion_timestamp(new).is_some() { "Terminating" } else { "Active" };
            if phase != right {
                let why = match right {
                    "Active" => "may only be 'Active' if `deletionTimestamp` is empty",
                    _ => "may only be 'Terminating' if `deletionTimestamp` is not empty",
                };
                errors.push(xebec_schema::error::invalid(&path, phase, why));
            }
        }
        errors
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["status.phase"]
    }

    fn cells(&self, _version: &str, object: &Value, now: Timestamp) -> Cells {
        vec![name(object), object::str_at(object, "status.phase").into(), age(object, now)]
    }
}
