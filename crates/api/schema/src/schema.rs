//! The type graph that describes a kind, built-in or custom.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use crate::rules::Rules;
use crate::table;

/// One type: of a whole object, a field, an item.
#[derive(Debug)]
pub struct Schema {
    /// The short name of a built-in struct (`core.v1.Container`), the Go name of a named string (`v1.Protocol`),
    /// empty otherwise.
    pub name: String,
    /// The shape.
    pub kind: Kind,
    /// Whether values decode into a fixed type (built-in kinds): a value of another type is a decoding error.
    /// Values of custom resources are read as they come and checked by `validate`.
    pub typed: bool,
    /// Whether `null` is a value of its own.
    pub nullable: bool,
    /// The default a schema declares.
    pub default: Option<Value>,
    /// Value checks of a custom resource.
    pub rules: Option<Box<Rules>>,
    /// Whether a default is declared here or below.
    pub has_defaults: bool,
}

/// The shapes of types.
#[derive(Debug)]
pub enum Kind {
    /// An object with named fields.
    Object(Object),
    /// Arbitrary keys with values of one type.
    Map(Map),
    /// A list.
    List(List),
    /// A string.
    String,
    /// A boolean.
    Bool,
    /// A whole number of 32 bits.
    Int32,
    /// A whole number of 64 bits.
    Int64,
    /// A number.
    Number,
    /// Bytes, in base64.
    Bytes,
    /// A resource quantity, kept in its canonical form.
    Quantity,
    /// A number of 32 bits or a string.
    IntOrString,
    /// An RFC 3339 time with whole seconds.
    Time,
    /// An RFC 3339 time with microseconds.
    MicroTime,
    /// A duration in Go's notation.
    Duration,
    /// Whatever JSON stands there, untouched: raw extensions, field sets.
    Raw,
    /// Whatever JSON stands there.
    Any,
    /// A JSON schema where an object stands, anything otherwise (`JSONSchemaPropsOrArray` and kin).
    SchemaOr(Node),
}

/// Named fields.
#[derive(Debug, Default)]
pub struct Object {
    /// All fields that JSON shows, those of inlined structs too, sorted by name.
    pub fields: Vec<Field>,
    /// The inlined structs: submessages in protobuf.
    pub inlines: Vec<Inline>,
    /// Whether fields without a schema are kept.
    pub preserve_unknown: bool,
    /// Whether apply treats the object as one value.
    pub atomic: bool,
    /// Whether the object is itself a whole resource with `apiVersion`, `kind` and `metadata`.
    pub embedded: bool,
    /// Whether the type is a kind of its own.
    pub is_kind: bool,
}

/// A struct whose fields appear among its parent's.
#[derive(Debug)]
pub struct Inline {
    /// The struct.
    pub schema: Node,
    /// Its protobuf field number; zero when protobuf carries it elsewhere (type metadata).
    pub tag: u32,
}

/// A field of an object.
#[derive(Debug)]
pub struct Field {
    /// Name in JSON.
    pub name: String,
    /// Its type.
    pub schema: Node,
    /// Left out when empty.
    pub omit_empty: bool,
    /// Left out when the zero struct.
    pub omit_zero: bool,
    /// Carried as a pointer: an explicit zero is a value, and protobuf carries it only when set.
    pub pointer: bool,
    /// Must be given, as OpenAPI says.
    pub required: bool,
    /// Protobuf field number.
    pub tag: u32,
    /// One plus the index in [`Object::inlines`] of the struct the field comes from; zero for own fields.
    pub via: u8,
    /// How a strategic merge patch treats the field.
    pub patch: Patch,
    /// Whether apply treats the map or object here as one value, where that is told at the field and not at
    /// its type.
    pub atomic: Option<bool>,
    /// The default that OpenAPI tells.
    pub default: Option<Value>,
}

/// Strategic merge patch facts of a field.
#[derive(Debug, Default, Clone)]
pub struct Patch {
    /// Lists are merged, not replaced.
    pub merge: bool,
    /// Keys absent from the patch's `$retainKeys` are cleared.
    pub retain_keys: bool,
    /// Maps are replaced, not merged.
    pub replace: bool,
    /// The field by which items of a list of objects are matched.
    pub merge_key: Option<String>,
}

/// Arbitrary keys with values of one type.
#[derive(Debug)]
pub struct Map {
    /// The type of the values.
    pub values: Node,
    /// Whether apply treats the map as one value; a field that leads here may say otherwise.
    pub atomic: bool,
}

/// A list.
#[derive(Debug)]
pub struct List {
    /// The type of the items.
    pub items: Node,
    /// How apply tells items apart.
    pub list_type: ListType,
    /// Whether the list type is declared; one that is not is atomic.
    pub list_type_declared: bool,
    /// The fields that name an item when `list_type` is `Map`.
    pub map_keys: Vec<String>,
    /// Whether protobuf carries the list as a message of its own with the items in field 1.
    pub wrapped: bool,
}

/// `x-kubernetes-list-type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListType {
    /// One value.
    Atomic,
    /// Items are scalars that occur once.
    Set,
    /// Items are objects named by key fields.
    Map,
}

/// An edge of the type graph; dereferences to the type.
#[derive(Debug, Clone)]
pub enum Node {
    /// A type that belongs here.
    Inline(Arc<Schema>),
    /// A built-in struct, looked up on first use, so that types may contain themselves.
    Named(NamedRef),
}

/// A reference to a built-in struct.
#[derive(Debug, Clone)]
pub struct NamedRef {
    name: String,
    resolved: Arc<OnceLock<Arc<Schema>>>,
}

impl NamedRef {
    pub(crate) fn new(name: String) -> Self {
        Self { name, resolved: Arc::default() }
    }
}

impl Node {
    /// The type as a shared pointer.
    #[must_use]
    pub fn shared(&self) -> &Arc<Schema> {
        match self {
            Self::Inline(schema) => schema,
            Self::Named(named) => named.resolved.get_or_init(|| {
                table::builtin_type(&named.name).expect("invariant: the table defines every type it names")
            }),
        }
    }

    /// The short name of the built-in struct this edge leads to.
    #[must_use]
    pub fn reference(&self) -> Option<&str> {
        match self {
            Self::Inline(_) => None,
            Self::Named(named) => Some(&named.name),
        }
    }
}

impl Deref for Node {
    type Target = Schema;

    fn deref(&self) -> &Schema {
        self.shared()
    }
}

impl Schema {
    /// A type of the given shape and nothing else.
    #[must_use]
    pub fn of(kind: Kind, typed: bool) -> Self {
        Self {
            name: String::new(),
            kind,
            typed,
            nullable: false,
            default: None,
            rules: None,
            has_defaults: false,
        }
    }

    /// The fields, if this is an object with fields.
    #[must_use]
    pub fn object(&self) -> Option<&Object> {
        match &self.kind {
            Kind::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The field `name`, if this is an object that has it.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.object()?.field(name)
    }

    /// The list facts, if this is a list.
    #[must_use]
    pub fn list(&self) -> Option<&List> {
        match &self.kind {
            Kind::List(list) => Some(list),
            _ => None,
        }
    }

    /// The type of what lies under `key`: a field or a map's value.
    #[must_use]
    pub fn below(&self, key: &str) -> Option<&Node> {
        match &self.kind {
            Kind::Object(object) => object.field(key).map(|field| &field.schema),
            Kind::Map(map) => Some(&map.values),
            Kind::SchemaOr(schema) => schema.below(key),
            _ => None,
        }
    }

    /// The type's name as Go prints it in decoding errors.
    #[must_use]
    pub fn go_name(&self) -> String {
        match &self.kind {
            Kind::Object(_) => last_two(&self.name),
            Kind::Map(map) => format!("map[string]{}", map.values.go_name()),
            Kind::List(list) => format!("[]{}", list.items.go_name()),
            Kind::String if !self.name.is_empty() => self.name.clone(),
            Kind::String | Kind::Time | Kind::MicroTime | Kind::Duration => "string".to_owned(),
            Kind::Bool => "bool".to_owned(),
            Kind::Int32 | Kind::IntOrString => "int32".to_owned(),
            Kind::Int64 => "int64".to_owned(),
            Kind::Number => "float64".to_owned(),
            Kind::Bytes => "[]uint8".to_owned(),
            Kind::Quantity => "resource.Quantity".to_owned(),
            Kind::Raw => "runtime.RawExtension".to_owned(),
            Kind::Any | Kind::SchemaOr(_) => "interface {}".to_owned(),
        }
    }
}

impl Object {
    /// The field `name`.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.index(name).map(|index| &self.fields[index])
    }

    /// The position of the field `name` in [`Object::fields`].
    #[must_use]
    pub fn index(&self, name: &str) -> Option<usize> {
        self.fields.binary_search_by(|field| field.name.as_str().cmp(name)).ok()
    }
}

impl Field {
    /// Whether Go would leave `value` out when it encodes the field.
    #[must_use]
    pub fn omits(&self, value: &Value) -> bool {
        match value {
            Value::Null => true,
            _ if !self.omit_empty || self.pointer => false,
            Value::String(text) => text.is_empty() && !matches!(self.schema.kind, Kind::IntOrString),
            Value::Bool(value) => !value,
            Value::Number(number) => {
                number.as_i64() == Some(0) && !matches!(self.schema.kind, Kind::IntOrString)
            }
            Value::Array(items) => items.is_empty(),
            Value::Object(map) => map.is_empty() && matches!(self.schema.kind, Kind::Map(_)),
        }
    }
}

fn last_two(name: &str) -> String {
    let start = name.rmatch_indices('.').nth(1).map_or(0, |(at, _)| at + 1);
    name[start..].to_owned()
}
