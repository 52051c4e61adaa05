//! Value checks of custom resources, in the words of upstream's validator (`kube-openapi`).

use serde_json::{Map, Value};

use crate::error::{
    FieldError, duplicate, invalid, not_supported, quoted, required, too_long, too_many, type_invalid,
};
use crate::formats;
use crate::path::Path;
use crate::rules::Rules;
use crate::schema::{Kind, List, ListType, Schema};

/// Checks `value`, which stands at `path`, against the value rules of `schema` (those of a custom resource:
/// built-in kinds have their own checks).
#[must_use]
pub fn validate(value: &Value, schema: &Schema, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    check(value, schema, path, &mut errors);
    errors
}

fn check(value: &Value, schema: &Schema, path: &Path, errors: &mut Vec<FieldError>) {
    if schema.typed || (value.is_null() && schema.nullable) {
        return;
    }
    if let Some(rules) = &schema.rules {
        if !of_type(value, rules.type_name) {
            let wanted = rules.type_name.unwrap_or_default();
            let found = type_of(value);
            let detail = format!("{path} in body must be of type {wanted}: {}", quoted(found));
            errors.push(type_invalid(path, found, detail));
            return;
        }
        own_rules(value, rules, path, errors);
        junctors(value, rules, path, errors);
    }
    match (&schema.kind, value) {
        (Kind::Object(object), Value::Object(map)) => {
            if object.embedded {
                for name in ["apiVersion", "kind"] {
                    if map.get(name).and_then(Value::as_str).is_none_or(str::is_empty) {
                        errors.push(required(&path.child(name), "must not be empty"));
                    }
                }
            }
            for field in &object.fields {
                if let Some(inner) = map.get(&field.name) {
                    check(inner, &field.schema, &path.child(field.name.clone()), errors);
                }
            }
        }
        (Kind::Map(types), Value::Object(map)) => {
            for (key, inner) in map {
                check(inner, &types.values, &path.child(key.clone()), errors);
            }
        }
        (Kind::List(list), Value::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                check(item, &list.items, &path.index(index), errors);
            }
            repeated(list, items, path, errors);
        }
        _ => {}
    }
}

fn own_rules(value: &Value, rules: &Rules, path: &Path, errors: &mut Vec<FieldError>) {
    if !rules.enumeration.is_empty() && !rules.enumeration.contains(value) {
        let supported: Vec<String> = rules.enumeration.iter().map(plain).collect();
        errors.push(not_supported(path, value.clone(), &supported));
    }
    match value {
        Value::String(text) => string_rules(text, rules, path, errors),
        Value::Number(number) => {
            if let Some(number) = number.as_f64() {
                number_rules(value, number, rules, path, errors);
            }
        }
        Value::Array(items) => {
            if let Some(least) = rules.min_items.filter(|least| less(items.len(), *least)) {
                let detail = format!("{path} in body should have at least {least} items");
                errors.push(invalid(path, items.len(), detail));
            }
            if let Some(most) = rules.max_items.filter(|most| more(items.len(), *most)) {
                errors.push(too_many(path, items.len(), size(most)));
            }
        }
        Value::Object(map) => object_rules(map, rules, path, errors),
        _ => {}
    }
}

fn string_rules(text: &str, rules: &Rules, path: &Path, errors: &mut Vec<FieldError>) {
    let length = text.chars().count();
    if let Some(most) = rules.max_length.filter(|most| more(length, *most)) {
        errors.push(too_long(path, size(most)));
    }
    if let Some(least) = rules.min_length.filter(|least| less(length, *least)) {
        let detail = format!("{path} in body should be at least {least} chars long");
        errors.push(invalid(path, text, detail));
    }
    if rules.pattern.as_ref().is_some_and(|pattern| !pattern.is_match(text)) {
        let detail = format!("{path} in body should match '{}'", rules.pattern_text);
        errors.push(invalid(path, text, detail));
    }
    if let Some(format) = rules.format.as_deref().filter(|format| !formats::holds(format, text)) {
        let detail = format!("{path} in body must be of type {format}: {}", quoted(text));
        errors.push(invalid(path, text, detail));
    }
}

fn number_rules(value: &Value, number: f64, rules: &Rules, path: &Path, errors: &mut Vec<FieldError>) {
    let mut refuse = |detail: String| errors.push(invalid(path, value.clone(), detail));
    match rules.maximum {
        Some((bound, true)) if number >= bound => {
            refuse(format!("{path} in body should be less than {bound}"))
        }
        Some((bound, false)) if number > bound => {
            refuse(format!("{path} in body should be less than or equal to {bound}"));
        }
        _ => {}
    }
    match rules.minimum {
        Some((bound, true)) if number <= bound => {
            refuse(format!("{path} in body should be greater than {bound}"));
        }
        Some((bound, false)) if number < bound => {
            refuse(format!("{path} in body should be greater than or equal to {bound}"));
        }
        _ => {}
    }
    if let Some(factor) = rules.multiple_of.filter(|factor| (number / factor).fract() != 0.0) {
        refuse(format!("{path} in body should be a multiple of {factor}"));
    }
    let narrow =
        rules.format.as_deref() == Some("int32") && !(-2_147_483_648.0..=2_147_483_647.0).contains(&number);
    if narrow {
        refuse(format!("{path} in body must be of type int32: {}", quoted("integer")));
    }
}

fn object_rules(map: &Map<String, Value>, rules: &Rules, path: &Path, errors: &mut Vec<FieldError>) {
    for name in rules.required.iter().filter(|name| !map.contains_key(*name)) {
        errors.push(required(&path.child(name.clone()), ""));
    }
    if let Some(least) = rules.min_properties.filter(|least| less(map.len(), *least)) {
        let detail = format!("{path} in body should have at least {least} properties");
        errors.push(invalid(path, map.len(), detail));
    }
    if let Some(most) = rules.max_properties.filter(|most| more(map.len(), *most)) {
        errors.push(too_many(path, map.len(), size(most)));
    }
}

fn junctors(value: &Value, rules: &Rules, path: &Path, errors: &mut Vec<FieldError>) {
    let holds = |schema: &Schema| validate(value, schema, path).is_empty();
    let name = quoted(&path.to_string());
    let mut refuse = |detail: String| errors.push(invalid(path, value.clone(), detail));
    if !rules.any_of.is_empty() && !rules.any_of.iter().any(|schema| holds(schema)) {
        refuse(format!("{name} must validate at least one schema (anyOf)"));
    }
    if !rules.one_of.is_empty() {
        match rules.one_of.iter().filter(|schema| holds(schema)).count() {
            1 => {}
            0 => refuse(format!("{name} must validate one and only one schema (oneOf). Found none valid")),
            found => refuse(format!(
                "{name} must validate one and only one schema (oneOf). Found {found} valid alternatives"
            )),
        }
    }
    if rules.not.as_ref().is_some_and(|schema| holds(schema)) {
        refuse(format!("{name} must not validate the schema (not)"));
    }
    let failing: Vec<FieldError> =
        rules.all_of.iter().flat_map(|schema| validate(value, schema, path)).collect();
    errors.extend(failing);
}

/// Sets and maps written as lists hold each item once.
fn repeated(list: &List, items: &[Value], path: &Path, errors: &mut Vec<FieldError>) {
    let identity = |item: &Value| -> Value {
        match list.list_type {
            ListType::Map => {
                let keys = list.map_keys.iter();
                keys.filter_map(|key| Some((key.clone(), item.get(key)?.clone())))
                    .collect::<Map<_, _>>()
                    .into()
            }
            _ => item.clone(),
        }
    };
    if list.list_type == ListType::Atomic {
        return;
    }
    let mut seen = std::collections::HashSet::new();
    for (index, item) in items.iter().enumerate() {
        let identity = identity(item);
        if !seen.insert(identity.to_string()) {
            errors.push(duplicate(&path.index(index), identity));
        }
    }
}

fn of_type(value: &Value, wanted: Option<&str>) -> bool {
    let whole = |value: &Value| {
        value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
    };
    match wanted {
        None => true,
        Some("string") => value.is_string(),
        Some("integer") => whole(value),
        Some("integer,string") => value.is_string() || whole(value),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("array") => value.is_array(),
        Some(_) => value.is_object(),
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn size(bound: u64) -> usize {
    usize::try_from(bound).unwrap_or(usize::MAX)
}

fn less(count: usize, least: u64) -> bool {
    count < size(least)
}

fn more(count: usize, most: u64) -> bool {
    count > size(most)
}
