//! One walk from bytes to a value: types checked, unknown and repeated fields found, zero values dropped.
//!
//! The texts follow upstream's decoder (`sigs.k8s.io/json`, which is Go's `encoding/json` with exact field
//! names): clients match on them.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt;

use base64::Engine as _;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::schema::{Kind, Object, Schema};

/// What to do about fields the schema does not know, and about fields given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldValidation {
    /// Drop them silently.
    Ignore,
    /// Drop them and say so.
    Warn,
    /// Refuse the object.
    Strict,
}

/// A finding that does not stop the request: `unknown field "spec.foo"`.
pub type Warning = String;

/// Why bytes are not an object of the schema.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON.
    #[error("{0}")]
    Syntax(#[source] serde_json::Error),
    /// A value of the wrong type, in Go's words.
    #[error("{0}")]
    Type(String),
    /// Unknown or repeated fields under [`FieldValidation::Strict`].
    #[error("strict decoding error: {}", .0.join(", "))]
    Strict(Vec<Warning>),
}

/// How many findings are collected before the rest is left out.
const MAX_FINDINGS: usize = 100;

/// Decodes `bytes` as an object of `schema`: unknown fields are dropped, `null` fields too, and what Go would leave
/// out when it encodes the object again.
///
/// # Errors
/// When the bytes are not JSON, a value has the wrong type for a built-in kind, or `fields` is strict and a field is
/// unknown or given twice.
pub fn decode(
    bytes: &[u8],
    schema: &Schema,
    fields: FieldValidation,
) -> Result<(Value, Vec<Warning>), DecodeError> {
    let cx = Cx { look: fields != FieldValidation::Ignore, ..Cx::default() };
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let seed = Seed { cx: &cx, schema, at: &Frame::ROOT };
    let value = seed.deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
    let value = match value {
        Ok(value) => value,
        Err(error) => return Err(cx.type_error.take().map_or(DecodeError::Syntax(error), DecodeError::Type)),
    };
    let findings = cx.findings.into_inner();
    if fields == FieldValidation::Strict && !findings.is_empty() {
        return Err(DecodeError::Strict(findings));
    }
    Ok((value, findings))
}

#[derive(Default)]
struct Cx {
    look: bool,
    findings: RefCell<Vec<Warning>>,
    type_error: Cell<Option<String>>,
}

impl Cx {
    fn report(&self, what: &str, at: &Frame<'_>) {
        let mut findings = self.findings.borrow_mut();
        if self.look && findings.len() < MAX_FINDINGS {
            let finding = format!("{what} field \"{}\"", at.path());
            if !findings.contains(&finding) {
                findings.push(finding);
            }
        }
    }

    fn fail<E: serde::de::Error>(&self, text: String) -> E {
        self.type_error.set(Some(text));
        E::custom("type error")
    }
}

/// Where the walk stands, as a list on the stack: only a message pays for the text.
struct Frame<'p> {
    parent: Option<&'p Frame<'p>>,
    step: Step<'p>,
}

enum Step<'p> {
    Root,
    Field { name: &'p str, owner: &'p Schema },
    Key(&'p str),
    Index(usize),
}

impl<'p> Frame<'p> {
    const ROOT: Self = Self { parent: None, step: Step::Root };

    fn then(&'p self, step: Step<'p>) -> Self {
        Self { parent: Some(self), step }
    }

    fn steps(&self) -> Vec<&Step<'_>> {
        let mut steps: Vec<_> =
            std::iter::successors(Some(self), |frame| frame.parent).map(|frame| &frame.step).collect();
        steps.reverse();
        steps
    }

    /// `spec.containers[0].foo`, as strict decoding errors name fields.
    fn path(&self) -> String {
        use fmt::Write as _;
        let mut path = String::new();
        for step in self.steps() {
            match step {
                Step::Root => {}
                Step::Index(index) => {
                    let _ = write!(path, "[{index}]");
                }
                Step::Field { name, .. } | Step::Key(name) => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(name);
                }
            }
        }
        path
    }

    /// `Go struct field PodSpec.spec.hostname` or `Go value`, as type errors name places.
    fn go_place(&self) -> String {
        let mut names = Vec::new();
        let mut owner = None;
        for step in self.steps() {
            if let Step::Field { name, owner: schema } = step {
                names.push(*name);
                owner = Some(schema);
            }
        }
        let Some(owner) = owner else { return "Go value".to_owned() };
        let name = owner.name.rsplit('.').next().unwrap_or_default();
        format!("Go struct field {name}.{}", names.join("."))
    }
}

/// Reads one value of `schema`.
struct Seed<'c, 'p> {
    cx: &'c Cx,
    schema: &'p Schema,
    at: &'p Frame<'p>,
}

impl<'de> DeserializeSeed<'de> for Seed<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self.schema.kind {
            Kind::Raw => serde::Deserialize::deserialize(deserializer),
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl Seed<'_, '_> {
    fn mismatch<E: serde::de::Error>(&self, found: &str) -> E {
        let place = if matches!(self.schema.kind, Kind::Time | Kind::MicroTime | Kind::IntOrString) {
            // These decode themselves, and know nothing of the field they stand in.
            "Go value".to_owned()
        } else {
            self.at.go_place()
        };
        let text = format!("json: cannot unmarshal {found} into {place} of type {}", self.schema.go_name());
        self.cx.fail(text)
    }

    fn whole<E: serde::de::Error>(&self, number: i64) -> Result<Value, E> {
        match self.schema.kind {
            Kind::Int64 | Kind::Any | Kind::Number | Kind::SchemaOr(_) => Ok(number.into()),
            Kind::Int32 | Kind::IntOrString if i32::try_from(number).is_ok() => Ok(number.into()),
            Kind::Quantity => self.quantity(&number.to_string()),
            _ if !self.schema.typed => Ok(number.into()),
            Kind::Int32 | Kind::IntOrString => Err(self.mismatch(&format!("number {number}"))),
            _ => Err(self.mismatch("number")),
        }
    }

    fn quantity<E: serde::de::Error>(&self, text: &str) -> Result<Value, E> {
        match text.trim().parse::<xebec_types::Quantity>() {
            Ok(quantity) => Ok(Value::String(quantity.to_string())),
            Err(_) => Err(self.cx.fail(
                "quantities must match the regular expression \
                 '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
                    .to_owned(),
            )),
        }
    }

    fn time<E: serde::de::Error>(&self, text: &str, micro: bool) -> Result<Value, E> {
        if !micro && is_plain_time(text) {
            return Ok(Value::String(text.to_owned()));
        }
        let Some(at) = xebec_types::time::parse(text) else {
            let quoted = crate::error::quoted(text);
            let layout = if micro { "2006-01-02T15:04:05.000000Z07:00" } else { "2006-01-02T15:04:05Z07:00" };
            return Err(self
                .cx
                .fail(format!("parsing time {quoted} as \"{layout}\": cannot parse {quoted} as \"2006\"")));
        };
        let text = if micro { xebec_types::time::rfc3339_micro(at) } else { xebec_types::time::rfc3339(at) };
        Ok(Value::String(text))
    }

    fn bytes<E: serde::de::Error>(&self, text: &str) -> Result<Value, E> {
        // Go's decoder skips line ends.
        let clean: Cow<'_, str> =
            if text.contains(['\r', '\n']) { text.replace(['\r', '\n'], "").into() } else { text.into() };
        match base64::engine::general_purpose::STANDARD.decode(clean.as_bytes()) {
            Ok(_) => Ok(Value::String(clean.into_owned())),
            Err(error) => {
                let at = match error {
                    base64::DecodeError::InvalidByte(at, _)
                    | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                    base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => {
                        clean.len()
                    }
                };
                Err(self.cx.fail(format!("illegal base64 data at input byte {at}")))
            }
        }
    }

    fn fields<'de, A: MapAccess<'de>>(&self, object: &Object, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        let mut seen = Seen::default();
        while let Some(key) = access.next_key_seed(FieldName(object))? {
            let index = match key {
                Key::Known(index) => index,
                Key::Unknown(name) => {
                    let at = self.at.then(Step::Key(&name));
                    if object.preserve_unknown {
                        let value = access.next_value_seed(Seed { schema: any(), at: &at, cx: self.cx })?;
                        if map.insert(name.to_string(), value).is_some() {
                            self.cx.report("duplicate", &at);
                        }
                    } else {
                        self.cx.report("unknown", &at);
                        access.next_value::<IgnoredAny>()?;
                    }
                    continue;
                }
            };
            let field = &object.fields[index];
            let at = self.at.then(Step::Field { name: &field.name, owner: self.schema });
            if seen.again(index) {
                self.cx.report("duplicate", &at);
                map.remove(&field.name);
            }
            let schema: &Schema = &field.schema;
            let value = access.next_value_seed(Seed { cx: self.cx, schema, at: &at })?;
            let kept = if schema.typed { !field.omits(&value) } else { true };
            if kept {
                map.insert(field.name.clone(), value);
            }
        }
        Ok(Value::Object(map))
    }

    fn keys<'de, A: MapAccess<'de>>(&self, values: &Schema, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let at = self.at.then(Step::Key(&key));
            let value = access.next_value_seed(Seed { cx: self.cx, schema: values, at: &at })?;
            if map.contains_key(&key) {
                self.cx.report("duplicate", &at);
            }
            map.insert(key, or_zero(values, value));
        }
        Ok(Value::Object(map))
    }

    fn items<'de, A: SeqAccess<'de>>(&self, items: &Schema, mut access: A) -> Result<Value, A::Error> {
        let mut list = Vec::with_capacity(access.size_hint().unwrap_or(0));
        loop {
            let at = self.at.then(Step::Index(list.len()));
            let Some(value) = access.next_element_seed(Seed { cx: self.cx, schema: items, at: &at })? else {
                return Ok(Value::Array(list));
            };
            list.push(or_zero(items, value));
        }
    }
}

impl<'de> Visitor<'de> for Seed<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Value, E> {
        match self.schema.kind {
            Kind::Bool | Kind::Any | Kind::SchemaOr(_) => Ok(value.into()),
            _ if !self.schema.typed => Ok(value.into()),
            Kind::Quantity => self.quantity("true"),
            _ => Err(self.mismatch("bool")),
        }
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        self.whole(value)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        match i64::try_from(value) {
            Ok(small) => self.whole(small),
            Err(_) if matches!(self.schema.kind, Kind::Any | Kind::Number) || !self.schema.typed => {
                Ok(value.into())
            }
            Err(_) => Err(self.mismatch(&format!("number {value}"))),
        }
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        match self.schema.kind {
            Kind::Quantity => self.quantity(&value.to_string()),
            Kind::Number | Kind::Any | Kind::SchemaOr(_) => number(value),
            _ if !self.schema.typed => number(value),
            Kind::Int32 | Kind::Int64 | Kind::IntOrString => Err(self.mismatch(&format!("number {value:?}"))),
            _ => Err(self.mismatch("number")),
        }
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        match self.schema.kind {
            Kind::String | Kind::IntOrString | Kind::Any | Kind::Duration | Kind::SchemaOr(_) => {
                Ok(value.into())
            }
            _ if !self.schema.typed => Ok(value.into()),
            Kind::Quantity => self.quantity(value),
            Kind::Time => self.time(value, false),
            Kind::MicroTime => self.time(value, true),
            Kind::Bytes => self.bytes(value),
            _ => Err(self.mismatch("string")),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<Value, A::Error> {
        match &self.schema.kind {
            Kind::List(list) => self.items(&list.items, access),
            Kind::Any | Kind::SchemaOr(_) => self.items(any(), access),
            Kind::Quantity => self.quantity("[]"),
            _ if !self.schema.typed => self.items(any(), access),
            _ => Err(self.mismatch("array")),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<Value, A::Error> {
        match &self.schema.kind {
            Kind::Object(object) => self.fields(object, access),
            Kind::Map(map) => self.keys(&map.values, access),
            Kind::SchemaOr(schema) => Seed { schema, ..self }.visit_map(access),
            Kind::Any => self.keys(any(), access),
            Kind::Quantity => self.quantity("{}"),
            _ if !self.schema.typed => self.keys(any(), access),
            _ => Err(self.mismatch("object")),
        }
    }
}

enum Key<'de> {
    Known(usize),
    Unknown(Cow<'de, str>),
}

/// Reads a field's name without copying it when the schema knows it.
struct FieldName<'s>(&'s Object);

impl<'de> DeserializeSeed<'de> for FieldName<'_> {
    type Value = Key<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key<'de>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for FieldName<'_> {
    type Value = Key<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Key<'de>, E> {
        Ok(self.0.index(name).map_or_else(|| Key::Unknown(Cow::Owned(name.to_owned())), Key::Known))
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, name: &'de str) -> Result<Key<'de>, E> {
        Ok(self.0.index(name).map_or(Key::Unknown(Cow::Borrowed(name)), Key::Known))
    }
}

/// Which fields of an object occurred.
#[derive(Default)]
struct Seen(u128, Vec<usize>);

impl Seen {
    fn again(&mut self, index: usize) -> bool {
        if index >= 128 {
            let again = self.1.contains(&index);
            self.1.push(index);
            return again;
        }
        let bit = 1u128 << index;
        let again = self.0 & bit != 0;
        self.0 |= bit;
        again
    }
}

fn any() -> &'static Schema {
    static ANY: std::sync::OnceLock<Schema> = std::sync::OnceLock::new();
    ANY.get_or_init(|| Schema::of(Kind::Any, false))
}

/// In lists and maps Go reads `null` as the zero value.
fn or_zero(schema: &Schema, value: Value) -> Value {
    if !value.is_null() || !schema.typed {
        return value;
    }
    match schema.kind {
        Kind::Object(_) => Value::Object(Map::new()),
        Kind::String | Kind::Bytes => Value::String(String::new()),
        Kind::Quantity => Value::String("0".to_owned()),
        Kind::Bool => Value::Bool(false),
        Kind::Int32 | Kind::Int64 | Kind::Number | Kind::IntOrString => Value::from(0),
        _ => Value::Null,
    }
}

fn number<E: serde::de::Error>(value: f64) -> Result<Value, E> {
    Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
}

/// `2006-01-02T15:04:05Z` with plausible digits: already in canonical form.
fn is_plain_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    let shape = b"dddd-dd-ddTdd:dd:ddZ";
    bytes.len() == shape.len()
        && bytes.iter().zip(shape).all(
            |(have, want)| {
                if *want == b'd' { have.is_ascii_digit() } else { have == want }
            },
        )
        && two(bytes, 5, 1, 12)
        && two(bytes, 8, 1, 28)
        && two(bytes, 11, 0, 23)
        && two(bytes, 14, 0, 59)
        && two(bytes, 17, 0, 59)
}

fn two(bytes: &[u8], at: usize, low: u8, high: u8) -> bool {
    let number = (bytes[at] - b'0') * 10 + (bytes[at + 1] - b'0');
    (low..=high).contains(&number)
}
