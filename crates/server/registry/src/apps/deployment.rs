//! `Deployment`.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, RollingUpdateDeployment};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;
use xebec_schema::{FieldError, Path, error};

use super::workload;
use crate::builder::{AGE, ColumnRow, Kind, NAME, integer, text, wide};
use crate::cells::{int_at, name};
use crate::check::{self, Errors, shown};
use crate::{Cells, Context, Resource, Strategy};

const COLUMNS: &[ColumnRow] = &[
    NAME,
    text("Ready"),
    integer("Up-to-date"),
    integer("Available"),
    AGE,
    wide("Containers"),
    wide("Images"),
    wide("Selector"),
];

const STATUS_COUNTERS: &[&str] = &[
    "observedGeneration",
    "replicas",
    "updatedReplicas",
    "readyReplicas",
    "availableReplicas",
    "unavailableReplicas",
];

/// The resource.
pub(crate) fn resource() -> Resource {
    Kind::namespaced("apps/v1", "Deployment", "deployments")
        .short(&["deploy"])
        .categories(&["all"])
        .columns(COLUMNS)
        .status()
        .scale()
        .strategy(DeploymentStrategy)
        .build()
}

/// What differs for deployments.
struct DeploymentStrategy;

impl DeploymentStrategy {
    fn spec(spec: &DeploymentSpec, json: &Value, errors: &mut Errors) {
        let path = Path::new("spec");
        let numbers = [
            ("replicas", spec.replicas),
            ("minReadySeconds", spec.min_ready_seconds),
            ("revisionHistoryLimit", spec.revision_history_limit),
        ];
        for (field, value) in numbers {
            check::non_negative(&path.child(field), value.unwrap_or(0).into(), errors);
        }
        workload::selector_and_template(&spec.selector, &spec.template, json, "deployment", errors);
        Self::strategy(spec, &path.child("strategy"), errors);
        if let Some(deadline) = spec.progress_deadline_seconds {
            let path = path.child("progressDeadlineSeconds");
            check::non_negative(&path, deadline.into(), errors);
            if deadline <= spec.min_ready_seconds.unwrap_or(0) {
                errors.push(error::invalid(&path, deadline, "must be greater than minReadySeconds"));
            }
        }
    }

    fn strategy(spec: &DeploymentSpec, path: &Path, errors: &mut Errors) {
        let strategy = spec.strategy.clone().unwrap_or_default();
        let rolling = path.child("rollingUpdate");
        match (strategy.type_.as_deref().unwrap_or(""), &strategy.rolling_update) {
            ("Recreate", Some(_)) => {
                let why = "may not be specified when strategy `type` is 'Recreate'";
                errors.push(error::forbidden(&rolling, why));
            }
            ("RollingUpdate", None) => {
                let why = "this should be defaulted and never be nil";
                errors.push(error::required(&rolling, why));
            }
            ("RollingUpdate", Some(update)) => Self::rolling(update, &rolling, errors),
            ("Recreate", None) => {}
            (other, _) => {
                errors.push(error::not_supported(&path.child("type"), other, &["Recreate", "RollingUpdate"]));
            }
        }
    }

    fn rolling(update: &RollingUpdateDeployment, path: &Path, errors: &mut Errors) {
        for (field, value) in [("maxUnavailable", &update.max_unavailable), ("maxSurge", &update.max_surge)] {
            if let Some(value) = value {
                int_or_percent(value, &path.child(field), errors);
            }
        }
        let zero = |v: &Option<IntOrString>| match v {
            Some(IntOrString::Int(n)) => *n == 0,
            Some(IntOrString::String(text)) => text.trim_end_matches('%').parse() == Ok(0),
            None => true,
        };
        let unavailable = path.child("maxUnavailable");
        if zero(&update.max_unavailable) && zero(&update.max_surge) {
            let why = "may not be 0 when `maxSurge` is 0";
            errors.push(error::invalid(&unavailable, shown(&update.max_unavailable), why));
        }
        if let Some(IntOrString::String(text)) = &update.max_unavailable
            && text.trim_end_matches('%').parse::<i64>().is_ok_and(|n| n > 100)
        {
            errors.push(error::invalid(&unavailable, text.as_str(), "must not be greater than 100%"));
        }
    }
}

/// A number that is not negative, or a percentage.
fn int_or_percent(value: &IntOrString, path: &Path, errors: &mut Errors) {
    match value {
        IntOrString::Int(n) => check::non_negative(path, (*n).into(), errors),
        IntOrString::String(text) => {
            let digits = text.strip_suffix('%').unwrap_or("");
            if digits.is_empty() || !digits.bytes().all(|c| c.is_ascii_digit()) {
                let why = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%' or \
                           '93%', regex used for validation is '[0-9]+%')";
                errors.push(error::invalid(path, text.as_str(), why));
            }
        }
    }
}

impl Strategy for DeploymentStrategy {
    fn prepare_create(&self, _cx: &Context<'_>, object: &mut Value) {
        workload::clear_status(object);
    }

    fn validate_create(&self, _cx: &Context<'_>, object: &Value) -> Vec<FieldError> {
        let deployment: Deployment = match check::typed(object) {
            Ok(deployment) => deployment,
            Err(errors) => return errors,
        };
        let mut errors = Errors::new();
        let json = object.get("spec").unwrap_or(&Value::Null);
        Self::spec(&deployment.spec.unwrap_or_default(), json, &mut errors);
        errors
    }

    fn validate_update(&self, cx: &Context<'_>, new: &Value, old: &Value) -> Vec<FieldError> {
        workload::validate_update(self, cx, (new, old), STATUS_COUNTERS)
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn cells(&self, _version: &str, object: &Value, now: Timestamp) -> Cells {
        let wanted = int_at(object, "spec.replicas");
        let mut cells = vec![
            name(object),
            format!("{}/{wanted}", int_at(object, "status.readyReplicas")).into(),
            int_at(object, "status.updatedReplicas").into(),
            int_at(object, "status.availableReplicas").into(),
        ];
        cells.extend(workload::last_cells(object, now));
        cells
    }
}
