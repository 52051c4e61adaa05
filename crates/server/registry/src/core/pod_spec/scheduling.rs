//! Tolerations, spreading and gates.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{PodSpec, Toleration, TopologySpreadConstraint};
use serde_json::Value;
use xebec_schema::{Path, error};
use xebec_types::names;

use super::affinity::label_keys;
use crate::check::{self, Errors};

/// Checks them.
pub(crate) fn validate(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    tolerations(spec.tolerations.as_deref().unwrap_or_default(), &path.child("tolerations"), errors);
    let mut seen = BTreeSet::new();
    for (i, constraint) in spec.topology_spread_constraints.iter().flatten().enumerate() {
        let path = path.child("topologySpreadConstraints").index(i);
        spread(constraint, &path, errors);
        let pair = format!("{{{}, {}}}", constraint.topology_key, constraint.when_unsatisfiable);
        if !seen.insert(pair.clone()) {
            errors.push(error::duplicate(&path.child("{topologyKey, whenUnsatisfiable}"), pair));
        }
    }
    let mut gates = BTreeSet::new();
    for (i, gate) in spec.scheduling_gates.iter().flatten().enumerate() {
        let path = path.child("schedulingGates").index(i).child("name");
        check::rules(&path, &gate.name, names::qualified_name(&gate.name), errors);
        if !gates.insert(gate.name.as_str()) {
            errors.push(error::duplicate(&path, gate.name.as_str()));
        }
    }
    for (i, gate) in spec.readiness_gates.iter().flatten().enumerate() {
        let path = path.child("readinessGates").index(i).child("conditionType");
        check::rules(&path, &gate.condition_type, names::qualified_name(&gate.condition_type), errors);
    }
}

/// Checks tolerations.
pub(crate) fn tolerations(tolerations: &[Toleration], path: &Path, errors: &mut Errors) {
    for (i, t) in tolerations.iter().enumerate() {
        let path = path.index(i);
        let key = t.key.as_deref().unwrap_or("");
        let operator = t.operator.as_deref().unwrap_or("");
        let value = t.value.as_deref().unwrap_or("");
        let effect = t.effect.as_deref().unwrap_or("");
        if !key.is_empty() {
            check::rules(&path.child("key"), key, names::qualified_name(key), errors);
        } else if operator != "Exists" {
            let why =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(error::invalid(&path.child("operator"), operator, why));
        }
        if t.toleration_seconds.is_some() && effect != "NoExecute" {
            let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(error::invalid(&path.child("effect"), effect, why));
        }
        match operator {
            "Equal" | "" => {
                let broken = names::label_value(value);
                if !broken.is_empty() {
                    errors.push(error::invalid(&path.child("operator"), value, broken.join(";")));
                }
            }
            "Exists" if !value.is_empty() => {
                let why = "value must be empty when `operator` is 'Exists'";
                errors.push(error::invalid(&path.child("operator"), Value::from(value), why));
            }
            "Exists" => {}
            other => errors.push(error::not_supported(&path.child("operator"), other, &["Equal", "Exists"])),
        }
        if !effect.is_empty() {
            let supported = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
            check::one_of(&path.child("effect"), effect, &supported, errors);
        }
    }
}

fn spread(constraint: &TopologySpreadConstraint, path: &Path, errors: &mut Errors) {
    if constraint.max_skew <= 0 {
        errors.push(error::invalid(&path.child("maxSkew"), constraint.max_skew, "must be greater than zero"));
    }
    let key = path.child("topologyKey");
    if constraint.topology_key.is_empty() {
        errors.push(error::required(&key, "can not be empty"));
    } else {
        let value = &constraint.topology_key;
        check::rules(&key, value, names::qualified_name(value), errors);
    }
    let when = constraint.when_unsatisfiable.as_str();
    if !["DoNotSchedule", "ScheduleAnyway"].contains(&when) {
        let supported = ["DoNotSchedule", "ScheduleAnyway"];
        errors.push(error::not_supported(&path.child("whenUnsatisfiable"), when, &supported));
    }
    if let Some(domains) = constraint.min_domains {
        let path = path.child("minDomains");
        if domains <= 0 {
            errors.push(error::invalid(&path, domains, "must be greater than zero"));
        } else if when != "DoNotSchedule" {
            let why = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {when}");
            errors.push(error::invalid(&path, domains, why));
        }
    }
    let policies = [
        ("nodeAffinityPolicy", &constraint.node_affinity_policy),
        ("nodeTaintsPolicy", &constraint.node_taints_policy),
    ];
    for (field, policy) in policies {
        if let Some(policy) = policy.as_deref().filter(|p| !["Honor", "Ignore"].contains(p)) {
            errors.push(error::not_supported(&path.child(field), policy, &["Honor", "Ignore"]));
        }
    }
    if let Some(selector) = &constraint.label_selector {
        check::label_selector(selector, &path.child("labelSelector"), errors);
    }
    let has_selector = constraint.label_selector.is_some();
    label_keys(&constraint.match_label_keys, "matchLabelKeys", has_selector, path, errors);
}
