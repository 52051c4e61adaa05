//! `NamespaceLifecycle`: nothing is created in a namespace that does not exist or is going away, and some namespaces
//! stay.

use serde_json::Value;
use xebec_types::{Cause, GroupResource, Status, object};

use crate::{Attributes, Operation, Plugin, Warnings};

/// Namespaces without which a cluster does not work.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// The step.
pub struct NamespaceLifecycle;

impl NamespaceLifecycle {
    fn check(request: &Attributes<'_>) -> Result<(), Status> {
        let namespaces = GroupResource::new("", "namespaces");
        if *request.resource == namespaces {
            let immortal = request.operation == Operation::Delete && IMMORTAL.contains(&request.name);
            return match immortal {
                true => Err(request.forbidden("this namespace may not be deleted")),
                false => Ok(()),
            };
        }
        // Whatever is in a lost namespace may be cleaned up, and asking about rights never depends on it.
        let question = request.resource.resource == "localsubjectaccessreviews";
        if request.namespace.is_empty() || request.operation == Operation::Delete || question {
            return Ok(());
        }
        let Some(namespace) = request.objects.get(&namespaces, "", request.namespace) else {
            return Err(Status::not_found(&namespaces, request.namespace));
        };
        let phase = object::str_at(&namespace, "status.phase");
        let ending = phase == "Terminating" || object::deletion_timestamp(&namespace).is_some();
        if request.operation != Operation::Create || !ending {
            return Ok(());
        }
        let name = request.namespace;
        let why = format!("unable to create new content in namespace {name} because it is being terminated");
        let mut status = request.forbidden(&why);
        if let Some(details) = status.details.as_mut() {
            details.causes.push(Cause {
                reason: "NamespaceTerminating".into(),
                message: format!("namespace {name} is being terminated"),
                field: "metadata.namespace".into(),
            });
        }
        Err(status)
    }
}

impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation != Operation::Connect
    }

    fn admit(&self, request: &Attributes<'_>, _object: &mut Value) -> Result<Warnings, Status> {
        Self::check(request).map(|()| Warnings::new())
    }

    /// Deletes have no object to change, so they are judged here.
    fn validate(&self, request: &Attributes<'_>, _object: Option<&Value>) -> Result<Warnings, Status> {
        match request.operation {
            Operation::Delete => Self::check(request).map(|()| Warnings::new()),
            _ => Ok(Warnings::new()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fake::{Objects, request};

    fn objects() -> Objects {
        Objects::default()
            .with("namespaces", json!({"metadata": {"name": "a"}, "status": {"phase": "Active"}}))
            .with("namespaces", json!({"metadata": {"name": "z"}, "status": {"phase": "Terminating"}}))
    }

    #[test]
    fn content_needs_a_living_namespace() {
        let objects = objects();
        let create = |namespace: &str| {
            request(&objects, Operation::Create, "pods", namespace, "p", |r| {
                NamespaceLifecycle.admit(r, &mut json!({})).map_err(|s| (s.code, s.message))
            })
        };
        assert!(create("a").is_ok());
        assert_eq!(create("nope").unwrap_err(), (404, "namespaces \"nope\" not found".into()));
        let text = "pods \"p\" is forbidden: unable to create new content in namespace z \
                    because it is being terminated";
        assert_eq!(create("z").unwrap_err(), (403, text.into()));
        let update = request(&objects, Operation::Update, "pods", "z", "p", |r| {
            NamespaceLifecycle.admit(r, &mut json!({}))
        });
        assert!(update.is_ok(), "what is there may still change");
    }

    #[test]
    fn some_namespaces_stay() {
        let objects = objects();
        let delete = |name: &str| {
            request(&objects, Operation::Delete, "namespaces", "", name, |r| {
                NamespaceLifecycle.validate(r, None)
            })
        };
        let text = "namespaces \"kube-system\" is forbidden: this namespace may not be deleted";
        assert_eq!(delete("kube-system").unwrap_err().message, text);
        assert!(delete("a").is_ok());
    }
}
