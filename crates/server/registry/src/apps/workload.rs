//! What Deployments and ReplicaSets have in common.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::{Map, Value, json};
use xebec_schema::{FieldError, Path, error};
use xebec_types::object;

use crate::cells::{age, containers_and_images, selector};
use crate::check::{self, Errors, shown};
use crate::core::pod_spec;
use crate::defaults::{Row, absent, empty_object, text, zero};
use crate::{Cells, Context, Strategy, SubresourceName};

/// The rows for [`crate::defaults::table`].
pub(crate) const DEFAULTS: &[Row] =
    &[("apps.v1.DeploymentSpec", deployment), ("apps.v1.ReplicaSetSpec", replica_set)];

/// Old ReplicaSets kept for a rollback.
const HISTORY: i64 = 10;
/// How long a rollout may stand still before it counts as failed, in seconds.
const DEADLINE_SECONDS: i64 = 600;

fn deployment(spec: &mut Map<String, Value>) {
    absent(spec, "replicas", 1);
    absent(spec, "revisionHistoryLimit", HISTORY);
    absent(spec, "progressDeadlineSeconds", DEADLINE_SECONDS);
    empty_object(spec, "strategy");
    let Some(strategy) = spec.get_mut("strategy").and_then(Value::as_object_mut) else { return };
    zero(strategy, "type", "RollingUpdate");
    if text(strategy, "type") == "RollingUpdate" {
        absent(strategy, "rollingUpdate", json!({}));
        if let Some(rolling) = strategy.get_mut("rollingUpdate").and_then(Value::as_object_mut) {
            absent(rolling, "maxUnavailable", "25%");
            absent(rolling, "maxSurge", "25%");
        }
    }
}

fn replica_set(spec: &mut Map<String, Value>) {
    absent(spec, "replicas", 1);
}

/// Starts an object without the status a client may have sent.
pub(crate) fn clear_status(object: &mut Value) {
    object["status"] = json!({});
}

/// Validates a change: the status by its counters, the specification as a new one whose selector stays.
pub(crate) fn validate_update(
    strategy: &impl Strategy,
    cx: &Context<'_>,
    (new, old): (&Value, &Value),
    status_counters: &[&'static str],
) -> Vec<FieldError> {
    let mut errors = Errors::new();
    if cx.subresource == SubresourceName::Status {
        counters(new.get("status").unwrap_or(&Value::Null), status_counters, &mut errors);
        return errors;
    }
    errors.extend(strategy.validate_create(cx, new));
    selector_unchanged(new, old, &mut errors);
    errors
}

/// The cells that follow those of the numbers: age, containers, images, selector.
pub(crate) fn last_cells(object: &Value, now: Timestamp) -> Cells {
    let (containers, images) = containers_and_images(object::at(object, "spec.template.spec"));
    let selector = selector(object::at(object, "spec.selector"));
    vec![age(object, now), containers.into(), images.into(), selector.into()]
}

/// Selector and template, and that they fit. `kind` is the kind in lower case, for messages.
pub(crate) fn selector_and_template(
    selector: &LabelSelector,
    template: &PodTemplateSpec,
    spec: &Value,
    kind: &str,
    errors: &mut Errors,
) {
    let path = Path::new("spec");
    let before = errors.len();
    check::label_selector(selector, &path.child("selector"), errors);
    let missing = spec.get("selector").is_none();
    if missing {
        errors.push(error::required(&path.child("selector"), ""));
    } else if check::selects_everything(selector) {
        let why = format!("empty selector is invalid for {kind}");
        errors.push(error::invalid(&path.child("selector"), shown(selector), why));
    }
    let template_path = path.child("template");
    let labels = template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
    let matcher = match missing {
        true => Ok(xebec_types::LabelSelector::nothing()),
        false => xebec_types::LabelSelector::from_structured(selector),
    };
    if (missing || errors.len() == before) && matcher.is_ok_and(|matcher| !matcher.matches_map(&labels)) {
        let why = "`selector` does not match template `labels`";
        errors.push(error::invalid(&template_path.child("metadata").child("labels"), shown(&labels), why));
    }
    let json = spec.get("template").unwrap_or(&Value::Null);
    errors.extend(pod_spec::validate_template(template, json, &template_path));
    let pod = template.spec.clone().unwrap_or_default();
    let restart = pod.restart_policy.as_deref().unwrap_or("");
    // An unknown policy has been refused already.
    if ["OnFailure", "Never"].contains(&restart) {
        let path = template_path.child("spec").child("restartPolicy");
        errors.push(error::not_supported(&path, restart, &["Always"]));
    }
    if pod.active_deadline_seconds.is_some() {
        let noun = if kind == "deployment" { "Deployment" } else { "ReplicaSet" };
        let path = template_path.child("spec").child("activeDeadlineSeconds");
        errors.push(error::forbidden(&path, format!("activeDeadlineSeconds in {noun} is not Supported")));
    }
}

/// A selector is decided once.
fn selector_unchanged(new: &Value, old: &Value, errors: &mut Errors) {
    let get = |o: &Value| o.get("spec").and_then(|s| s.get("selector")).cloned();
    let path = Path::new("spec").child("selector");
    check::immutable(&path, get(new).as_ref(), get(old).as_ref(), errors);
}

/// Counters of a status: none negative, and what is a part is not more than the whole.
fn counters(status: &Value, fields: &[&'static str], errors: &mut Errors) {
    let path = Path::new("status");
    let get = |field: &str| crate::cells::int_at(status, field);
    for field in fields {
        check::non_negative(&path.child(*field), get(field), errors);
    }
    for part in ["readyReplicas", "availableReplicas", "fullyLabeledReplicas", "updatedReplicas"] {
        if get(part) > get("replicas") {
            let why = "cannot be greater than status.replicas";
            errors.push(error::invalid(&path.child(part), get(part), why));
        }
    }
    if get("availableReplicas") > get("readyReplicas") {
        let why = "cannot be greater than readyReplicas";
        errors.push(error::invalid(&path.child("availableReplicas"), get("availableReplicas"), why));
    }
}
