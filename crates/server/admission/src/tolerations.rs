//! `DefaultTolerationSeconds`: pods stay five minutes on a node that is not ready or out of reach.

use serde_json::{Value, json};
use xebec_types::{Status, object};

use crate::{Attributes, Operation, Plugin, Warnings};

const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
const SECONDS: i64 = 300;

/// The step.
pub struct DefaultTolerationSeconds;

/// Whether a toleration speaks of the `NoExecute` effect of a taint.
fn covers(toleration: &Value, taint: &str) -> bool {
    let get = |field| object::str_at(toleration, field);
    [taint, ""].contains(&get("key")) && ["NoExecute", ""].contains(&get("effect"))
}

impl Plugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn handles(&self, operation: Operation) -> bool {
        [Operation::Create, Operation::Update].contains(&operation)
    }

    fn admit(&self, request: &Attributes<'_>, object: &mut Value) -> Result<Warnings, Status> {
        if !request.is_core("pods") {
            return Ok(Warnings::new());
        }
        let spec = object::child_mut(object, "spec");
        let mut tolerations = spec.get("tolerations").and_then(Value::as_array).cloned().unwrap_or_default();
        let before = tolerations.len();
        for taint in TAINTS {
            if !tolerations.iter().any(|t| covers(t, taint)) {
                tolerations.push(json!({
                    "key": taint,
                    "operator": "Exists",
                    "effect": "NoExecute",
                    "tolerationSeconds": SECONDS,
                }));
            }
        }
        if tolerations.len() > before {
            spec.insert("tolerations".into(), tolerations.into());
        }
        Ok(Warnings::new())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::fake::{Objects, request};

    fn admitted(tolerations: Value) -> Value {
        let mut pod = json!({"spec": {"tolerations": tolerations}});
        request(&Objects::default(), Operation::Create, "pods", "a", "p", |r| {
            DefaultTolerationSeconds.admit(r, &mut pod)
        })
        .unwrap();
        pod["spec"]["tolerations"].take()
    }

    #[test]
    fn what_the_pod_says_itself_stays() {
        let added = admitted(json!([]));
        assert_eq!(added[0]["key"], "node.kubernetes.io/not-ready");
        assert_eq!(added[1]["tolerationSeconds"], 300);
        let all = json!([{"operator": "Exists"}]);
        assert_eq!(admitted(all.clone()), all);
        let own =
            json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoExecute", "tolerationSeconds": 5}]);
        assert_eq!(admitted(own).as_array().unwrap().len(), 2);
    }
}
