//! `Scale`: the body of every `/scale`, made from the object and written back into it.

use serde_json::{Value, json};
use xebec_schema::{FieldError, Path};
use xebec_types::object;

use crate::Scale;
use crate::check::{self, Errors};

/// The `autoscaling/v1` Scale of an object.
pub fn from_object(object: &Value, scale: &Scale) -> Value {
    let at = |path: &str| object::at(object, path.trim_start_matches('.'));
    let metadata = object::metadata(object);
    let mut meta = json!({});
    for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = metadata.and_then(|m| m.get(key)) {
            meta[key] = value.clone();
        }
    }
    let replicas = |path: &str| at(path).and_then(Value::as_i64).unwrap_or(0);
    let mut result = json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": meta,
        "spec": {"replicas": replicas(&scale.spec_replicas)},
        "status": {"replicas": replicas(&scale.status_replicas)},
    });
    let selector = match scale.label_selector.as_deref().and_then(at) {
        Some(Value::String(text)) => text.clone(),
        None => String::new(),
        structured => match crate::cells::selector(structured).as_str() {
            "<none>" => String::new(),
            text => text.to_owned(),
        },
    };
    if !selector.is_empty() {
        result["status"]["selector"] = selector.into();
    }
    result
}

/// Writes the wanted replicas of a Scale into the object. The resourceVersion is the caller's to compare.
pub fn into_object(scaled: &Value, scale: &Scale, object: &mut Value) {
    let replicas = object::at(scaled, "spec.replicas").cloned().unwrap_or_else(|| 0.into());
    let mut target = object;
    let mut segments = scale.spec_replicas.trim_start_matches('.').split('.').peekable();
    while let Some(segment) = segments.next() {
        if segments.peek().is_none() {
            if let Some(map) = target.as_object_mut() {
                map.insert(segment.into(), replicas);
            }
            return;
        }
        let Some(map) = target.as_object_mut() else { return };
        target = map.entry(segment).or_insert_with(|| json!({}));
    }
}

/// Everything wrong with a Scale that a client sent.
pub fn validate(scaled: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let replicas = object::at(scaled, "spec.replicas").and_then(Value::as_i64).unwrap_or(0);
    check::non_negative(&Path::new("spec").child("replicas"), replicas, &mut errors);
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_shows_and_changes_the_replicas() {
        let scale = Scale {
            spec_replicas: ".spec.replicas".into(),
            status_replicas: ".status.replicas".into(),
            label_selector: Some(".spec.selector".into()),
        };
        let mut object = json!({
            "metadata": {"name": "a", "namespace": "b", "labels": {"x": "y"}},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "a"}}},
        });
        let mut shown = from_object(&object, &scale);
        assert_eq!(shown["spec"]["replicas"], 3);
        assert_eq!(shown["status"], json!({"replicas": 0, "selector": "app=a"}));
        assert_eq!(shown["metadata"], json!({"name": "a", "namespace": "b"}));
        shown["spec"]["replicas"] = 5.into();
        into_object(&shown, &scale, &mut object);
        assert_eq!(object["spec"]["replicas"], 5);
        assert_eq!(validate(&json!({"spec": {"replicas": -1}})).len(), 1);
    }
}
