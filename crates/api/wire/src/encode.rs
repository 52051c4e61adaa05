//! From JSON to protobuf, byte for byte as gogo writes it: fields by number, zero values of fields that are no
//! pointers included, maps by key.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use xebec_schema::schema::{Field, Inline, Object};
use xebec_schema::{Kind, Schema};
use xebec_types::{Quantity, time};

use crate::error::WireError;
use crate::{MAX_DEPTH, duration, envelope, writer};

/// Go's zero time in seconds since the epoch.
const ZERO_TIME: i64 = -62_135_596_800;

/// Writes an object of a built-in kind, in its envelope.
///
/// # Errors
/// For kinds that protobuf does not have (custom resources, tables) and for values that do not fit the schema.
pub fn encode(value: &Value, schema: &Schema, api_version: &str, kind: &str) -> Result<Vec<u8>, WireError> {
    let object = schema.object().filter(|object| schema.typed && object.is_kind && has_numbers(object));
    let object = object.ok_or_else(|| WireError::kind(api_version, kind))?;
    let map = value.as_object().ok_or_else(|| mismatch(kind, "an object"))?;
    let mut raw = Vec::with_capacity(512);
    write_message(&mut raw, object, map, 0)?;
    Ok(envelope::seal(api_version, kind, &raw))
}

/// Writes a watch event around an object that is in its envelope already, with the length in front as streams
/// have it: four bytes, most significant first.
#[must_use]
pub fn watch_event(event: &str, object: &[u8]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(object.len() + 8);
    writer::bytes(&mut raw, 1, object);
    let mut message = vec![0; 4];
    writer::bytes(&mut message, 1, event.as_bytes());
    writer::bytes(&mut message, 2, &raw);
    let length = u32::try_from(message.len() - 4).expect("invariant: objects are smaller than 4 GiB");
    message[..4].copy_from_slice(&length.to_be_bytes());
    message
}

/// Types that only JSON has carry no field numbers.
fn has_numbers(object: &Object) -> bool {
    object.fields.iter().filter(|field| field.via == 0).all(|field| field.tag != 0)
}

enum Part<'a> {
    Field(&'a Field),
    Inline(&'a Inline),
}

fn write_message(
    out: &mut Vec<u8>,
    object: &Object,
    map: &Map<String, Value>,
    depth: u32,
) -> Result<(), WireError> {
    if depth > MAX_DEPTH {
        return Err(WireError::TooDeep);
    }
    let fields = object.fields.iter().filter(|field| field.via == 0 && field.tag != 0);
    let inlines = object.inlines.iter().filter(|inline| inline.tag != 0);
    let mut parts: Vec<(u32, Part<'_>)> = fields.map(|field| (field.tag, Part::Field(field))).collect();
    parts.extend(inlines.map(|inline| (inline.tag, Part::Inline(inline))));
    parts.sort_unstable_by_key(|(tag, _)| *tag);
    for (tag, part) in parts {
        match part {
            Part::Field(field) => write_field(out, field, map.get(&field.name), depth)?,
            Part::Inline(inline) => {
                let mut inner = Vec::new();
                if let Some(object) = inline.schema.object() {
                    write_message(&mut inner, object, map, depth + 1)?;
                }
                writer::bytes(out, tag, &inner);
            }
        }
    }
    Ok(())
}

fn write_field(out: &mut Vec<u8>, field: &Field, value: Option<&Value>, depth: u32) -> Result<(), WireError> {
    let (place, tag) = (field.name.as_str(), field.tag);
    let value = value.unwrap_or(&Value::Null);
    match (&field.schema.kind, value) {
        // Nil slices, wrapped or not, and nil maps are not there.
        (Kind::List(_) | Kind::Map(_) | Kind::Bytes | Kind::SchemaOr(_), Value::Null) => Ok(()),
        (_, Value::Null) if field.pointer => Ok(()),
        (Kind::List(list), Value::Array(items)) if !list.wrapped => {
            items.iter().try_for_each(|item| write_value(out, place, tag, &list.items, item, depth))
        }
        (Kind::Map(values), Value::Object(map)) => {
            let mut entries: Vec<(&String, &Value)> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            entries.into_iter().try_for_each(|(key, value)| {
                let mut entry = Vec::new();
                writer::bytes(&mut entry, 1, key.as_bytes());
                write_value(&mut entry, place, 2, &values.values, value, depth)?;
                writer::bytes(out, tag, &entry);
                Ok(())
            })
        }
        _ => write_value(out, place, tag, &field.schema, value, depth),
    }
}

/// Writes one value; `null` is the zero value.
fn write_value(
    out: &mut Vec<u8>,
    place: &str,
    tag: u32,
    schema: &Schema,
    value: &Value,
    depth: u32,
) -> Result<(), WireError> {
    match &schema.kind {
        Kind::Bool => {
            let value = zero_or(value, false, Value::as_bool).ok_or_else(|| mismatch(place, "a boolean"))?;
            writer::number(out, tag, value.into());
        }
        Kind::Int32 | Kind::Int64 => writer::number(out, tag, whole(place, value)?),
        Kind::Number => {
            let value = zero_or(value, 0.0, Value::as_f64).ok_or_else(|| mismatch(place, "a number"))?;
            writer::double(out, tag, value);
        }
        Kind::String => writer::bytes(out, tag, text(place, value)?.as_bytes()),
        Kind::Bytes => {
            let decoded = STANDARD.decode(text(place, value)?);
            writer::bytes(out, tag, &decoded.map_err(|error| WireError::value(place, error))?);
        }
        _ => {
            let mut inner = Vec::new();
            write_inner(&mut inner, place, schema, value, depth)?;
            writer::bytes(out, tag, &inner);
        }
    }
    Ok(())
}

/// Writes the content of a value that is a message.
fn write_inner(
    out: &mut Vec<u8>,
    place: &str,
    schema: &Schema,
    value: &Value,
    depth: u32,
) -> Result<(), WireError> {
    match (&schema.kind, value) {
        (Kind::Object(object), Value::Null) => write_message(out, object, &Map::new(), depth + 1),
        (Kind::Object(object), Value::Object(map)) => write_message(out, object, map, depth + 1),
        (Kind::Quantity, _) => write_quantity(out, place, value),
        (Kind::Time, _) => write_time(out, place, value, false),
        (Kind::MicroTime, _) => write_time(out, place, value, true),
        (Kind::Duration, _) => {
            let text = zero_or(value, "0s", Value::as_str).and_then(duration::parse);
            writer::number(out, 1, text.ok_or_else(|| mismatch(place, "a duration"))?);
            Ok(())
        }
        (Kind::IntOrString, Value::String(text)) => {
            writer::number(out, 1, 1);
            writer::number(out, 2, 0);
            writer::bytes(out, 3, text.as_bytes());
            Ok(())
        }
        (Kind::IntOrString, _) => {
            writer::number(out, 1, 0);
            writer::number(out, 2, whole(place, value)?);
            writer::bytes(out, 3, b"");
            Ok(())
        }
        (Kind::Raw | Kind::Any | Kind::List(_), Value::Null) => Ok(()),
        (Kind::Raw | Kind::Any, _) => {
            writer::bytes(out, 1, value.to_string().as_bytes());
            Ok(())
        }
        (Kind::List(list), Value::Array(items)) => {
            items.iter().try_for_each(|item| write_value(out, place, 1, &list.items, item, depth))
        }
        (Kind::SchemaOr(inner), _) => write_schema_or(out, place, &schema.name, inner, value, depth),
        _ => Err(mismatch(place, "another type")),
    }
}

fn write_schema_or(
    out: &mut Vec<u8>,
    place: &str,
    name: &str,
    inner: &Schema,
    value: &Value,
    depth: u32,
) -> Result<(), WireError> {
    let or_bool = name.ends_with("OrBool");
    match value {
        Value::Object(_) => {
            if or_bool {
                writer::number(out, 1, 1);
            }
            write_value(out, place, if or_bool { 2 } else { 1 }, inner, value, depth)
        }
        Value::Bool(allows) if or_bool => {
            writer::number(out, 1, i64::from(*allows));
            Ok(())
        }
        Value::Null => Ok(()),
        Value::Array(items) if name.ends_with("OrStringArray") => items.iter().try_for_each(|item| {
            writer::bytes(out, 2, text(place, item)?.as_bytes());
            Ok(())
        }),
        Value::Array(items) if !or_bool => {
            items.iter().try_for_each(|item| write_value(out, place, 2, inner, item, depth))
        }
        _ => Err(mismatch(place, "a JSON schema")),
    }
}

fn write_quantity(out: &mut Vec<u8>, place: &str, value: &Value) -> Result<(), WireError> {
    let written = match value {
        Value::Null => "0".to_owned(),
        // JSON allows a bare number, too.
        Value::Number(number) => number.to_string(),
        value => text(place, value)?.to_owned(),
    };
    let quantity: Quantity = written.parse().map_err(|error| WireError::value(place, error))?;
    writer::bytes(out, 1, quantity.to_string().as_bytes());
    Ok(())
}

/// The zero time is an empty message; whole seconds only unless `micro`.
fn write_time(out: &mut Vec<u8>, place: &str, value: &Value, micro: bool) -> Result<(), WireError> {
    if value.is_null() {
        return Ok(());
    }
    let at = time::parse(text(place, value)?).ok_or_else(|| mismatch(place, "an RFC 3339 time"))?;
    let nanos = at.as_nanosecond();
    let seconds = nanos.div_euclid(1_000_000_000);
    let seconds = i64::try_from(seconds).map_err(|error| WireError::value(place, error))?;
    let micros = i64::try_from(nanos.rem_euclid(1_000_000_000) / 1000).unwrap_or_default();
    if seconds == ZERO_TIME && micros == 0 {
        return Ok(());
    }
    writer::number(out, 1, seconds);
    writer::number(out, 2, if micro { micros * 1000 } else { 0 });
    Ok(())
}

fn zero_or<'a, T>(value: &'a Value, zero: T, read: impl FnOnce(&'a Value) -> Option<T>) -> Option<T> {
    if value.is_null() { Some(zero) } else { read(value) }
}

fn text<'a>(place: &str, value: &'a Value) -> Result<&'a str, WireError> {
    zero_or(value, "", Value::as_str).ok_or_else(|| mismatch(place, "a string"))
}

fn whole(place: &str, value: &Value) -> Result<i64, WireError> {
    zero_or(value, 0, Value::as_i64).ok_or_else(|| mismatch(place, "a whole number"))
}

fn mismatch(place: &str, expected: &str) -> WireError {
    WireError::value(place, format!("the value is not {expected}"))
}
