//! `Pod`.

mod cells;
mod qos;
mod update;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Map, Value, json};
use xebec_schema::{FieldError, Path, error};
use xebec_types::{GroupVersion, names, object};

use super::pod_spec;
use crate::builder::{AGE, ColumnRow, Kind, NAME, text, wide};
use crate::check::{self, Errors};
use crate::defaults::{Row, absent, has, items_mut, zero};
use crate::{Cells, Context, Deletion, Resource, Strategy, SubresourceName, Verb, Warnings};

pub use qos::qos_class;

const COLUMNS: &[ColumnRow] = &[
    NAME,
    text("Ready"),
    text("Status"),
    text("Restarts"),
    AGE,
    wide("IP"),
    wide("Node"),
    wide("Nominated Node"),
    wide("Readiness Gates"),
];

/// What a Pod gets that a template does not.
pub(crate) const DEFAULTS: &[Row] = &[("core.v1.Pod", pod_defaults)];

/// The resource.
pub(crate) fn resource() -> Resource {
    use Verb::{Create, Delete, Get, Patch, Update};
    let v1 = |group: &str| GroupVersion { group: group.into(), version: "v1".into() };
    Kind::namespaced("v1", "Pod", "pods")
        .short(&["po"])
        .categories(&["all"])
        .columns(COLUMNS)
        .status()
        .extra("attach", "PodAttachOptions", &[Create, Get])
        .extra("binding", "Binding", &[Create])
        .extra("ephemeralcontainers", "Pod", &[Get, Patch, Update])
        .extra_of("eviction", v1("policy").kind("Eviction"), &[Create])
        .extra("exec", "PodExecOptions", &[Create, Get])
        .extra("log", "Pod", &[Get])
        .extra("portforward", "PodPortForwardOptions", &[Create, Get])
        .extra("proxy", "PodProxyOptions", &[Create, Delete, Get, Patch, Update])
        .extra("resize", "Pod", &[Get, Patch, Update])
        .strategy(PodStrategy)
        .build()
}

fn pod_defaults(pod: &mut Map<String, Value>) {
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return };
    absent(spec, "enableServiceLinks", true);
    let host_network = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for list in ["containers", "initContainers"] {
        for container in items_mut(spec, list) {
            requests_from_limits(container);
            if host_network {
                for port in items_mut(container, "ports") {
                    if let Some(number) = port.get("containerPort").cloned() {
                        zero(port, "hostPort", number);
                    }
                }
            }
        }
    }
}

fn requests_from_limits(container: &mut Map<String, Value>) {
    let Some(resources) = container.get_mut("resources").and_then(Value::as_object_mut) else { return };
    let Some(limits) = resources.get("limits").and_then(Value::as_object).filter(|l| !l.is_empty()) else {
        return;
    };
    let limits = limits.clone();
    absent(resources, "requests", json!({}));
    if let Some(requests) = resources.get_mut("requests").and_then(Value::as_object_mut) {
        for (name, value) in limits {
            requests.entry(name).or_insert(value);
        }
    }
}

/// What differs for pods.
struct PodStrategy;

impl PodStrategy {
    fn metadata(pod: &Pod, errors: &mut Errors) {
        let path = Path::new("metadata").child("annotations");
        let prefix = "container.apparmor.security.beta.kubernetes.io/";
        for key in pod.metadata.annotations.iter().flatten().map(|(k, _)| k) {
            if key.starts_with(prefix) {
                let why = "is not supported: use securityContext.appArmorProfile";
                errors.push(error::forbidden(&path.key(key.clone()), why));
            }
        }
    }
}

impl Strategy for PodStrategy {
    fn prepare_create(&self, _cx: &Context<'_>, object: &mut Value) {
        let qos = qos_class(object);
        let mut status = json!({"phase": "Pending", "qosClass": qos});
        let gated = !crate::cells::list_at(object, "spec.schedulingGates").is_empty();
        if gated {
            status["conditions"] = json!([{
                "type": "PodScheduled",
                "status": "False",
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
            }]);
        }
        object["status"] = status;
    }

    fn prepare_update(&self, cx: &Context<'_>, new: &mut Value, old: &Value) {
        if cx.subresource == SubresourceName::Status {
            // Upstream's kubelet relies on the class never changing under it.
            let class = object::str_at(old, "status.qosClass").to_owned();
            let status = object::child_mut(new, "status");
            if !has(status, "qosClass") && !class.is_empty() {
                status.insert("qosClass".into(), class.into());
            }
        }
    }

    fn validate_create(&self, _cx: &Context<'_>, object: &Value) -> Vec<FieldError> {
        let pod: Pod = match check::typed(object) {
            Ok(pod) => pod,
            Err(errors) => return errors,
        };
        let mut errors = Errors::new();
        Self::metadata(&pod, &mut errors);
        let spec = pod.spec.unwrap_or_default();
        let json = object.get("spec").unwrap_or(&Value::Null);
        errors.extend(pod_spec::validate(&spec, json, &Path::new("spec")));
        if spec.ephemeral_containers.as_ref().is_some_and(|c| !c.is_empty()) {
            let why = "cannot be set on create";
            errors.push(error::forbidden(&Path::new("spec").child("ephemeralContainers"), why));
        }
        let gated = spec.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty());
        if gated && spec.node_name.as_deref().is_some_and(|n| !n.is_empty()) {
            let why = "cannot be set until all schedulingGates have been cleared";
            errors.push(error::forbidden(&Path::new("spec").child("nodeName"), why));
        }
        errors
    }

    fn validate_update(&self, cx: &Context<'_>, new: &Value, old: &Value) -> Vec<FieldError> {
        match cx.subresource {
            SubresourceName::Main => {
                let mut errors = self.validate_create(cx, new);
                update::spec(new, old, &mut errors);
                errors
            }
            SubresourceName::Status => update::status(new, old),
            SubresourceName::Other("ephemeralcontainers" | "resize") => {
                let mut errors = self.validate_create(cx, new);
                if new.get("spec") != old.get("spec") {
                    let why = "changing a running pod is not supported yet: delete it and create another";
                    errors.push(error::forbidden(&Path::new("spec"), why));
                }
                errors
            }
            _ => Vec::new(),
        }
    }

    fn warnings(&self, object: &Value) -> Warnings {
        let mut warnings = Warnings::new();
        if object::at(object, "spec.terminationGracePeriodSeconds")
            .and_then(Value::as_i64)
            .is_some_and(|s| s < 0)
        {
            warnings.push(
                "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated \
                 as 1"
                    .into(),
            );
        }
        warnings
    }

    fn has_generation(&self) -> bool {
        true
    }

    /// Unscheduled and finished pods go at once: no node would have to let go of them.
    fn deletion(&self, object: &Value, grace: Option<i64>) -> Deletion {
        let phase = object::str_at(object, "status.phase");
        let spec_grace = object::at(object, "spec.terminationGracePeriodSeconds").and_then(Value::as_i64);
        let unscheduled = object::str_at(object, "spec.nodeName").is_empty();
        if unscheduled || ["Succeeded", "Failed"].contains(&phase) {
            return Deletion::Immediate;
        }
        match grace.or(spec_grace).unwrap_or(30) {
            0 => Deletion::Immediate,
            seconds => Deletion::Graceful { seconds: seconds.max(1) },
        }
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ]
    }

    fn field<'a>(&self, object: &'a Value, field: &str) -> &'a str {
        match field {
            "spec.hostNetwork" => match object::at(object, field) {
                Some(Value::Bool(true)) => "true",
                _ => "false",
            },
            "status.podIP" => match object::str_at(object, field) {
                "" => crate::cells::list_at(object, "status.podIPs")
                    .first()
                    .map_or("", |ip| object::str_at(ip, "ip")),
                ip => ip,
            },
            _ => object::str_at(object, field),
        }
    }

    fn cells(&self, _version: &str, object: &Value, now: Timestamp) -> Cells {
        cells::cells(object, now)
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::dns1123_subdomain(name)
    }
}

#[cfg(test)]
mod tests;
