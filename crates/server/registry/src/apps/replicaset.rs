//! `ReplicaSet`.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use serde_json::Value;
use xebec_schema::{FieldError, Path};

use super::workload;
use crate::builder::{AGE, ColumnRow, Kind, NAME, integer, wide};
use crate::cells::{int_at, name};
use crate::check::{self, Errors};
use crate::{Cells, Context, Resource, Strategy};

const COLUMNS: &[ColumnRow] = &[
    NAME,
    integer("Desired"),
    integer("Current"),
    integer("Ready"),
    AGE,
    wide("Containers"),
    wide("Images"),
    wide("Selector"),
];

const STATUS_COUNTERS: &[&str] =
    &["observedGeneration", "replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas"];

/// The resource.
pub(crate) fn resource() -> Resource {
    Kind::namespaced("apps/v1", "ReplicaSet", "replicasets")
        .short(&["rs"])
        .categories(&["all"])
        .columns(COLUMNS)
        .status()
        .scale()
        .strategy(ReplicaSetStrategy)
        .build()
}

/// What differs for replica sets.
struct ReplicaSetStrategy;

impl Strategy for ReplicaSetStrategy {
    fn prepare_create(&self, _cx: &Context<'_>, object: &mut Value) {
        workload::clear_status(object);
        object["status"]["replicas"] = 0.into();
    }

    fn validate_create(&self, _cx: &Context<'_>, object: &Value) -> Vec<FieldError> {
        let set: ReplicaSet = match check::typed(object) {
            Ok(set) => set,
            Err(errors) => return errors,
        };
        let spec = set.spec.unwrap_or_default();
        let mut errors = Errors::new();
        let path = Path::new("spec");
        for (field, value) in [("replicas", spec.replicas), ("minReadySeconds", spec.min_ready_seconds)] {
            check::non_negative(&path.child(field), value.unwrap_or(0).into(), &mut errors);
        }
        let template = spec.template.unwrap_or_default();
        let json = object.get("spec").unwrap_or(&Value::Null);
        workload::selector_and_template(&spec.selector, &template, json, "ReplicaSet", &mut errors);
        errors
    }

    fn validate_update(&self, cx: &Context<'_>, new: &Value, old: &Value) -> Vec<FieldError> {
        workload::validate_update(self, cx, (new, old), STATUS_COUNTERS)
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn cells(&self, _version: &str, object: &Value, now: Timestamp) -> Cells {
        let mut cells = vec![
            name(object),
            int_at(object, "spec.replicas").into(),
            int_at(object, "status.replicas").into(),
            int_at(object, "status.readyReplicas").into(),
        ];
        cells.extend(workload::last_cells(object, now));
        cells
    }
}
