//! `Priority`: the priority of a pod from its class. Only the two classes that every cluster has exist so far.

use serde_json::Value;
use xebec_types::{Status, object};

use crate::{Attributes, Operation, Plugin, Warnings};

/// Upstream's built-in classes and their values.
const CLASSES: [(&str, i64); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

/// What pods without a class get.
const DEFAULT_PRIORITY: i64 = 0;
const DEFAULT_PREEMPTION: &str = "PreemptLowerPriority";

/// The step.
pub struct Priority;

impl Priority {
    fn create(request: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
        let class = object::str_at(pod, "spec.priorityClassName");
        let value = match class {
            "" => DEFAULT_PRIORITY,
            class => match CLASSES.iter().find(|(name, _)| *name == class) {
                Some((_, value)) => *value,
                None => {
                    let why = format!("no PriorityClass with name {class} was found");
                    return Err(request.forbidden(&why));
                }
            },
        };
        let given = object::at(pod, "spec.priority").and_then(Value::as_i64);
        if let Some(given) = given.filter(|g| *g != value) {
            let why = format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission \
                 controller computed {value} from the given PriorityClass name"
            );
            return Err(request.forbidden(&why));
        }
        let policy = object::str_at(pod, "spec.preemptionPolicy");
        if !policy.is_empty() && policy != DEFAULT_PREEMPTION {
            let why = format!(
                "the string value of PreemptionPolicy ({policy}) must not be provided in pod spec; priority admission \
                 controller computed {DEFAULT_PREEMPTION} from the given PriorityClass name"
            );
            return Err(request.forbidden(&why));
        }
        let spec = object::child_mut(pod, "spec");
        spec.insert("priority".into(), value.into());
        spec.insert("preemptionPolicy".into(), DEFAULT_PREEMPTION.into());
        Ok(())
    }

    /// Whoever sends the original manifest again does not mean to take the computed values away.
    fn keep(old: &Value, pod: &mut Value) {
        let spec = object::child_mut(pod, "spec");
        for field in ["priority", "preemptionPolicy"] {
            if let Some(value) = object::at(old, &format!("spec.{field}"))
                && !spec.contains_key(field)
            {
                spec.insert(field.into(), value.clone());
            }
        }
    }
}

impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn handles(&self, operation: Operation) -> bool {
        [Operation::Create, Operation::Update].contains(&operation)
    }

    fn admit(&self, request: &Attributes<'_>, object: &mut Value) -> Result<Warnings, Status> {
        if request.is_core("pods") {
            match (request.operation, request.old) {
                (Operation::Create, _) => Self::create(request, object)?,
                (_, Some(old)) => Self::keep(old, object),
                _ => {}
            }
        }
        Ok(Warnings::new())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fake::{Objects, request, updating};

    fn create(spec: Value) -> Result<Value, String> {
        let mut pod = json!({"spec": spec});
        request(&Objects::default(), Operation::Create, "pods", "a", "p", |r| Priority.admit(r, &mut pod))
            .map_err(|s| s.message)?;
        Ok(pod["spec"].take())
    }

    #[test]
    fn classes_have_values() {
        let spec = create(json!({})).unwrap();
        assert_eq!(spec, json!({"priority": 0, "preemptionPolicy": "PreemptLowerPriority"}));
        let spec = create(json!({"priorityClassName": "system-node-critical"})).unwrap();
        assert_eq!(spec["priority"], 2_000_001_000);
        let text = "pods \"p\" is forbidden: no PriorityClass with name high was found";
        assert_eq!(create(json!({"priorityClassName": "high"})).unwrap_err(), text);
        assert!(create(json!({"priority": 5})).unwrap_err().contains("(5) must not be provided in pod spec"));
    }

    #[test]
    fn an_update_keeps_what_was_computed() {
        let old = json!({"spec": {"priority": 0}});
        let mut new = json!({"spec": {}});
        updating(&Objects::default(), Operation::Update, "pods", "a", "p", Some(&old), |r| {
            Priority.admit(r, &mut new)
        })
        .unwrap();
        assert_eq!(new, old);
    }
}
