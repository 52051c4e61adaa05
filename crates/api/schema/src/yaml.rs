//! Numbers as YAML 1.1 writes them: a leading zero makes an octal.

use serde_json::Value;

use crate::schema::{Kind, Schema};

/// Turns texts like `0400` into the integer they are in YAML 1.1 (its type `int`, <https://yaml.org/type/int.html>),
/// wherever `schema` wants a whole number.
///
/// Manifests are YAML 1.1 by tradition (file modes above all: `defaultMode: 0400`), but a YAML 1.2 reader takes such a
/// scalar for text. Only the schema tells what was meant: strings stay strings, and so does an int-or-string, where
/// text is a value of its own. The quotes are gone when a value gets here, so `"0400"` is a number too where a number
/// must stand. What fits no 64 bits, or has digits that are not octal, is left for the decoder to refuse.
pub fn resolve_octals(value: &mut Value, schema: &Schema) {
    match (&schema.kind, value) {
        (Kind::Int32 | Kind::Int64, value @ Value::String(_)) => {
            if let Some(number) = value.as_str().and_then(octal) {
                *value = number.into();
            }
        }
        (Kind::Object(object), Value::Object(map)) => {
            for (name, value) in map {
                if let Some(field) = object.field(name) {
                    resolve_octals(value, &field.schema);
                }
            }
        }
        (Kind::Map(of), Value::Object(map)) => {
            map.values_mut().for_each(|value| resolve_octals(value, &of.values));
        }
        (Kind::List(list), Value::Array(items)) => {
            items.iter_mut().for_each(|item| resolve_octals(item, &list.items));
        }
        (Kind::SchemaOr(schema), value @ Value::Object(_)) => resolve_octals(value, schema),
        _ => {}
    }
}

/// The value of `[-+]?0[0-7]+`.
fn octal(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text).strip_prefix('0')?;
    let all_octal = !digits.is_empty() && digits.bytes().all(|digit| matches!(digit, b'0'..=b'7'));
    all_octal.then(|| i64::from_str_radix(text, 8).ok()).flatten()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Path, builtin, from_crd};

    #[test]
    fn the_form_is_a_zero_and_octal_digits() {
        for (text, number) in
            [("0400", 256), ("0644", 420), ("00", 0), ("-0755", -493), ("+010", 8), ("0000000007", 7)]
        {
            assert_eq!(octal(text), Some(number), "{text}");
        }
        let too_long = format!("0{}", "7".repeat(30));
        for text in
            ["", "0", "-0", "400", "08", "0x1f", "0o17", "0+1", "--01", " 01", "01 ", "0_1", &too_long]
        {
            assert_eq!(octal(text), None, "{text}");
        }
    }

    #[test]
    fn only_where_a_whole_number_stands() {
        let mut pod = json!({
            "metadata": {"name": "0400", "labels": {"mode": "0400"}},
            "spec": {
                "terminationGracePeriodSeconds": "010",
                "containers": [{
                    "name": "0644",
                    "livenessProbe": {"periodSeconds": "09", "httpGet": {"port": "0644"}},
                }],
                "volumes": [
                    {"secret": {"defaultMode": "0400", "items": [{"key": "0644", "mode": "0644"}]}},
                    {"projected": {"defaultMode": 256}},
                ],
                "unknown": "0400",
            },
        });
        let mut expected = pod.clone();
        expected["spec"]["terminationGracePeriodSeconds"] = 8.into();
        expected["spec"]["volumes"][0]["secret"]["defaultMode"] = 256.into();
        expected["spec"]["volumes"][0]["secret"]["items"][0]["mode"] = 420.into();
        resolve_octals(&mut pod, &builtin("", "v1", "Pod").unwrap());
        assert_eq!(pod, expected);
    }

    #[test]
    fn custom_resources_and_maps_are_walked_too() {
        let schema = json!({"type": "object", "properties": {
            "modes": {"type": "object", "additionalProperties": {"type": "integer"}},
            "name": {"type": "string"},
        }});
        let schema = from_crd(&schema, &Path::new("schema")).unwrap();
        let mut value = json!({"modes": {"a": "0755"}, "name": "0755"});
        resolve_octals(&mut value, &schema);
        assert_eq!(value, json!({"modes": {"a": 493}, "name": "0755"}));
    }

    #[test]
    fn a_schema_where_anything_may_stand_is_a_schema() {
        let mut crd = json!({"spec": {"versions": [{"schema": {"openAPIV3Schema": {
            "items": {"maxLength": "010"},
            "additionalProperties": {"default": "010", "minLength": "02"},
        }}}]}});
        resolve_octals(&mut crd, &builtin("apiextensions.k8s.io", "v1", "CustomResourceDefinition").unwrap());
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        assert_eq!(schema["items"]["maxLength"], 8);
        assert_eq!(schema["additionalProperties"], json!({"default": "010", "minLength": 2}));
    }
}
