//! Custom resources: structural rules, pruning, defaults and value checks.

#![allow(clippy::unwrap_used, missing_docs)]

use serde_json::{Value, json};
use xebec_schema::{FieldValidation, Path, Schema, TypeDefaults, decode, default, from_crd, validate};

fn schema(spec: Value) -> Schema {
    from_crd(&json!({"type": "object", "properties": {"spec": spec}}), &Path::new("schema")).unwrap()
}

fn refused(schema: Value) -> Vec<String> {
    from_crd(&schema, &Path::new("schema")).unwrap_err().iter().map(ToString::to_string).collect()
}

#[track_caller]
fn check(spec_schema: Value, spec: Value, expected: &[&str]) {
    let schema = schema(spec_schema);
    let errors = validate(&json!({"spec": spec}), &schema, &Path::root());
    assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
}

#[test]
fn value_checks_have_upstreams_texts() {
    let object = |name: &str, schema: Value| json!({"type": "object", "properties": {name: schema}});
    check(
        object("replicas", json!({"type": "integer"})),
        json!({"replicas": "3"}),
        &[
            r#"spec.replicas: Invalid value: "string": spec.replicas in body must be of type integer: "string""#,
        ],
    );
    check(
        object("size", json!({"type": "string", "enum": ["a", "b"]})),
        json!({"size": "x"}),
        &[r#"spec.size: Unsupported value: "x": supported values: "a", "b""#],
    );
    check(
        json!({"type": "object", "required": ["size"], "properties": {"size": {"type": "string"}}}),
        json!({}),
        &["spec.size: Required value"],
    );
    check(
        object("n", json!({"type": "integer", "minimum": 1, "maximum": 3, "exclusiveMaximum": true})),
        json!({"n": 3}),
        &["spec.n: Invalid value: 3: spec.n in body should be less than 3"],
    );
    check(
        object("s", json!({"type": "string", "pattern": "^a", "minLength": 2})),
        json!({"s": "b"}),
        &[
            r#"spec.s: Invalid value: "b": spec.s in body should be at least 2 chars long"#,
            r#"spec.s: Invalid value: "b": spec.s in body should match '^a'"#,
        ],
    );
    check(
        object("l", json!({"type": "array", "maxItems": 1, "items": {"type": "string", "maxLength": 1}})),
        json!({"l": ["a", "bc"]}),
        &[
            "spec.l: Too many: 2: must have at most 1 item",
            "spec.l[1]: Too long: may not be more than 1 bytes",
        ],
    );
    check(
        object(
            "p",
            json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}),
        ),
        json!({"p": "50%"}),
        &[],
    );
    check(
        json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
            "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}),
        json!({"a": "1", "b": "1"}),
        &[concat!(
            r#"spec: Invalid value: {"a":"1","b":"1"}: "spec" must validate one and only one schema (oneOf). "#,
            "Found 2 valid alternatives"
        )],
    );
    check(
        object(
            "l",
            json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}}}}),
        ),
        json!({"l": [{"k": "a"}, {"k": "a"}]}),
        &[r#"spec.l[1]: Duplicate value: {"k":"a"}"#],
    );
    check(object("x", json!({"type": "string", "nullable": true})), json!({"x": null}), &[]);
}

#[test]
fn schemas_must_be_structural() {
    assert_eq!(refused(json!({})), ["schema.type: Required value: must not be empty at the root"]);
    let bad = json!({"type": "object", "properties": {
        "a": {},
        "b": {"type": "array"},
        "c": {"type": "object", "$ref": "x"},
        "d": {"type": "string", "anyOf": [{"type": "string"}]},
        "e": {"type": "string", "default": 1},
        "f": {"type": "object", "x-kubernetes-validations": [{"rule": "true"}]},
        "g": {"type": "widget"},
    }});
    let cel = "validation rules in CEL are not supported yet: express them as JSON schema or remove them";
    assert_eq!(
        refused(bad),
        [
            "schema.properties[a].type: Required value: must not be empty for specified object fields",
            "schema.properties[b].items: Required value: must be specified",
            "schema.properties[c].$ref: Forbidden: $ref is not supported",
            "schema.properties[d].anyOf[0].type: Forbidden: must be empty to be structural",
            "schema.properties[e].default: Invalid value: \"integer\": schema.properties[e].default in body \
             must be of type string: \"integer\"",
            &format!("schema.properties[f].x-kubernetes-validations: Forbidden: {cel}"),
            "schema.properties[g].type: Unsupported value: \"widget\": supported values: \"array\", \"boolean\", \
             \"integer\", \"number\", \"object\", \"string\"",
        ]
    );
}

#[test]
fn unknown_fields_are_pruned_unless_kept() {
    let schema = schema(json!({"type": "object", "properties": {
        "known": {"type": "string"},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
            "properties": {"n": {"type": "integer"}}},
        "map": {"type": "object", "additionalProperties":
            {"type": "object", "properties": {"a": {"type": "string"}}}}}}));
    let text =
        br#"{"apiVersion":"a/v1","kind":"K","metadata":{"name":"n","foo":1},"spec":{"known":"x","other":1,
        "free":{"any":{"b":[1]},"n":1},"map":{"k":{"a":"1","b":"2"}}},"status":{}}"#;
    let (value, warnings) = decode(text, &schema, FieldValidation::Warn).unwrap();
    assert_eq!(
        value,
        json!({"apiVersion": "a/v1", "kind": "K", "metadata": {"name": "n"},
            "spec": {"known": "x", "free": {"any": {"b": [1]}, "n": 1}, "map": {"k": {"a": "1"}}}})
    );
    let fields = ["metadata.foo", "spec.other", "spec.map.k.b", "status"];
    assert_eq!(warnings, fields.map(|field| format!("unknown field \"{field}\"")));
    let error = decode(br#"{"metadata":{"labels":{"a":1}}}"#, &schema, FieldValidation::Warn).unwrap_err();
    assert!(error.to_string().starts_with("json: cannot unmarshal number"), "{error}");
}

#[test]
fn declared_defaults_fill_in() {
    let schema = schema(json!({"type": "object", "default": {}, "properties": {
        "size": {"type": "string", "default": "small"},
        "list": {"type": "array", "items": {"type": "object", "properties": {"p": {"type": "integer", "default": 1}}}},
        "nullable": {"type": "string", "nullable": true, "default": "x"}}}));
    let types = TypeDefaults::default();
    let mut empty = json!({});
    default(&mut empty, &schema, &types);
    assert_eq!(empty, json!({"spec": {"size": "small", "nullable": "x"}}));
    let mut given = json!({"spec": {"size": null, "nullable": null, "list": [{}, {"p": 2}]}});
    default(&mut given, &schema, &types);
    assert_eq!(given, json!({"spec": {"size": "small", "nullable": null, "list": [{"p": 1}, {"p": 2}]}}));
}
