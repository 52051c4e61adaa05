//! The schema engine as the verbs use it: one place that knows its calls.

use serde_json::Value;
use xebec_schema::{DecodeError, FieldError, FieldValidation, Path, Schema};
use xebec_types::{Cause, GroupKind, Status, object};

use crate::catalog::Target;
use crate::negotiate;
use crate::query::Query;

/// What `?fieldValidation` asks for; a warning unless said otherwise.
///
/// # Errors
/// 422 for an unknown value.
pub fn field_validation(query: &Query) -> Result<FieldValidation, Status> {
    match query.get("fieldValidation") {
        "" | "Warn" => Ok(FieldValidation::Warn),
        "Ignore" => Ok(FieldValidation::Ignore),
        "Strict" => Ok(FieldValidation::Strict),
        other => {
            let message = format!(
                "Unsupported value: {other:?}: supported values: \"\", \"Ignore\", \"Strict\", \"Warn\""
            );
            let cause =
                Cause { reason: "FieldValueNotSupported".into(), message, field: "fieldValidation".into() };
            Err(Status::invalid(&GroupKind::new("meta.k8s.io", "CreateOptions"), "", vec![cause]))
        }
    }
}

/// Reads a body of media type `content_type` as an object of the target, with warnings for what was dropped.
///
/// # Errors
/// 400 for what cannot be decoded, 415 for other media types.
pub fn decode_body(
    target: &Target,
    content_type: &str,
    body: &[u8],
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), Status> {
    let schema = &target.version().schema;
    let (mut value, warnings) = match content_type {
        "application/json" => decode(schema, body, validation),
        "application/yaml" => {
            let mut value = negotiate::yaml_to_value(body)?;
            xebec_schema::resolve_octals(&mut value, schema);
            decode(schema, value.to_string().as_bytes(), validation)
        }
        _ if target.served.custom => return Err(Status::unsupported_media_type(&negotiate::PLAIN)),
        _ => return Err(Status::unsupported_media_type(&negotiate::ACCEPTED)),
    }
    .map_err(|error| decode_status(target, &error))?;
    check_kind(target, &mut value)?;
    Ok((value, warnings))
}

/// Reads a patched object again, so that types are checked and unknown fields found.
///
/// # Errors
/// 422 for what the patch has broken (400 under strict validation).
pub fn decode_patched(
    target: &Target,
    patched: &Value,
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), Status> {
    let bytes = patched.to_string();
    decode(&target.version().schema, bytes.as_bytes(), validation).map_err(|error| match error {
        DecodeError::Strict(_) => Status::bad_request(error.to_string()),
        other => {
            let cause = Cause {
                reason: "FieldValueInvalid".into(),
                message: format!("Invalid value: {}: {other}", short(&bytes)),
                field: "patch".into(),
            };
            Status::invalid(&target.resource().group_kind(), object::name(patched), vec![cause])
        }
    })
}

fn short(text: &str) -> String {
    xebec_schema::error::quoted(text)
}

fn decode(
    schema: &Schema,
    body: &[u8],
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), DecodeError> {
    xebec_schema::decode(body, schema, validation)
}

fn decode_status(target: &Target, error: &DecodeError) -> Status {
    let version = target.version().name.as_str();
    let text = match error {
        DecodeError::Strict(_) => format!(
            "{} in version {version:?} cannot be handled as a {}: {error}",
            target.kind(),
            target.kind()
        ),
        DecodeError::Syntax(_) => {
            format!("the object provided is unrecognized (must be of type {}): {error}", target.kind())
        }
        DecodeError::Type(_) => {
            format!(
                "{} in version {version:?} cannot be handled as a {}: {error}",
                target.kind(),
                target.kind()
            )
        }
    };
    Status::bad_request(text)
}

/// The body must be of the target's kind; what it leaves out is filled in, as upstream's default kind does.
fn check_kind(target: &Target, value: &mut Value) -> Result<(), Status> {
    let (api_version, kind) = (target.api_version(), target.kind());
    let Some(object) = value.as_object_mut() else {
        return Err(Status::bad_request(format!("the object provided is no {kind}")));
    };
    for (field, wanted) in [("apiVersion", api_version.as_str()), ("kind", kind)] {
        let given = object.get(field).and_then(Value::as_str).unwrap_or("");
        if given.is_empty() {
            object.insert(field.into(), wanted.into());
        } else if given != wanted {
            let given_version = object.get("apiVersion").and_then(Value::as_str).unwrap_or("").to_owned();
            let given_kind = object.get("kind").and_then(Value::as_str).unwrap_or("").to_owned();
            return Err(Status::bad_request(format!(
                "{given_kind} in version {given_version:?} cannot be handled as a {kind}: the API version in the data \
                 ({given_version}, Kind={given_kind}) does not match the expected API version \
                 ({api_version}, Kind={kind})"
            )));
        }
    }
    Ok(())
}

/// 422 for errors in fields.
pub fn invalid(target: &Target, name: &str, errors: &[FieldError]) -> Status {
    invalid_kind(&target.resource().group_kind(), name, errors)
}

/// 422 for errors in fields of an object that is not of the target's kind.
pub fn invalid_kind(kind: &GroupKind, name: &str, errors: &[FieldError]) -> Status {
    let causes = errors
        .iter()
        .map(|error| Cause {
            reason: error.reason().into(),
            message: error.body(),
            field: error.field.clone(),
        })
        .collect();
    Status::invalid(kind, name, causes)
}

/// Checks the values of an object against its schema: custom resources only, built-in kinds check themselves.
pub fn validate(schema: &Schema, value: &Value) -> Vec<FieldError> {
    if schema.typed { Vec::new() } else { xebec_schema::validate(value, schema, &Path::root()) }
}

/// Reads a body that is no object of the target itself (`Binding`, `Scale`, reviews).
///
/// # Errors
/// 400 for what cannot be read, 415 for other media types.
pub fn read_json(call: &crate::api::Call) -> Result<Value, Status> {
    match call.content_type() {
        "application/json" => serde_json::from_slice(&call.body)
            .map_err(|error| Status::bad_request(format!("the object provided is unrecognized: {error}"))),
        "application/yaml" => negotiate::yaml_to_value(&call.body),
        _ => Err(Status::unsupported_media_type(&negotiate::ACCEPTED)),
    }
}
