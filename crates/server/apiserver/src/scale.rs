//! `scale`: the wanted and actual replicas of any resource that says where it keeps them.

use serde_json::{Map, Value, json};
use xebec_registry::{Scale, SubresourceName};
use xebec_types::{GroupKind, Status, object};

use crate::api::{Api, Call};
use crate::catalog::Target;
use crate::reply::{self, Reply};
use crate::verbs::Patch;
use crate::write::Change;
use crate::{engine, negotiate};

impl Api {
    /// Answers `scale`.
    ///
    /// # Errors
    /// What reads and writes of the object refuse.
    pub async fn scale(&self, call: &Call, target: &Target) -> Reply {
        let Some(paths) = &target.version().subresources.scale else {
            return Err(Status::no_such_resource());
        };
        let info = &call.info;
        negotiate::wanted(&call.headers, false)?;
        if info.verb == "get" {
            let entry = self.find(target, &info.namespace, &info.name).await?;
            return Ok(reply::value(200, &of(&entry.decode(), paths)));
        }
        let input = match info.verb {
            "update" => Input::Whole(engine::read_json(call)?),
            "patch" => Input::Patch(Patch::read(call, target)?),
            _ => return Err(Status::method_not_allowed()),
        };
        let change = Change {
            target,
            namespace: &info.namespace,
            name: &info.name,
            subresource: SubresourceName::Scale,
            dry_run: call.dry_run(&Value::Null)?,
        };
        let written = self
            .change_object(call, &change, |old| {
                let wanted = match &input {
                    Input::Whole(scale) => scale.clone(),
                    Input::Patch(patch) => patch.apply(target, &of(old, paths))?,
                };
                apply(target, old, &wanted, paths).map(|new| (new, Vec::new()))
            })
            .await?;
        let object: Value = serde_json::from_slice(&written.encoded.bytes).map_err(Status::internal)?;
        Ok(reply::value(200, &of(&object, paths)))
    }
}

enum Input {
    Whole(Value),
    Patch(Patch),
}

/// The Scale of an object.
fn of(object: &Value, paths: &Scale) -> Value {
    let mut metadata = Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object::metadata(object).and_then(|m| m.get(field)) {
            metadata.insert(field.into(), value.clone());
        }
    }
    let number =
        |path: &str| object::at(object, path.trim_start_matches('.')).and_then(Value::as_i64).unwrap_or(0);
    let mut scale = json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": { "replicas": number(&paths.spec_replicas) },
        "status": { "replicas": number(&paths.status_replicas) },
    });
    let selector =
        paths.label_selector.as_deref().and_then(|path| object::at(object, path.trim_start_matches('.')));
    match selector {
        Some(Value::String(text)) => scale["status"]["selector"] = text.as_str().into(),
        Some(structured) => scale["status"]["selector"] = selector_text(structured).into(),
        None => {}
    }
    scale
}

fn apply(target: &Target, old: &Value, scale: &Value, paths: &Scale) -> Result<Value, Status> {
    let name = object::name(old);
    let version = object::meta_str(scale, "resourceVersion");
    if !matches!(version, "" | "0") && version != object::meta_str(old, "resourceVersion") {
        return Err(Status::stale(&target.group_resource(), name));
    }
    let replicas = scale.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
    if replicas < 0 {
        let path = xebec_schema::Path::new("spec").child("replicas");
        let text = "must be greater than or equal to 0";
        let error = xebec_schema::error::invalid(&path, replicas, text);
        return Err(engine::invalid_kind(&GroupKind::new("autoscaling", "Scale"), name, &[error]));
    }
    let mut new = old.clone();
    let path = paths.spec_replicas.trim_start_matches('.');
    let mut at = &mut new;
    let (parents, field) = path.rsplit_once('.').unwrap_or(("", path));
    for parent in parents.split('.').filter(|parent| !parent.is_empty()) {
        object::child_mut(at, parent);
        at = &mut at[parent];
    }
    at[field] = replicas.into();
    Ok(new)
}

/// A `metav1.LabelSelector` as the text that label queries take.
fn selector_text(selector: &Value) -> String {
    let mut parts = Vec::new();
    // ReplicationControllers have a plain map.
    let labels = selector
        .get("matchLabels")
        .or_else(|| selector.get("matchExpressions").is_none().then_some(selector));
    for (key, value) in labels.and_then(Value::as_object).into_iter().flatten() {
        parts.push(format!("{key}={}", value.as_str().unwrap_or("")));
    }
    for expression in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
        let key = object::str_at(expression, "key");
        let values: Vec<&str> =
            expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        parts.push(match object::str_at(expression, "operator") {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_read_as_text() {
        let selector = json!({"matchLabels": {"a": "b"}, "matchExpressions": [
            {"key": "c", "operator": "In", "values": ["d", "e"]}, {"key": "f", "operator": "DoesNotExist"}]});
        assert_eq!(selector_text(&selector), "a=b,c in (d,e),!f");
        assert_eq!(selector_text(&json!({"a": "b"})), "a=b");
    }
}
