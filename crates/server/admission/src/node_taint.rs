//! `TaintNodesByCondition`: a new node takes no pods before it has shown that it is ready. The node controller takes
//! the taint away.

use serde_json::{Value, json};
use xebec_types::{Status, object};

use crate::{Attributes, Operation, Plugin, Warnings};

const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// The step.
pub struct TaintNodesByCondition;

impl Plugin for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    fn admit(&self, request: &Attributes<'_>, object: &mut Value) -> Result<Warnings, Status> {
        if !request.is_core("nodes") {
            return Ok(Warnings::new());
        }
        let taints = object::child_mut(object, "spec").entry("taints").or_insert_with(|| json!([]));
        if let Some(taints) = taints.as_array_mut() {
            let has = |t: &Value| {
                object::str_at(t, "key") == NOT_READY && object::str_at(t, "effect") == "NoSchedule"
            };
            if !taints.iter().any(has) {
                taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
            }
        }
        Ok(Warnings::new())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::fake::{Objects, request};

    #[test]
    fn a_new_node_is_tainted_once() {
        let mut node = json!({"metadata": {"name": "n"}});
        for _ in 0..2 {
            request(&Objects::default(), Operation::Create, "nodes", "", "n", |r| {
                TaintNodesByCondition.admit(r, &mut node)
            })
            .unwrap();
        }
        assert_eq!(node["spec"]["taints"], json!([{"key": NOT_READY, "effect": "NoSchedule"}]));
    }
}
