//! What may change in a pod that exists.

use serde_json::Value;
use xebec_schema::{Path, error};
use xebec_types::object;

use crate::cells::list_at;
use crate::check::{self, Errors};

/// What a client may change besides metadata, in upstream's words.
const ALLOWED: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Checks the change of the spec by a write of the pod itself.
pub(crate) fn spec(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    for list in ["containers", "initContainers"] {
        let at = format!("spec.{list}");
        if list_at(new, &at).len() != list_at(old, &at).len() {
            let why = "pod updates may not add or remove containers";
            errors.push(error::forbidden(&path.child(list), why));
            return;
        }
    }
    deadline(new, old, &path, errors);
    tolerations(new, old, &path, errors);
    gates(new, old, &path, errors);
    let mut same = new.get("spec").cloned().unwrap_or_default();
    let before = old.get("spec").cloned().unwrap_or_default();
    restore(&mut same, &before);
    if same != before {
        let changed = differences(&same, &before);
        errors.push(error::forbidden(&path, format!("{ALLOWED}\n{changed}")));
    }
}

/// Puts back what may change, so that what is left must be equal.
fn restore(new: &mut Value, old: &Value) {
    for list in ["containers", "initContainers"] {
        let images: Vec<Value> =
            list_at(old, list).iter().map(|c| c.get("image").cloned().unwrap_or_default()).collect();
        let containers = new.get_mut(list).and_then(Value::as_array_mut);
        for (container, image) in containers.into_iter().flatten().zip(images) {
            set(container, "image", Some(&image));
        }
    }
    set(new, "activeDeadlineSeconds", old.get("activeDeadlineSeconds"));
    set(new, "tolerations", old.get("tolerations"));
    set(new, "schedulingGates", old.get("schedulingGates"));
    let grace = |spec: &Value| spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64);
    if grace(old).is_some_and(|s| s < 0) && grace(new) == Some(1) {
        set(new, "terminationGracePeriodSeconds", old.get("terminationGracePeriodSeconds"));
    }
    // A gated pod may still narrow where it wants to run (KEP-3838); the scheduler has not looked at it yet.
    if !list_at(old, "schedulingGates").is_empty() {
        set(new, "nodeSelector", old.get("nodeSelector"));
    }
}

fn set(object: &mut Value, key: &str, value: Option<&Value>) {
    let Some(map) = object.as_object_mut() else { return };
    match value.filter(|v| !v.is_null()) {
        Some(value) => drop(map.insert(key.into(), value.clone())),
        None => drop(map.remove(key)),
    }
}

fn differences(new: &Value, old: &Value) -> String {
    let keys = new.as_object().into_iter().chain(old.as_object()).flat_map(serde_json::Map::keys);
    let mut keys: Vec<&String> = keys.filter(|k| new.get(*k) != old.get(*k)).collect();
    keys.sort();
    keys.dedup();
    let show = |v: Option<&Value>| v.map_or_else(|| "<unset>".to_owned(), Value::to_string);
    let lines: Vec<String> =
        keys.iter().map(|k| format!("- {k}: {}\n+ {k}: {}", show(old.get(*k)), show(new.get(*k)))).collect();
    lines.join("\n")
}

/// The deadline may be set or shortened, never lengthened or removed.
fn deadline(new: &Value, old: &Value, path: &Path, errors: &mut Errors) {
    let get = |pod| object::at(pod, "spec.activeDeadlineSeconds").and_then(Value::as_i64);
    let path = path.child("activeDeadlineSeconds");
    match (get(new), get(old)) {
        (Some(new), Some(old)) if new > old => {
            errors.push(error::invalid(&path, new, "must be less than or equal to previous value"));
        }
        (None, Some(_)) => {
            let why = "must not update from a positive integer to nil value";
            errors.push(error::invalid(&path, Value::Null, why));
        }
        _ => {}
    }
}

fn tolerations(new: &Value, old: &Value, path: &Path, errors: &mut Errors) {
    let identity =
        |t: &Value| ["key", "operator", "value", "effect"].map(|field| object::str_at(t, field).to_owned());
    let kept = list_at(new, "spec.tolerations");
    for (i, toleration) in list_at(old, "spec.tolerations").iter().enumerate() {
        if !kept.iter().any(|t| identity(t) == identity(toleration)) {
            let why = "existing toleration can not be modified except its tolerationSeconds";
            errors.push(error::forbidden(&path.child("tolerations").index(i), why));
        }
    }
}

/// Gates only ever open.
fn gates(new: &Value, old: &Value, path: &Path, errors: &mut Errors) {
    let before: Vec<&str> =
        list_at(old, "spec.schedulingGates").iter().map(|g| object::str_at(g, "name")).collect();
    for (i, gate) in list_at(new, "spec.schedulingGates").iter().enumerate() {
        let name = object::str_at(gate, "name");
        if !before.contains(&name) {
            let why = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            errors.push(error::forbidden(&path.child("schedulingGates").index(i).child("name"), why));
        }
    }
}

/// Checks a write of `/status`.
pub(crate) fn status(new: &Value, old: &Value) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("status");
    let before = object::at(old, "status.qosClass");
    if before.is_some() {
        check::immutable(&path.child("qosClass"), object::at(new, "status.qosClass"), before, &mut errors);
    }
    let nominated = object::str_at(new, "status.nominatedNodeName");
    if !nominated.is_empty() {
        let broken = xebec_types::names::dns1123_subdomain(nominated);
        check::rules(&path.child("nominatedNodeName"), nominated, broken, &mut errors);
    }
    for (i, ip) in list_at(new, "status.podIPs").iter().enumerate() {
        let at = path.child("podIPs").index(i);
        super::pod_spec::ip(object::str_at(ip, "ip"), &at, &mut errors);
    }
    errors
}
