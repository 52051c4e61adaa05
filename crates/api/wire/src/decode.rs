//! From protobuf to JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Number, Value};
use xebec_schema::schema::{Field, List, Object};
use xebec_schema::{Kind, Schema, builtin};
use xebec_types::{GroupVersion, time};

use crate::envelope::{self, Envelope};
use crate::error::WireError;
use crate::reader::{Payload, Reader};
use crate::{MAX_DEPTH, MEDIA_TYPE, duration};

/// Reads a whole body, envelope and all, into the JSON that says the same: empty fields that JSON leaves out are left
/// out. Fields the tables do not know are skipped, as protobuf has it.
///
/// # Errors
/// For bytes that are no message of the kind they name, and for kinds without tables.
pub fn decode(body: &[u8]) -> Result<Value, WireError> {
    whole(body, 0)
}

fn whole(body: &[u8], depth: u32) -> Result<Value, WireError> {
    let envelope = Envelope::open(body)?;
    let (api_version, kind) = (envelope.api_version.as_str(), envelope.kind.as_str());
    match envelope.content_type.as_str() {
        "" | MEDIA_TYPE if envelope.encoding.is_empty() => {}
        _ => {
            let Envelope { content_type, encoding, .. } = envelope;
            return Err(WireError::Content { content_type, encoding });
        }
    }
    let unknown = || WireError::kind(api_version, kind);
    let version = GroupVersion::parse(api_version).ok_or_else(unknown)?;
    let schema = builtin(&version.group, &version.version, kind).ok_or_else(unknown)?;
    let object = schema.object().ok_or_else(unknown)?;
    let mut map = Map::new();
    message(envelope.raw, &schema, object, &mut map, depth)?;
    map.insert("apiVersion".into(), api_version.into());
    map.insert("kind".into(), kind.into());
    Ok(Value::Object(map))
}

/// Reads the fields of a message into `map`, which may hold some already: a message that comes twice is one.
fn message(
    bytes: &[u8],
    schema: &Schema,
    object: &Object,
    map: &mut Map<String, Value>,
    depth: u32,
) -> Result<(), WireError> {
    if depth > MAX_DEPTH {
        return Err(WireError::TooDeep);
    }
    let mut reader = Reader(bytes);
    while let Some((tag, payload)) = reader.next()? {
        if let Some(field) = object.fields.iter().find(|field| field.tag == tag && field.via == 0) {
            read_field(field, payload, map, depth)?;
        } else if let Some(inline) = object.inlines.iter().find(|inline| inline.tag == tag) {
            let bytes = envelope::bytes(&schema.name, payload)?;
            if let Some(inner) = inline.schema.object() {
                message(bytes, &inline.schema, inner, map, depth + 1)?;
            }
        }
    }
    Ok(())
}

fn read_field(
    field: &Field,
    payload: Payload<'_>,
    map: &mut Map<String, Value>,
    depth: u32,
) -> Result<(), WireError> {
    let name = field.name.as_str();
    match &field.schema.kind {
        Kind::List(list) if !list.wrapped => {
            let items = map.entry(name).or_insert_with(|| Value::Array(Vec::new()));
            match items {
                Value::Array(items) => read_items(name, list, payload, items, depth),
                _ => Ok(()),
            }
        }
        Kind::Map(values) => {
            let (key, value) = read_entry(name, &values.values, envelope::bytes(name, payload)?, depth)?;
            if let Value::Object(entries) = map.entry(name).or_insert_with(|| Value::Object(Map::new())) {
                entries.insert(key, value);
            }
            Ok(())
        }
        _ => {
            let value = read_value(name, &field.schema, payload, map.remove(name), depth)?;
            let left_out = field.omits(&value) || (field.omit_zero && is_empty(&value));
            if !left_out {
                map.insert(name.to_owned(), value);
            }
            Ok(())
        }
    }
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty)
}

fn read_items(
    place: &str,
    list: &List,
    payload: Payload<'_>,
    items: &mut Vec<Value>,
    depth: u32,
) -> Result<(), WireError> {
    let kind = &list.items.kind;
    match (kind, payload) {
        (Kind::Int32 | Kind::Int64 | Kind::Bool | Kind::Number, Payload::Bytes(packed)) => {
            let mut reader = Reader(packed);
            while !reader.is_empty() {
                let payload = match kind {
                    Kind::Number => Payload::Fixed64(reader.fixed64()?),
                    _ => Payload::Varint(reader.varint()?),
                };
                items.push(read_value(place, &list.items, payload, None, depth)?);
            }
        }
        _ => items.push(read_value(place, &list.items, payload, None, depth)?),
    }
    Ok(())
}

fn read_entry(place: &str, values: &Schema, bytes: &[u8], depth: u32) -> Result<(String, Value), WireError> {
    let (mut key, mut value) = (String::new(), None);
    let mut reader = Reader(bytes);
    while let Some((tag, payload)) = reader.next()? {
        match tag {
            1 => key = envelope::text(place, payload)?,
            2 => value = Some(read_value(place, values, payload, value, depth)?),
            _ => {}
        }
    }
    let value = match value {
        Some(value) => value,
        None => read_value(place, values, zero(&values.kind), None, depth)?,
    };
    Ok((key, value))
}

/// What a value that is not there would have been carried as.
const fn zero(kind: &Kind) -> Payload<'static> {
    match kind {
        Kind::Int32 | Kind::Int64 | Kind::Bool => Payload::Varint(0),
        Kind::Number => Payload::Fixed64(0),
        _ => Payload::Bytes(&[]),
    }
}

fn read_value(
    place: &str,
    schema: &Schema,
    payload: Payload<'_>,
    before: Option<Value>,
    depth: u32,
) -> Result<Value, WireError> {
    let bytes = match (&schema.kind, payload) {
        (Kind::Bool, Payload::Varint(value)) => return Ok((value != 0).into()),
        // Go cuts to the type's width, too.
        (Kind::Int32, Payload::Varint(value)) => return Ok((value as u32).cast_signed().into()),
        (Kind::Int64, Payload::Varint(value)) => return Ok(value.cast_signed().into()),
        (Kind::Number, Payload::Fixed64(bits)) => return double(place, f64::from_bits(bits)),
        (Kind::Bool | Kind::Int32 | Kind::Int64, _) => return Err(wire_type(place, "a number")),
        (Kind::Number, _) => return Err(wire_type(place, "a double")),
        (_, payload) => envelope::bytes(place, payload)?,
    };
    let value = match &schema.kind {
        Kind::String => envelope::text(place, payload)?.into(),
        Kind::Bytes => STANDARD.encode(bytes).into(),
        Kind::Quantity => match only(bytes, 1)? {
            Some(payload) => envelope::text(place, payload)?.into(),
            None => "0".into(),
        },
        Kind::Time => timestamp(place, bytes, false)?,
        Kind::MicroTime => timestamp(place, bytes, true)?,
        Kind::IntOrString => int_or_string(place, bytes)?,
        Kind::Duration => match only(bytes, 1)? {
            Some(Payload::Varint(nanos)) => duration::format(nanos.cast_signed()).into(),
            Some(_) => return Err(wire_type(place, "a number")),
            None => duration::format(0).into(),
        },
        Kind::Raw | Kind::Any => match only(bytes, 1)? {
            Some(payload) => raw(place, envelope::bytes(place, payload)?, depth)?,
            None => Value::Null,
        },
        Kind::Object(object) => {
            let mut map = match before {
                Some(Value::Object(map)) => map,
                _ => Map::new(),
            };
            message(bytes, schema, object, &mut map, depth + 1)?;
            Value::Object(map)
        }
        Kind::List(list) => {
            let mut items = Vec::new();
            let mut reader = Reader(bytes);
            while let Some((tag, payload)) = reader.next()? {
                if tag == 1 {
                    read_items(place, list, payload, &mut items, depth)?;
                }
            }
            Value::Array(items)
        }
        Kind::SchemaOr(inner) => schema_or(place, &schema.name, inner, bytes, depth)?,
        Kind::Map(_) | Kind::Bool | Kind::Int32 | Kind::Int64 | Kind::Number => {
            return Err(WireError::value(place, "a map has no protobuf encoding here"));
        }
    };
    Ok(value)
}

fn wire_type(place: &str, expected: &'static str) -> WireError {
    WireError::WireType { place: place.to_owned(), expected }
}

/// The last field with the number `wanted`.
fn only<'a>(bytes: &'a [u8], wanted: u32) -> Result<Option<Payload<'a>>, WireError> {
    let mut reader = Reader(bytes);
    let mut found = None;
    while let Some((tag, payload)) = reader.next()? {
        if tag == wanted {
            found = Some(payload);
        }
    }
    Ok(found)
}

/// Whole numbers are written without a fraction, as Go does.
fn double(place: &str, value: f64) -> Result<Value, WireError> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() <= EXACT {
        return Ok((value as i64).into());
    }
    Number::from_f64(value).map(Value::Number).ok_or_else(|| WireError::value(place, "is no finite number"))
}

/// Go's zero time is an empty message, and `null` in JSON.
fn timestamp(place: &str, bytes: &[u8], micro: bool) -> Result<Value, WireError> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let part = |tag| match only(bytes, tag)? {
        Some(Payload::Varint(value)) => Ok(value.cast_signed()),
        Some(_) => Err(wire_type(place, "a number")),
        None => Ok(0),
    };
    let (seconds, nanos) = (part(1)?, part(2)?);
    let nanos = i32::try_from(nanos).map_err(|error| WireError::value(place, error))?;
    let at = Timestamp::new(seconds, if micro { nanos } else { 0 });
    let at = at.map_err(|error| WireError::value(place, error))?;
    Ok(if micro { time::rfc3339_micro(at) } else { time::rfc3339(at) }.into())
}

fn int_or_string(place: &str, bytes: &[u8]) -> Result<Value, WireError> {
    let number = |tag| match only(bytes, tag)? {
        Some(Payload::Varint(value)) => Ok((value as u32).cast_signed()),
        Some(_) => Err(wire_type(place, "a number")),
        None => Ok(0),
    };
    match number(1)? {
        0 => Ok(number(2)?.into()),
        1 => match only(bytes, 3)? {
            Some(payload) => Ok(envelope::text(place, payload)?.into()),
            None => Ok("".into()),
        },
        other => Err(WireError::value(place, format!("type {other} is neither number nor string"))),
    }
}

/// What a raw extension holds: JSON, or an object in an envelope of its own.
fn raw(place: &str, bytes: &[u8], depth: u32) -> Result<Value, WireError> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    if bytes.starts_with(&envelope::MAGIC) {
        return whole(bytes, depth + 1);
    }
    serde_json::from_slice(bytes).map_err(|error| WireError::value(place, error))
}

/// `JSONSchemaPropsOrArray`, `…OrBool` and `…OrStringArray` have a message each.
fn schema_or(place: &str, name: &str, inner: &Schema, bytes: &[u8], depth: u32) -> Result<Value, WireError> {
    let (mut schema, mut allows, mut items) = (None, false, Vec::new());
    let or_bool = name.ends_with("OrBool");
    let mut reader = Reader(bytes);
    while let Some((tag, payload)) = reader.next()? {
        match tag {
            1 if or_bool => match payload {
                Payload::Varint(value) => allows = value != 0,
                _ => return Err(wire_type(place, "a number")),
            },
            1 | 2 if or_bool == (tag == 2) => {
                schema = Some(read_value(place, inner, payload, schema, depth)?);
            }
            2 if name.ends_with("OrStringArray") => items.push(envelope::text(place, payload)?.into()),
            2 => items.push(read_value(place, inner, payload, None, depth)?),
            _ => {}
        }
    }
    Ok(match schema {
        Some(schema) => schema,
        None if or_bool => allows.into(),
        None => Value::Array(items),
    })
}
