//! JSON patch (RFC 6902) and merge patch (RFC 7386).

use serde_json::{Map, Value};

use crate::error::PatchError;

/// Upstream's limit on the operations of one JSON patch.
pub const MAX_OPERATIONS: usize = 10_000;

/// Applies a JSON patch (RFC 6902); all of it or nothing.
///
/// # Errors
/// When `operations` is no list of operations, has more than [`MAX_OPERATIONS`], or one of them fails.
pub fn json_patch(document: &mut Value, operations: &[u8]) -> Result<(), PatchError> {
    let list: Value = serde_json::from_slice(operations).map_err(|e| PatchError::Syntax(e.to_string()))?;
    let count = list.as_array().map_or(0, Vec::len);
    if count > MAX_OPERATIONS {
        return Err(PatchError::TooManyOperations { max: MAX_OPERATIONS, got: count });
    }
    let wrong = if list.is_array() { PatchError::Operation } else { PatchError::Syntax };
    let patch: json_patch::Patch = serde_json::from_value(list).map_err(|e| wrong(e.to_string()))?;
    json_patch::patch(document, &patch).map_err(PatchError::Apply)
}

/// Applies a merge patch (RFC 7386): `null` removes, objects merge, everything else replaces.
pub fn merge_patch(document: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *document = patch.clone();
        return;
    };
    if !document.is_object() {
        *document = Value::Object(Map::new());
    }
    let Value::Object(document) = document else { return };
    for (key, value) in patch {
        if value.is_null() {
            document.remove(key);
        } else {
            merge_patch(document.entry(key.as_str()).or_insert(Value::Null), value);
        }
    }
}
