//! `Lease`.

use jiff::Timestamp;
use serde_json::Value;
use xebec_schema::{FieldError, Path, error};
use xebec_types::object;

use crate::builder::{AGE, ColumnRow, Kind, NAME, text};
use crate::cells::{age, name};
use crate::check::{self, Errors};
use crate::{Cells, Context, Resource, Strategy};

const COLUMNS: &[ColumnRow] = &[NAME, text("Holder"), AGE];

/// The resource.
pub(crate) fn resource() -> Resource {
    Kind::namespaced("coordination.k8s.io/v1", "Lease", "leases")
        .columns(COLUMNS)
        .strategy(LeaseStrategy)
        .build()
}

/// What differs for leases.
struct LeaseStrategy;

impl Strategy for LeaseStrategy {
    fn validate_create(&self, _cx: &Context<'_>, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::new("spec");
        let number = |field: &str| object::at(object, &format!("spec.{field}")).and_then(Value::as_i64);
        if let Some(seconds) = number("leaseDurationSeconds").filter(|s| *s <= 0) {
            let path = path.child("leaseDurationSeconds");
            errors.push(error::invalid(&path, seconds, "must be greater than 0"));
        }
        if let Some(transitions) = number("leaseTransitions") {
            check::non_negative(&path.child("leaseTransitions"), transitions, &mut errors);
        }
        errors
    }

    fn validate_update(&self, cx: &Context<'_>, new: &Value, _old: &Value) -> Vec<FieldError> {
        self.validate_create(cx, new)
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn cells(&self, _version: &str, object: &Value, now: Timestamp) -> Cells {
        vec![name(object), object::str_at(object, "spec.holderIdentity").into(), age(object, now)]
    }
}
