//! What a pod's spec may say, for Pods and for the templates of workloads.

mod affinity;
mod container;
pub(crate) mod defaults;
mod env;
mod handlers;
pub(crate) mod image;
mod resources;
mod scheduling;
mod security;
mod spec;
pub(crate) mod volume_defaults;
mod volumes;

use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};
use serde_json::Value;
use xebec_schema::Path;
use xebec_types::names;

pub(crate) use spec::ip;

use crate::check::{self, Errors};
use crate::core::unsupported;

/// Everything that is wrong with a pod's spec. `json` is the same spec undecoded.
pub(crate) fn validate(spec: &PodSpec, json: &Value, path: &Path) -> Errors {
    let mut errors = unsupported::validate_pod_spec(json, path);
    let volumes = volumes::validate(spec, json, path, &mut errors);
    container::validate_all(spec, &volumes, path, &mut errors);
    spec::validate(spec, path, &mut errors);
    security::pod(spec, path, &mut errors);
    affinity::validate(spec, path, &mut errors);
    scheduling::validate(spec, path, &mut errors);
    errors
}

/// Everything that is wrong with a template: its labels, annotations and spec.
pub(crate) fn validate_template(template: &PodTemplateSpec, json: &Value, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let meta = template.metadata.clone().unwrap_or_default();
    let metadata = path.child("metadata");
    check::labels(meta.labels.as_ref(), &metadata.child("labels"), &mut errors);
    check::annotations(meta.annotations.as_ref(), &metadata.child("annotations"), &mut errors);
    for (i, finalizer) in meta.finalizers.iter().flatten().enumerate() {
        let path = metadata.child("finalizers").index(i);
        check::rules(&path, finalizer, names::qualified_name(finalizer), &mut errors);
    }
    let spec = template.spec.clone().unwrap_or_default();
    let spec_path = path.child("spec");
    errors.extend(validate(&spec, json.get("spec").unwrap_or(&Value::Null), &spec_path));
    if spec.ephemeral_containers.as_ref().is_some_and(|c| !c.is_empty()) {
        let why = "ephemeral containers not allowed in pod template";
        errors.push(xebec_schema::error::forbidden(&spec_path.child("ephemeralContainers"), why));
    }
    errors
}
