//! Node and pod affinity.

use k8s_openapi::api::core::v1::{
    NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm, PodSpec, WeightedPodAffinityTerm,
};
use serde_json::Value;
use xebec_schema::{Path, error};
use xebec_types::names;

use crate::check::{self, Errors};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// Checks `affinity`.
pub(crate) fn validate(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let Some(affinity) = &spec.affinity else { return };
    let path = path.child("affinity");
    if let Some(node) = &affinity.node_affinity {
        let path = path.child("nodeAffinity");
        if let Some(required) = &node.required_during_scheduling_ignored_during_execution {
            let path = path.child(REQUIRED).child("nodeSelectorTerms");
            if required.node_selector_terms.is_empty() {
                errors.push(error::required(&path, "must have at least one node selector term"));
            }
            for (i, term) in required.node_selector_terms.iter().enumerate() {
                node_term(term, &path.index(i), errors);
            }
        }
        let preferred = node.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        for (i, preference) in preferred.enumerate() {
            let path = path.child(PREFERRED).index(i);
            weight(preference.weight, &path, errors);
            node_term(&preference.preference, &path.child("preference"), errors);
        }
    }
    if let Some(pod) = &affinity.pod_affinity {
        let required = pod.required_during_scheduling_ignored_during_execution.as_deref();
        let preferred = pod.preferred_during_scheduling_ignored_during_execution.as_deref();
        pod_terms(required, preferred, &path.child("podAffinity"), errors);
    }
    if let Some(pod) = &affinity.pod_anti_affinity {
        let required = pod.required_during_scheduling_ignored_during_execution.as_deref();
        let preferred = pod.preferred_during_scheduling_ignored_during_execution.as_deref();
        pod_terms(required, preferred, &path.child("podAntiAffinity"), errors);
    }
}

fn weight(weight: i32, path: &Path, errors: &mut Errors) {
    if !(1..=100).contains(&weight) {
        errors.push(error::invalid(&path.child("weight"), weight, "must be in the range 1-100"));
    }
}

fn node_term(term: &NodeSelectorTerm, path: &Path, errors: &mut Errors) {
    for (i, e) in term.match_expressions.iter().flatten().enumerate() {
        let path = path.child("matchExpressions").index(i);
        requirement(e, &path, errors);
        check::rules(&path.child("key"), &e.key, names::qualified_name(&e.key), errors);
    }
    for (i, e) in term.match_fields.iter().flatten().enumerate() {
        let path = path.child("matchFields").index(i);
        let values = e.values.as_deref().unwrap_or_default();
        if !["In", "NotIn"].contains(&e.operator.as_str()) {
            errors.push(error::invalid(
                &path.child("operator"),
                e.operator.as_str(),
                "not a valid selector operator",
            ));
        } else if values.len() != 1 {
            let why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errors.push(error::required(&path.child("values"), why));
        }
        if e.key != "metadata.name" {
            errors.push(error::invalid(&path.child("key"), e.key.as_str(), "not a valid field selector key"));
        }
    }
}

fn requirement(e: &NodeSelectorRequirement, path: &Path, errors: &mut Errors) {
    let values = e.values.as_deref().unwrap_or_default();
    let path_values = path.child("values");
    match e.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => {
            let why = "must be specified when `operator` is 'In' or 'NotIn'";
            errors.push(error::required(&path_values, why));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(error::forbidden(&path_values, why));
        }
        "Gt" | "Lt" if values.len() != 1 => {
            let why = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            errors.push(error::required(&path_values, why));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.push(error::invalid(&path.child("operator"), other, "not a valid selector operator")),
    }
    for (i, value) in values.iter().enumerate() {
        check::rules(&path_values.index(i), value, names::label_value(value), errors);
    }
}

fn pod_terms(
    required: Option<&[PodAffinityTerm]>,
    preferred: Option<&[WeightedPodAffinityTerm]>,
    path: &Path,
    errors: &mut Errors,
) {
    for (i, term) in required.into_iter().flatten().enumerate() {
        pod_term(term, &path.child(REQUIRED).index(i), errors);
    }
    for (i, preference) in preferred.into_iter().flatten().enumerate() {
        let path = path.child(PREFERRED).index(i);
        weight(preference.weight, &path, errors);
        pod_term(&preference.pod_affinity_term, &path.child("podAffinityTerm"), errors);
    }
}

fn pod_term(term: &PodAffinityTerm, path: &Path, errors: &mut Errors) {
    for (name, selector) in
        [("labelSelector", &term.label_selector), ("namespaceSelector", &term.namespace_selector)]
    {
        if let Some(selector) = selector {
            check::label_selector(selector, &path.child(name), errors);
        }
    }
    for namespace in term.namespaces.iter().flatten() {
        check::rules(&path.child("namespace"), namespace, names::dns1123_label(namespace), errors);
    }
    label_keys(&term.match_label_keys, "matchLabelKeys", term.label_selector.is_some(), path, errors);
    label_keys(&term.mismatch_label_keys, "mismatchLabelKeys", term.label_selector.is_some(), path, errors);
    if term.topology_key.is_empty() {
        errors.push(error::required(&path.child("topologyKey"), "can not be empty"));
    } else {
        let key = &term.topology_key;
        check::rules(&path.child("topologyKey"), key, names::qualified_name(key), errors);
    }
}

/// Keys whose values are taken from the pod itself (KEP-3243, KEP-3633).
pub(crate) fn label_keys(
    keys: &Option<Vec<String>>,
    field: &'static str,
    has_selector: bool,
    path: &Path,
    errors: &mut Errors,
) {
    let keys = keys.as_deref().unwrap_or_default();
    let path = path.child(field);
    if !keys.is_empty() && !has_selector {
        errors.push(error::forbidden(&path, "must not be specified when labelSelector is not set"));
    }
    for (i, key) in keys.iter().enumerate() {
        check::rules(&path.index(i), key, names::qualified_name(key), errors);
        if keys[..i].contains(key) {
            errors.push(error::duplicate(&path.index(i), Value::from(key.as_str())));
        }
    }
}
