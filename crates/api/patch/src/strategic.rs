//! Strategic merge patch: lists merge by key, with directives for what plain merging cannot say.
//!
//! The format is described in upstream's "Update API Objects in Place Using kubectl patch" and in the design
//! proposal "preserve order in strategic merge patch".

use serde_json::{Map, Value};
use xebec_schema::schema::{Field, Kind, Schema};

use crate::error::PatchError;
use crate::order::{arrange, follows, identity};

pub(crate) const DIRECTIVE: &str = "$patch";
pub(crate) const RETAIN_KEYS: &str = "$retainKeys";
pub(crate) const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList/";
pub(crate) const ELEMENT_ORDER: &str = "$setElementOrder/";

/// Applies a strategic merge patch to `original`, whose merge rules `schema` tells.
///
/// # Errors
/// When a directive is malformed or an item of a merged list lacks its merge key; `original` is then unchanged.
pub fn strategic_merge(original: &mut Value, patch: &Value, schema: &Schema) -> Result<(), PatchError> {
    let Value::Object(patch) = patch else {
        return Err(PatchError::Syntax("a strategic merge patch must be an object".to_owned()));
    };
    let before = match original {
        Value::Object(map) => map.clone(),
        _ => Map::new(),
    };
    *original = Value::Object(merge_map(before, patch, Some(schema))?);
    Ok(())
}

fn merge_map(
    mut original: Map<String, Value>,
    patch: &Map<String, Value>,
    schema: Option<&Schema>,
) -> Result<Map<String, Value>, PatchError> {
    if let Some(directive) = patch.get(DIRECTIVE) {
        match directive.as_str() {
            Some("replace") => {
                return Ok(match settled(&Value::Object(patch.clone())) {
                    Value::Object(map) => map,
                    _ => Map::new(),
                });
            }
            Some("delete") => return Ok(Map::new()),
            Some("merge") => {}
            _ => return Err(PatchError::UnknownDirective(shown(directive))),
        }
    }
    retain_keys(&mut original, patch)?;
    for (name, value) in patch {
        if name == DIRECTIVE || name == RETAIN_KEYS || lists_of(name).is_some() {
            continue;
        }
        let field = schema.and_then(|schema| schema.field(name));
        let below = schema.and_then(|schema| schema.below(name)).map(|node| &**node);
        match (original.get_mut(name), value) {
            (_, Value::Null) => {
                original.remove(name);
            }
            (Some(Value::Object(have)), Value::Object(change)) => {
                let replace = field.is_some_and(|field| field.patch.replace);
                let have = std::mem::take(have);
                let merged =
                    if replace { settled(value) } else { Value::Object(merge_map(have, change, below)?) };
                original.insert(name.clone(), merged);
            }
            (_, Value::Array(_)) if field.is_some_and(|field| field.patch.merge) => {}
            _ => {
                original.insert(name.clone(), settled(value));
            }
        }
    }
    merge_lists(&mut original, patch, schema)?;
    Ok(original)
}

/// The field a list directive of this name is about.
fn lists_of(name: &str) -> Option<&str> {
    name.strip_prefix(DELETE_PRIMITIVES).or_else(|| name.strip_prefix(ELEMENT_ORDER))
}

fn retain_keys(original: &mut Map<String, Value>, patch: &Map<String, Value>) -> Result<(), PatchError> {
    let Some(directive) = patch.get(RETAIN_KEYS) else { return Ok(()) };
    let bad = || PatchError::BadDirective(RETAIN_KEYS.to_owned());
    let keys: Vec<&str> = directive.as_array().ok_or_else(bad)?.iter().filter_map(Value::as_str).collect();
    for (name, value) in patch {
        if !name.starts_with('$') && !value.is_null() && !keys.contains(&name.as_str()) {
            return Err(PatchError::RetainKeys(name.clone()));
        }
    }
    original.retain(|name, _| keys.contains(&name.as_str()));
    Ok(())
}

/// Merges the lists that the patch changes, shortens or orders: first deletions, then changes, then the order.
fn merge_lists(
    original: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    schema: Option<&Schema>,
) -> Result<(), PatchError> {
    let mut names: Vec<&str> = patch.keys().map(|name| lists_of(name).unwrap_or(name)).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let field = schema.and_then(|schema| schema.field(name)).filter(|field| field.patch.merge);
        let changes = patch.get(name).and_then(Value::as_array).filter(|_| field.is_some());
        let deletions = directive_list(patch, DELETE_PRIMITIVES, name)?;
        let wanted = directive_list(patch, ELEMENT_ORDER, name)?;
        if changes.is_none() && deletions.is_none() && wanted.is_none() {
            continue;
        }
        // The patch set the field to null, or to what is no list: there is nothing to merge.
        let had = original.get(name).is_some();
        if (!had && changes.is_none()) || patch.get(name).is_some_and(|value| !value.is_array()) {
            continue;
        }
        let before = match original.get_mut(name).map(Value::take) {
            Some(Value::Array(items)) => items,
            _ => Vec::new(),
        };
        let merge = ListMerge { field, key: field.and_then(|field| field.patch.merge_key.as_deref()) };
        let merged = merge.run(name, before, changes, deletions, wanted)?;
        original.insert(name.to_owned(), Value::Array(merged));
    }
    Ok(())
}

fn directive_list<'p>(
    patch: &'p Map<String, Value>,
    prefix: &str,
    name: &str,
) -> Result<Option<&'p Vec<Value>>, PatchError> {
    let directive = format!("{prefix}{name}");
    match patch.get(&directive) {
        None => Ok(None),
        Some(Value::Array(items)) => Ok(Some(items)),
        Some(_) => Err(PatchError::BadDirective(directive)),
    }
}

struct ListMerge<'s> {
    field: Option<&'s Field>,
    key: Option<&'s str>,
}

impl ListMerge<'_> {
    fn run(
        &self,
        name: &str,
        before: Vec<Value>,
        changes: Option<&Vec<Value>>,
        deletions: Option<&Vec<Value>>,
        wanted: Option<&Vec<Value>>,
    ) -> Result<Vec<Value>, PatchError> {
        let mut merged = before.clone();
        if let Some(deletions) = deletions {
            merged.retain(|item| !deletions.contains(item));
        }
        let none = Vec::new();
        let changes = changes.unwrap_or(&none);
        if changes.iter().any(|item| item.get(DIRECTIVE).is_some_and(|d| d == "replace")) {
            return Ok(changes.iter().filter(|item| item.get(DIRECTIVE).is_none()).map(settled).collect());
        }
        let mut named = Vec::new();
        for change in changes {
            if self.apply(&mut merged, change)? {
                named.push(change.clone());
            }
        }
        let order = wanted.unwrap_or(&named);
        if wanted.is_some() && !follows(&named, order, self.key) {
            return Err(PatchError::OrderMismatch(name.to_owned()));
        }
        Ok(arrange(merged, order, &before, self.key))
    }

    /// Applies the change of one item; says whether the item is still there.
    fn apply(&self, merged: &mut Vec<Value>, change: &Value) -> Result<bool, PatchError> {
        let (Some(key), Value::Object(map)) = (self.key, change) else {
            if !merged.contains(change) {
                merged.push(settled(change));
            }
            return Ok(true);
        };
        let missing =
            || PatchError::MissingMergeKey { item: Value::Object(map.clone()), key: key.to_owned() };
        map.get(key).ok_or_else(missing)?;
        let same = |item: &Value| identity(item, Some(key)) == identity(change, Some(key));
        match map.get(DIRECTIVE).map(|directive| (directive.as_str(), directive)) {
            Some((Some("delete"), _)) => {
                merged.retain(|item| !same(item));
                return Ok(false);
            }
            Some((Some("merge"), _)) | None => {}
            Some((_, directive)) => return Err(PatchError::ListDirective(shown(directive))),
        }
        let items = self.field.and_then(|field| match &field.schema.kind {
            Kind::List(list) => Some(&*list.items),
            _ => None,
        });
        match merged.iter_mut().find(|item| same(item)) {
            Some(item) => {
                let have = match item.take() {
                    Value::Object(have) => have,
                    _ => Map::new(),
                };
                *item = Value::Object(merge_map(have, map, items)?);
            }
            None => merged.push(settled(change)),
        }
        Ok(true)
    }
}

/// What is new takes the patch's value, without directives and without the nulls that delete nothing.
fn settled(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter()
                .filter(|(name, value)| {
                    *name != DIRECTIVE && *name != RETAIN_KEYS && lists_of(name).is_none() && !value.is_null()
                })
                .map(|(name, value)| (name.clone(), settled(value)))
                .collect(),
        ),
        Value::Array(items) => Value::Array(
            items
                .iter()
                .filter(|item| item.get(DIRECTIVE).is_none_or(|directive| directive == "merge"))
                .map(settled)
                .collect(),
        ),
        other => other.clone(),
    }
}

fn shown(directive: &Value) -> String {
    directive.as_str().map_or_else(|| directive.to_string(), str::to_owned)
}
