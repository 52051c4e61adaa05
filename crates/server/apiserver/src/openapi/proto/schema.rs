//! A schema of a definition as gnostic's `Schema`. `kubectl explain` of old clients, client-side validation and
//! `kubectl apply`, which looks for merge keys among the extensions, read it.

use serde_json::Value;

use super::{Message, members};

/// Writes the fields of a schema.
pub(super) fn schema(out: &mut Message, json: &Value) {
    for (tag, key) in [(1, "$ref"), (2, "format"), (3, "title"), (4, "description")] {
        out.text(tag, &json[key]);
    }
    if let Some(default) = json.get("default") {
        out.message(5, |any| any.yaml(default));
    }
    for (tag, key) in [(6, "multipleOf"), (7, "maximum"), (9, "minimum")] {
        if let Some(number) = json[key].as_f64() {
            out.double(tag, number);
        }
    }
    for (tag, key) in [(8, "exclusiveMaximum"), (10, "exclusiveMinimum"), (16, "uniqueItems")] {
        if json[key] == true {
            out.truth(tag);
        }
    }
    out.text(13, &json["pattern"]);
    for (tag, key) in [
        (11, "maxLength"),
        (12, "minLength"),
        (14, "maxItems"),
        (15, "minItems"),
        (17, "maxProperties"),
        (18, "minProperties"),
    ] {
        if let Some(number) = json[key].as_u64().and_then(|number| usize::try_from(number).ok()) {
            out.number(tag, number);
        }
    }
    for required in json["required"].as_array().into_iter().flatten() {
        out.text(19, required);
    }
    for value in json["enum"].as_array().into_iter().flatten() {
        out.message(20, |any| any.yaml(value));
    }
    nested(out, json);
    for (name, value) in members(json).filter(|(name, _)| name.starts_with("x-")) {
        out.named(31, name, |any| any.yaml(value));
    }
}

/// Writes what is made of other schemas.
fn nested(out: &mut Message, json: &Value) {
    match json.get("additionalProperties") {
        Some(Value::Bool(any)) => out.message(21, |item| item.number(2, usize::from(*any))),
        Some(of) => out.message(21, |item| item.message(1, |value| schema(value, of))),
        None => {}
    }
    if json["type"].is_string() {
        out.message(22, |item| item.text(1, &json["type"]));
    }
    if let Some(items) = json.get("items") {
        out.message(23, |item| item.message(1, |value| schema(value, items)));
    }
    for part in json["allOf"].as_array().into_iter().flatten() {
        out.message(24, |value| schema(value, part));
    }
    if json["properties"].is_object() {
        out.message(25, |properties| {
            for (name, property) in members(&json["properties"]) {
                properties.named(1, name, |value| schema(value, property));
            }
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::super::tests::{at, texts};
    use super::*;

    #[test]
    fn a_schema_says_its_types_and_extensions() {
        let mut out = Message::default();
        let list = json!({
            "type": "array", "items": { "$ref": "#/definitions/Item" }, "maxItems": 300,
            "x-kubernetes-patch-merge-key": "name",
        });
        let of = json!({
            "type": "object",
            "description": "A thing.",
            "required": ["list", "map"],
            "properties": {
                "list": list,
                "map": { "type": "object", "additionalProperties": { "type": "string", "enum": ["a", "b"] } },
            },
            "x-kubernetes-group-version-kind": [{ "group": "", "kind": "Thing", "version": "v1" }],
        });
        schema(&mut out, &of);
        let bytes = &out.0;
        assert_eq!(texts(bytes, &[4]), ["A thing."]);
        assert_eq!(texts(bytes, &[19]), ["list", "map"]);
        assert_eq!(texts(bytes, &[22, 1]), ["object"]);
        assert_eq!(texts(bytes, &[25, 1, 1]), ["list", "map"]);
        assert_eq!(texts(bytes, &[25, 1, 2, 22, 1]), ["array", "object"]);
        assert_eq!(texts(bytes, &[25, 1, 2, 23, 1, 1]), ["#/definitions/Item"]);
        assert_eq!(texts(bytes, &[25, 1, 2, 31, 2, 2]), ["name\n"]);
        assert_eq!(texts(bytes, &[25, 1, 2, 21, 1, 22, 1]), ["string"]);
        assert_eq!(texts(bytes, &[25, 1, 2, 21, 1, 20, 2]), ["a\n", "b\n"]);
        assert_eq!(texts(bytes, &[31, 1]), ["x-kubernetes-group-version-kind"]);
        assert_eq!(texts(bytes, &[31, 2, 2]), ["- group: ''\n  kind: Thing\n  version: v1\n"]);
        assert_eq!(at(bytes, &[25, 1]).len(), 2);
    }

    #[test]
    fn limits_are_numbers() {
        let mut out = Message::default();
        schema(&mut out, &json!({ "minimum": 1.5, "maxLength": 300, "uniqueItems": true }));
        let mut expected = vec![9 << 3 | 1];
        expected.extend_from_slice(&1.5_f64.to_le_bytes());
        // Keys from 16 on take two bytes.
        expected.extend_from_slice(&[0x80, 0x01, 1, 11 << 3, 0xac, 0x02]);
        assert_eq!(out.0, expected);
    }
}
