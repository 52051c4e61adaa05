//! Schemas of custom resources: from `openAPIV3Schema` to the type graph, with the rules that make a schema
//! structural (KEP-1693): every value has one type, told outside of `allOf`, `anyOf`, `oneOf` and `not`.

use std::sync::Arc;

use regex::Regex;
use serde_json::{Map as JsonMap, Value};

use crate::decode::{FieldValidation, decode};
use crate::error::{FieldError, forbidden, invalid, not_supported, required};
use crate::path::Path;
use crate::rules::Rules;
use crate::schema::{Field, Kind, List, ListType, Map, NamedRef, Node, Object, Patch, Schema};
use crate::validate::validate;

type Json = JsonMap<String, Value>;

/// Builds the schema of a custom resource from its `openAPIV3Schema`, which stands at `path` of the definition.
///
/// # Errors
/// Every way in which the schema is not structural or uses what does not exist here, by field.
pub fn from_crd(schema: &Value, path: &Path) -> Result<Schema, Vec<FieldError>> {
    let mut builder = Builder::default();
    let empty = Json::new();
    let json = schema.as_object().unwrap_or(&empty);
    match json.get("type").and_then(Value::as_str) {
        Some("object") => {}
        Some(other) => {
            let detail = "must be object at the root";
            builder.errors.push(invalid(&path.child("type"), other, detail));
        }
        None => builder.errors.push(required(&path.child("type"), "must not be empty at the root")),
    }
    let mut root = builder.structural(json, path, "at the root");
    if let Kind::Object(object) = &mut root.kind {
        let declared = json.get("properties").and_then(|p| p.get("metadata")).and_then(Value::as_object);
        if let Some(declared) = declared {
            builder.restrict_metadata(&mut root.rules, declared, path);
        }
        add_resource_fields(object);
    }
    if builder.errors.is_empty() { Ok(root) } else { Err(builder.errors) }
}

#[derive(Default)]
struct Builder {
    errors: Vec<FieldError>,
}

/// Keywords of JSON schema that have no place in a structural schema.
const FORBIDDEN: &[&str] =
    &["$ref", "$schema", "id", "definitions", "dependencies", "patternProperties", "additionalItems"];

/// Keywords that tell structure, and so may not stand inside `allOf` and its like.
const STRUCTURE: &[&str] = &[
    "type",
    "default",
    "nullable",
    "additionalProperties",
    "description",
    "title",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
];

impl Builder {
    fn structural(&mut self, json: &Json, path: &Path, place: &str) -> Schema {
        self.refuse_keywords(json, path);
        let int_or_string = flag(json, "x-kubernetes-int-or-string");
        let preserve = self.preserve(json, path);
        let type_name = json.get("type").and_then(Value::as_str).unwrap_or_default();
        let kind = match type_name {
            _ if int_or_string => {
                if !type_name.is_empty() {
                    let detail = "must be empty if x-kubernetes-int-or-string is true";
                    self.errors.push(invalid(&path.child("type"), type_name, detail));
                }
                Kind::IntOrString
            }
            "object" => self.object(json, path, preserve),
            "array" => self.list(json, path),
            "string" => Kind::String,
            "integer" => Kind::Int64,
            "number" => Kind::Number,
            "boolean" => Kind::Bool,
            "" => {
                if !preserve && place != "at the root" {
                    let detail = format!("must not be empty for specified {place}");
                    self.errors.push(required(&path.child("type"), detail));
                }
                if json.contains_key("properties") { self.object(json, path, preserve) } else { Kind::Any }
            }
            other => {
                let types = ["array", "boolean", "integer", "number", "object", "string"];
                self.errors.push(not_supported(&path.child("type"), other, &types));
                Kind::Any
            }
        };
        let mut schema = Schema { nullable: flag(json, "nullable"), ..Schema::of(kind, false) };
        let rules = self.rules(json, path, &schema);
        schema.rules = Some(Box::new(rules));
        schema.has_defaults = below_has_defaults(&schema.kind);
        self.declare_default(json, path, &mut schema);
        schema
    }

    fn refuse_keywords(&mut self, json: &Json, path: &Path) {
        for keyword in FORBIDDEN.iter().filter(|keyword| json.contains_key(**keyword)) {
            self.errors.push(forbidden(&path.child(*keyword), format!("{keyword} is not supported")));
        }
        if flag(json, "uniqueItems") {
            let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.errors.push(forbidden(&path.child("uniqueItems"), detail));
        }
        let rules = json.get("x-kubernetes-validations").and_then(Value::as_array);
        if rules.is_some_and(|rules| !rules.is_empty()) {
            let detail =
                "validation rules in CEL are not supported yet: express them as JSON schema or remove them";
            self.errors.push(forbidden(&path.child("x-kubernetes-validations"), detail));
        }
    }

    fn preserve(&mut self, json: &Json, path: &Path) -> bool {
        match json.get("x-kubernetes-preserve-unknown-fields") {
            Some(Value::Bool(true)) => true,
            Some(value @ Value::Bool(false)) => {
                let path = path.child("x-kubernetes-preserve-unknown-fields");
                self.errors.push(invalid(&path, value.clone(), "must be true or undefined"));
                false
            }
            _ => false,
        }
    }

    fn object(&mut self, json: &Json, path: &Path, preserve: bool) -> Kind {
        let properties = json.get("properties").and_then(Value::as_object);
        let additional = json.get("additionalProperties");
        let atomic = json.get("x-kubernetes-map-type").is_some_and(|t| t == "atomic");
        let path_of_additional = path.child("additionalProperties");
        match additional {
            Some(Value::Bool(false)) => {
                let detail = "additionalProperties cannot be set to false";
                self.errors.push(forbidden(&path_of_additional, detail));
            }
            Some(_) if properties.is_some_and(|p| !p.is_empty()) => {
                let detail = "additionalProperties and properties are mutual exclusive";
                self.errors.push(forbidden(&path_of_additional, detail));
            }
            Some(Value::Object(values)) => {
                let schema = self.structural(values, &path_of_additional, "object fields");
                return Kind::Map(Map { values: Node::Inline(Arc::new(schema)), atomic });
            }
            Some(Value::Bool(true)) => {
                let any = Node::Inline(Arc::new(Schema::of(Kind::Any, false)));
                return Kind::Map(Map { values: any, atomic });
            }
            _ => {}
        }
        let mut object = Object { preserve_unknown: preserve, atomic, ..Object::default() };
        for (name, value) in properties.into_iter().flatten() {
            let path = path.child("properties").key(name.clone());
            let empty = Json::new();
            let schema = self.structural(value.as_object().unwrap_or(&empty), &path, "object fields");
            object.fields.push(field(name, Node::Inline(Arc::new(schema))));
        }
        if flag(json, "x-kubernetes-embedded-resource") {
            object.embedded = true;
            add_resource_fields(&mut object);
        }
        object.fields.sort_by(|a, b| a.name.cmp(&b.name));
        Kind::Object(object)
    }

    fn list(&mut self, json: &Json, path: &Path) -> Kind {
        let items_path = path.child("items");
        let items = match json.get("items") {
            Some(Value::Object(items)) => self.structural(items, &items_path, "array items"),
            Some(Value::Array(_)) => {
                self.errors.push(forbidden(&items_path, "items must be a schema object and not an array"));
                Schema::of(Kind::Any, false)
            }
            _ => {
                self.errors.push(required(&items_path, "must be specified"));
                Schema::of(Kind::Any, false)
            }
        };
        let keys = json.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
        let map_keys: Vec<String> =
            keys.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        let type_path = path.child("x-kubernetes-list-type");
        let list_type = match json.get("x-kubernetes-list-type").and_then(Value::as_str) {
            None | Some("atomic") => ListType::Atomic,
            Some("set") => ListType::Set,
            Some("map") => ListType::Map,
            Some(other) => {
                self.errors.push(not_supported(&type_path, other, &["atomic", "map", "set"]));
                ListType::Atomic
            }
        };
        let list_type_declared = json.contains_key("x-kubernetes-list-type");
        self.check_map_keys(path, list_type, &map_keys, &items);
        Kind::List(List {
            list_type,
            map_keys,
            list_type_declared,
            ..plain_list(Node::Inline(Arc::new(items)))
        })
    }

    fn check_map_keys(&mut self, path: &Path, list_type: ListType, keys: &[String], items: &Schema) {
        let keys_path = path.child("x-kubernetes-list-map-keys");
        if list_type != ListType::Map {
            if !keys.is_empty() {
                self.errors.push(forbidden(&keys_path, "must be empty if x-kubernetes-list-type is not map"));
            }
            return;
        }
        if keys.is_empty() {
            let detail = "must not be empty if x-kubernetes-list-type is map";
            self.errors.push(required(&keys_path, detail));
        }
        for (index, key) in keys.iter().enumerate() {
            let needed = items.rules.as_ref().is_some_and(|rules| rules.required.contains(key));
            match items.field(key) {
                None => {
                    let detail = "entries must all be names of item properties";
                    self.errors.push(invalid(&keys_path.index(index), key.as_str(), detail));
                }
                Some(field) if field.schema.default.is_none() && !needed => {
                    let path = path.child("items").child("properties").key(key.clone()).child("default");
                    let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be \
                                  a required property";
                    self.errors.push(required(&path, detail));
                }
                Some(_) => {}
            }
        }
    }

    fn declare_default(&mut self, json: &Json, path: &Path, schema: &mut Schema) {
        let Some(default) = json.get("default") else { return };
        let path = path.child("default");
        let decoded = decode(default.to_string().as_bytes(), schema, FieldValidation::Strict);
        if decoded.is_ok_and(|(value, _)| value == *default) {
            self.errors.extend(validate(default, schema, &path));
        } else {
            self.errors.push(invalid(&path, default.clone(), "must not have unknown fields"));
        }
        schema.default = Some(default.clone());
        schema.has_defaults = true;
    }

    fn rules(&mut self, json: &Json, path: &Path, schema: &Schema) -> Rules {
        let number = |key: &str| json.get(key).and_then(Value::as_f64);
        let count = |key: &str| json.get(key).and_then(Value::as_u64);
        let strings = |key: &str| -> Vec<String> {
            let list = json.get(key).and_then(Value::as_array);
            list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let pattern_text = json.get("pattern").and_then(Value::as_str).unwrap_or_default();
        Rules {
            type_name: type_name(&schema.kind),
            enumeration: json.get("enum").and_then(Value::as_array).cloned().unwrap_or_default(),
            pattern: self.pattern(pattern_text, path),
            pattern_text: pattern_text.to_owned(),
            format: json.get("format").and_then(Value::as_str).map(str::to_owned),
            minimum: number("minimum").map(|bound| (bound, flag(json, "exclusiveMinimum"))),
            maximum: number("maximum").map(|bound| (bound, flag(json, "exclusiveMaximum"))),
            multiple_of: number("multipleOf"),
            min_length: count("minLength"),
            max_length: count("maxLength"),
            min_items: count("minItems"),
            max_items: count("maxItems"),
            min_properties: count("minProperties"),
            max_properties: count("maxProperties"),
            required: strings("required"),
            all_of: self.junctors(json, "allOf", path, schema),
            any_of: self.junctors(json, "anyOf", path, schema),
            one_of: self.junctors(json, "oneOf", path, schema),
            not: json
                .get("not")
                .and_then(Value::as_object)
                .map(|inner| Arc::new(self.junctor(inner, &path.child("not"), schema))),
        }
    }

    fn pattern(&mut self, text: &str, path: &Path) -> Option<Regex> {
        if text.is_empty() {
            return None;
        }
        Regex::new(text)
            .map_err(|error| {
                let detail = format!("must be a valid regular expression, but isn't: {error}");
                self.errors.push(invalid(&path.child("pattern"), text, detail));
            })
            .ok()
    }

    fn junctors(&mut self, json: &Json, key: &'static str, path: &Path, outer: &Schema) -> Vec<Arc<Schema>> {
        let list = json.get(key).and_then(Value::as_array);
        let path = path.child(key);
        let inner = list.into_iter().flatten().filter_map(Value::as_object).enumerate();
        inner.map(|(index, json)| Arc::new(self.junctor(json, &path.index(index), outer))).collect()
    }

    /// A schema inside `allOf` and its like: checks of values whose structure `outer` tells.
    fn junctor(&mut self, json: &Json, path: &Path, outer: &Schema) -> Schema {
        self.refuse_keywords(json, path);
        // The customary way to write down what x-kubernetes-int-or-string means.
        let scalar = json.get("type").is_some_and(|t| t == "integer" || t == "string");
        let of_int_or_string = matches!(outer.kind, Kind::IntOrString) && scalar;
        for keyword in STRUCTURE.iter().filter(|keyword| json.contains_key(**keyword)) {
            if !(of_int_or_string && *keyword == "type") {
                self.errors.push(forbidden(&path.child(*keyword), "must be empty to be structural"));
            }
        }
        let mut kind = Kind::Any;
        if let Some(properties) = json.get("properties").and_then(Value::as_object) {
            let mut object = Object { preserve_unknown: true, ..Object::default() };
            for (name, value) in properties {
                let at = path.child("properties").key(name.clone());
                let Some(inner) = outer.below(name) else {
                    self.errors.push(required(&at, "must also be specified outside of the value validation"));
                    continue;
                };
                let empty = Json::new();
                let schema = self.junctor(value.as_object().unwrap_or(&empty), &at, inner);
                object.fields.push(field(name, Node::Inline(Arc::new(schema))));
            }
            object.fields.sort_by(|a, b| a.name.cmp(&b.name));
            kind = Kind::Object(object);
        }
        if let (Some(items), Some(list)) = (json.get("items").and_then(Value::as_object), outer.list()) {
            let schema = self.junctor(items, &path.child("items"), &list.items);
            let items = Node::Inline(Arc::new(schema));
            kind = Kind::List(plain_list(items));
        }
        let mut rules = self.rules(json, path, outer);
        rules.type_name = match json.get("type").and_then(Value::as_str).filter(|_| of_int_or_string) {
            Some("integer") => Some("integer"),
            Some("string") => Some("string"),
            _ => None,
        };
        Schema { nullable: outer.nullable, rules: Some(Box::new(rules)), ..Schema::of(kind, false) }
    }

    /// The root's `metadata` is always that of every object; a schema may narrow the name only.
    fn restrict_metadata(&mut self, rules: &mut Option<Box<Rules>>, metadata: &Json, path: &Path) {
        let path = path.child("properties").key("metadata");
        let schema = self.structural(metadata, &path, "object fields");
        for field in schema.object().into_iter().flat_map(|object| &object.fields) {
            if field.name != "name" && field.name != "generateName" {
                let detail = "must not specify anything other than name and generateName, but metadata is \
                              implicitly specified";
                self.errors.push(forbidden(&path, detail));
            }
        }
        let fields = vec![field("metadata", Node::Inline(Arc::new(schema)))];
        let object = Object { preserve_unknown: true, fields, ..Object::default() };
        let check = Arc::new(Schema::of(Kind::Object(object), false));
        rules.get_or_insert_default().all_of.push(check);
    }
}

fn type_name(kind: &Kind) -> Option<&'static str> {
    match kind {
        Kind::Object(_) | Kind::Map(_) => Some("object"),
        Kind::List(_) => Some("array"),
        Kind::String => Some("string"),
        Kind::Int64 => Some("integer"),
        Kind::Number => Some("number"),
        Kind::Bool => Some("boolean"),
        Kind::IntOrString => Some("integer,string"),
        _ => None,
    }
}

fn below_has_defaults(kind: &Kind) -> bool {
    match kind {
        Kind::Object(object) => {
            object.fields.iter().any(|field| !field.schema.typed && field.schema.has_defaults)
        }
        Kind::Map(map) => map.values.has_defaults,
        Kind::List(list) => list.items.has_defaults,
        _ => false,
    }
}

/// Every resource has these, whether its schema says so or not.
fn add_resource_fields(object: &mut Object) {
    object.fields.retain(|field| !matches!(field.name.as_str(), "apiVersion" | "kind" | "metadata"));
    for name in ["apiVersion", "kind"] {
        let string = Node::Inline(Arc::new(Schema::of(Kind::String, true)));
        object.fields.push(Field { omit_empty: true, ..field(name, string) });
    }
    let metadata = Node::Named(NamedRef::new("meta.v1.ObjectMeta".to_owned()));
    object.fields.push(Field { omit_empty: true, ..field("metadata", metadata) });
    object.fields.sort_by(|a, b| a.name.cmp(&b.name));
}

fn field(name: &str, schema: Node) -> Field {
    Field {
        name: name.to_owned(),
        schema,
        omit_empty: false,
        omit_zero: false,
        pointer: false,
        required: false,
        tag: 0,
        via: 0,
        patch: Patch::default(),
        atomic: None,
        default: None,
    }
}

fn plain_list(items: Node) -> List {
    List { items, list_type: ListType::Atomic, list_type_declared: false, map_keys: vec![], wrapped: false }
}

fn flag(json: &Json, key: &str) -> bool {
    json.get(key).and_then(Value::as_bool).unwrap_or(false)
}
