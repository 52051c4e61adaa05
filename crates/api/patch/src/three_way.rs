//! The patch that `apply` sends: what the user's file changes, and what it no longer says.

use serde_json::{Map, Value, json};
use xebec_schema::schema::{Field, Kind, Schema};

use crate::order::{follows, identity};
use crate::strategic::{DELETE_PRIMITIVES, DIRECTIVE, ELEMENT_ORDER, RETAIN_KEYS};

/// The strategic merge patch that turns `current` into `modified`, deletes what `original` (what was applied
/// last) had and `modified` no longer has, and leaves alone what others added.
#[must_use]
pub fn three_way(original: &Value, modified: &Value, current: &Value, schema: &Schema) -> Value {
    let empty = Map::new();
    let patch = maps(
        original.as_object().unwrap_or(&empty),
        modified.as_object().unwrap_or(&empty),
        current.as_object().unwrap_or(&empty),
        Some(schema),
    );
    Value::Object(patch)
}

/// The strategic merge patch that turns `original` into `modified`.
#[must_use]
pub fn two_way(original: &Value, modified: &Value, schema: &Schema) -> Value {
    three_way(original, modified, original, schema)
}

/// The merge patch (RFC 7386) with the meaning of [`three_way`], for kinds without merge rules.
#[must_use]
pub fn three_way_json(original: &Value, modified: &Value, current: &Value) -> Value {
    let empty = Map::new();
    let patch = maps(
        original.as_object().unwrap_or(&empty),
        modified.as_object().unwrap_or(&empty),
        current.as_object().unwrap_or(&empty),
        None,
    );
    Value::Object(patch)
}

fn maps(
    original: &Map<String, Value>,
    modified: &Map<String, Value>,
    current: &Map<String, Value>,
    schema: Option<&Schema>,
) -> Map<String, Value> {
    let empty = Map::new();
    let mut patch = Map::new();
    for (name, want) in modified {
        let field = schema.and_then(|schema| schema.field(name));
        let Some(have) = current.get(name) else {
            if !want.is_null() {
                patch.insert(name.clone(), want.clone());
            }
            continue;
        };
        match (want, have) {
            (Value::Object(want), Value::Object(have)) if !field.is_some_and(|field| field.patch.replace) => {
                let before = original.get(name).and_then(Value::as_object).unwrap_or(&empty);
                let below = schema.and_then(|schema| schema.below(name)).map(|node| &**node);
                let mut inner = maps(before, want, have, below);
                if !inner.is_empty() {
                    retain(&mut inner, want, field);
                    patch.insert(name.clone(), Value::Object(inner));
                }
            }
            (Value::Object(want), Value::Object(have)) if want != have => {
                let mut whole = want.clone();
                whole.insert(DIRECTIVE.to_owned(), json!("replace"));
                patch.insert(name.clone(), Value::Object(whole));
            }
            (Value::Array(want), Value::Array(have)) if field.is_some_and(|field| field.patch.merge) => {
                let before = original.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
                if let Some(field) = field {
                    lists(&mut patch, field, before, want, have);
                }
            }
            _ if want != have => {
                patch.insert(name.clone(), want.clone());
            }
            _ => {}
        }
    }
    for name in original.keys() {
        if !modified.contains_key(name) && current.contains_key(name) {
            patch.insert(name.clone(), Value::Null);
        }
    }
    patch
}

/// A union is replaced as a whole: keys that `want` lacks go.
fn retain(patch: &mut Map<String, Value>, want: &Map<String, Value>, field: Option<&Field>) {
    if field.is_some_and(|field| field.patch.retain_keys) {
        let keys = want.iter().filter(|(_, value)| !value.is_null()).map(|(key, _)| json!(key)).collect();
        patch.insert(RETAIN_KEYS.to_owned(), Value::Array(keys));
    }
}

fn lists(
    patch: &mut Map<String, Value>,
    field: &Field,
    original: &[Value],
    modified: &[Value],
    current: &[Value],
) {
    let key = field.patch.merge_key.as_deref();
    let find = |list: &[Value], item: &Value| {
        list.iter().find(|have| identity(have, key) == identity(item, key)).cloned()
    };
    let gone: Vec<&Value> = original
        .iter()
        .filter(|item| find(modified, item).is_none() && find(current, item).is_some())
        .collect();
    let mut changes = Vec::new();
    let items = match &field.schema.kind {
        Kind::List(list) => Some(&*list.items),
        _ => None,
    };
    for want in modified {
        let have = find(current, want);
        match (key, want.as_object(), have.as_ref().map(Value::as_object)) {
            (_, _, None) => changes.push(want.clone()),
            (Some(key), Some(want_map), Some(Some(have))) => {
                let before = find(original, want);
                let empty = Map::new();
                let before = before.as_ref().and_then(Value::as_object).unwrap_or(&empty);
                let mut inner = maps(before, want_map, have, items);
                if !inner.is_empty() {
                    retain(&mut inner, want_map, Some(field));
                    inner.insert(key.to_owned(), identity(want, Some(key)).clone());
                    changes.push(Value::Object(inner));
                }
            }
            _ => {}
        }
    }
    let known: Vec<Value> = modified.iter().filter(|item| find(current, item).is_some()).cloned().collect();
    if changes.is_empty() && gone.is_empty() && follows(&known, current, key) {
        return;
    }
    let order = modified.iter().map(|item| match key {
        Some(key) => json!({ key: identity(item, Some(key)) }),
        None => item.clone(),
    });
    patch.insert(format!("{ELEMENT_ORDER}{}", field.name), order.collect());
    match key {
        Some(key) => {
            let deletions =
                gone.into_iter().map(|item| json!({ DIRECTIVE: "delete", key: identity(item, Some(key)) }));
            changes.extend(deletions);
        }
        None if !gone.is_empty() => {
            patch.insert(format!("{DELETE_PRIMITIVES}{}", field.name), gone.into_iter().cloned().collect());
        }
        None => {}
    }
    if !changes.is_empty() {
        patch.insert(field.name.clone(), Value::Array(changes));
    }
}
