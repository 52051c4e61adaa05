//! Subresources that are neither status nor scale, by name: the one table of what the server itself knows.

use http::Method;
use serde_json::{Value, json};
use xebec_registry::SubresourceName;
use xebec_types::{Status, StatusDetails, object, time};

use crate::api::{Api, Call};
use crate::catalog::Target;
use crate::engine;
use crate::reply::{self, Reply};
use crate::verbs::DeleteOptions;
use crate::write::Change;

impl Api {
    /// Answers a subresource by its name.
    pub(crate) async fn special(
        &self,
        call: &Call,
        method: &Method,
        target: &Target,
        name: &'static str,
    ) -> Reply {
        match (name, call.info.verb) {
            ("binding", "create") => self.bind(call, target).await,
            ("eviction", "create") => self.evict(call, target).await,
            ("token", "create") => self.token(call, target).await,
            ("finalize" | "ephemeralcontainers" | "resize" | "approval", "get" | "update" | "patch") => {
                self.part(call, target, SubresourceName::Other(name)).await
            }
            ("log" | "exec" | "attach" | "portforward" | "proxy", _) => {
                self.to_kubelet(call, method, target, name).await
            }
            _ => Err(Status::method_not_allowed()),
        }
    }

    /// `pods/binding`: the scheduler's decision, made once.
    async fn bind(&self, call: &Call, target: &Target) -> Reply {
        let dry_run = call.dry_run(&Value::Null)?;
        let binding = engine::read_json(call)?;
        let node = object::str_at(&binding, "target.name").to_owned();
        let kind = object::str_at(&binding, "target.kind");
        if node.is_empty() || !matches!(kind, "" | "Node") {
            return Err(Status::bad_request("binding: target must be a Node with a name"));
        }
        let info = &call.info;
        let uid = object::uid(&binding).to_owned();
        let annotations = object::at(&binding, "metadata.annotations").cloned();
        let change = Change {
            target,
            namespace: &info.namespace,
            name: &info.name,
            subresource: SubresourceName::Other("binding"),
            dry_run,
        };
        let now = time::rfc3339(call.now);
        self.change_object(call, &change, |pod| {
            check_bindable(target, &info.name, pod, &uid)?;
            let mut pod = pod.clone();
            object::child_mut(&mut pod, "spec").insert("nodeName".into(), node.as_str().into());
            if let Some(Value::Object(more)) = &annotations {
                let metadata = object::metadata_mut(&mut pod);
                let known = metadata.entry("annotations").or_insert_with(|| json!({}));
                if let Some(known) = known.as_object_mut() {
                    known.extend(more.clone());
                }
            }
            set_condition(&mut pod, "PodScheduled", "True", &now);
            Ok((pod, Vec::new()))
        })
        .await?;
        created_status()
    }

    /// `pods/eviction`: a delete that may be refused.
    async fn evict(&self, call: &Call, target: &Target) -> Reply {
        let body = engine::read_json(call)?;
        let mut options: DeleteOptions =
            serde_json::from_value(body["deleteOptions"].clone()).unwrap_or_default();
        if call.dry_run(&body["deleteOptions"])? {
            options.dry_run = vec!["All".into()];
        }
        let entry = self.find(target, &call.info.namespace, &call.info.name).await?;
        self.delete_entry(call, target, entry, &options).await?;
        created_status()
    }
}

fn check_bindable(target: &Target, name: &str, pod: &Value, uid: &str) -> Result<(), Status> {
    let conflict = |why: &str| Err(Status::conflict(&target.group_resource(), name, why));
    let bound = object::str_at(pod, "spec.nodeName");
    let gated =
        object::at(pod, "spec.schedulingGates").and_then(Value::as_array).is_some_and(|g| !g.is_empty());
    if !uid.is_empty() && uid != object::uid(pod) {
        Err(Status::other_uid(&target.group_resource(), name, uid, object::uid(pod)))
    } else if object::deletion_timestamp(pod).is_some() {
        conflict(&format!("pod {name} is being deleted, cannot be assigned to a host"))
    } else if !bound.is_empty() {
        conflict(&format!("pod {name} is already assigned to node {bound:?}"))
    } else if gated {
        conflict(&format!("pod {name} has non-empty .spec.schedulingGates"))
    } else {
        Ok(())
    }
}

fn set_condition(pod: &mut Value, kind: &str, status: &str, now: &str) {
    let conditions = object::child_mut(pod, "status").entry("conditions").or_insert_with(|| json!([]));
    let Some(list) = conditions.as_array_mut() else { return };
    list.retain(|condition| condition["type"] != kind);
    list.push(json!({ "type": kind, "status": status, "lastTransitionTime": now }));
}

fn created_status() -> Reply {
    let mut status = Status::success(StatusDetails::default());
    status.code = 201;
    let mut json = status.to_json();
    if let Some(json) = json.as_object_mut() {
        json.remove("details");
        json.insert("code".into(), 201.into());
    }
    Ok(reply::value(201, &json))
}
