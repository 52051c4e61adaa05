//! `CustomResourceDefinition`.

use jiff::Timestamp;
use serde_json::Value;
use xebec_schema::{FieldError, Path, error};
use xebec_types::object;

use super::{names, validate};
use crate::builder::{ColumnRow, Kind, NAME};
use crate::cells::{list_at, name};
use crate::check::Errors;
use crate::resource::ColumnType;
use crate::{Cells, Context, Resource, Strategy, SubresourceName};

const COLUMNS: &[ColumnRow] = &[NAME, ("Created At", ColumnType::Date, 0)];

/// The resource.
pub(crate) fn resource() -> Resource {
    Kind::cluster("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions")
        .short(&["crd", "crds"])
        .categories(&["api-extensions"])
        .columns(COLUMNS)
        .status()
        .strategy(CrdStrategy)
        .build()
}

/// What differs for definitions.
struct CrdStrategy;

impl Strategy for CrdStrategy {
    fn key_prefix(&self) -> Option<&'static str> {
        Some("apiextensions.k8s.io/customresourcedefinitions")
    }

    fn prepare_create(&self, cx: &Context<'_>, object: &mut Value) {
        if let Some(map) = object.as_object_mut() {
            map.remove("status");
        }
        names::decide(cx, object);
    }

    fn prepare_update(&self, cx: &Context<'_>, new: &mut Value, _old: &Value) {
        if cx.subresource == SubresourceName::Main {
            names::decide(cx, new);
        }
    }

    fn validate_create(&self, _cx: &Context<'_>, object: &Value) -> Vec<FieldError> {
        validate::definition(object)
    }

    fn validate_update(&self, cx: &Context<'_>, new: &Value, old: &Value) -> Vec<FieldError> {
        if cx.subresource == SubresourceName::Status {
            return validate::stored_versions(new);
        }
        let mut errors = Errors::new();
        for field in ["group", "scope"] {
            let get = |o: &Value| object::at(o, &format!("spec.{field}")).cloned();
            let path = Path::new("spec").child(field);
            crate::check::immutable(&path, get(new).as_ref(), get(old).as_ref(), &mut errors);
        }
        for field in ["plural", "kind"] {
            let get = |o: &Value| object::at(o, &format!("spec.names.{field}")).cloned();
            let path = Path::new("spec").child("names").child(field);
            crate::check::immutable(&path, get(new).as_ref(), get(old).as_ref(), &mut errors);
        }
        for (i, stored) in list_at(new, "status.storedVersions").iter().enumerate() {
            if !list_at(new, "spec.versions").iter().any(|v| v.get("name") == Some(stored)) {
                let path = Path::new("status").child("storedVersions").index(i);
                errors.push(error::invalid(&path, stored.clone(), "missing from spec.versions"));
            }
        }
        errors.extend(validate::definition(new));
        errors
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn standard_finalizers_only(&self) -> bool {
        false
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn cells(&self, _version: &str, object: &Value, _now: Timestamp) -> Cells {
        vec![name(object), object::meta_str(object, "creationTimestamp").into()]
    }
}
