//! What is wrong with a field of an object, in the words clients know.

use std::fmt;

use serde_json::Value;
pub use xebec_types::quoted;

use crate::path::Path;

/// The kinds of mistakes a field can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A name that refers to nothing.
    NotFound,
    /// A value that must be given and is not.
    Required,
    /// A value that occurs twice where it may occur once.
    Duplicate,
    /// A value outside what is allowed.
    Invalid,
    /// A value outside an enumeration.
    NotSupported,
    /// A value that may not be given or changed here.
    Forbidden,
    /// A string that is too long.
    TooLong,
    /// A list that is too long.
    TooMany,
    /// The check itself failed.
    InternalError,
    /// A value of the wrong type.
    TypeInvalid,
}

impl ErrorKind {
    /// The reason of a `StatusCause`.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::InternalError => "InternalError",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::InternalError => "Internal error",
        }
    }

    const fn shows_value(self) -> bool {
        !matches!(self, Self::Required | Self::Forbidden | Self::TooLong | Self::InternalError)
    }
}

/// One mistake in one field. `Display` gives upstream's text: `spec.replicas: Invalid value: -1: must be …`.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// What kind of mistake it is.
    pub kind: ErrorKind,
    /// The path of the field.
    pub field: String,
    /// The value found there; `Null` where the kind does not show it.
    pub bad_value: Value,
    /// What would be right; may be empty.
    pub detail: String,
}

impl FieldError {
    /// The reason of a `StatusCause`, such as `FieldValueRequired`.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        self.kind.reason()
    }

    /// The text without the field's path: the message of a `StatusCause`.
    #[must_use]
    pub fn body(&self) -> String {
        let mut text = self.kind.text().to_owned();
        if self.kind.shows_value() {
            text.push_str(": ");
            text.push_str(&shown(&self.bad_value));
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }

    fn new(kind: ErrorKind, path: &Path, bad_value: Value, detail: String) -> Self {
        Self { kind, field: path.to_string(), bad_value, detail }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Upstream's root path prints as the nil it is.
        let field = if self.field.is_empty() { "<nil>" } else { &self.field };
        write!(f, "{field}: {}", self.body())
    }
}

impl std::error::Error for FieldError {}

/// A value that refers to nothing that exists.
#[must_use]
pub fn not_found(path: &Path, value: impl Into<Value>) -> FieldError {
    FieldError::new(ErrorKind::NotFound, path, value.into(), String::new())
}

/// A missing value; `detail` may be empty.
#[must_use]
pub fn required(path: &Path, detail: impl Into<String>) -> FieldError {
    FieldError::new(ErrorKind::Required, path, Value::Null, detail.into())
}

/// A value that occurs a second time.
#[must_use]
pub fn duplicate(path: &Path, value: impl Into<Value>) -> FieldError {
    FieldError::new(ErrorKind::Duplicate, path, value.into(), String::new())
}

/// A value that breaks a rule told in `detail`.
#[must_use]
pub fn invalid(path: &Path, value: impl Into<Value>, detail: impl Into<String>) -> FieldError {
    FieldError::new(ErrorKind::Invalid, path, value.into(), detail.into())
}

/// A value of the wrong type.
#[must_use]
pub fn type_invalid(path: &Path, value: impl Into<Value>, detail: impl Into<String>) -> FieldError {
    FieldError::new(ErrorKind::TypeInvalid, path, value.into(), detail.into())
}

/// A value outside the enumeration `supported`, which is shown in the order given.
#[must_use]
pub fn not_supported<S: AsRef<str>>(path: &Path, value: impl Into<Value>, supported: &[S]) -> FieldError {
    let list: Vec<String> = supported.iter().map(|s| quoted(s.as_ref())).collect();
    let detail =
        if list.is_empty() { String::new() } else { format!("supported values: {}", list.join(", ")) };
    FieldError::new(ErrorKind::NotSupported, path, value.into(), detail)
}

/// A value that may not be given, or not be changed.
#[must_use]
pub fn forbidden(path: &Path, detail: impl Into<String>) -> FieldError {
    FieldError::new(ErrorKind::Forbidden, path, Value::Null, detail.into())
}

/// A string of more than `max` bytes.
#[must_use]
pub fn too_long(path: &Path, max: usize) -> FieldError {
    let detail = format!("may not be more than {max} bytes");
    FieldError::new(ErrorKind::TooLong, path, Value::Null, detail)
}

/// A list of `actual` items where `max` are allowed.
#[must_use]
pub fn too_many(path: &Path, actual: usize, max: usize) -> FieldError {
    let detail = format!("must have at most {max} item{}", if max == 1 { "" } else { "s" });
    FieldError::new(ErrorKind::TooMany, path, actual.into(), detail)
}

/// A check that could not be made.
#[must_use]
pub fn internal(path: &Path, detail: impl Into<String>) -> FieldError {
    FieldError::new(ErrorKind::InternalError, path, Value::Null, detail.into())
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Null => "\"null\"".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_upstreams() {
        let path = Path::new("spec").child("replicas");
        let cases = [
            (invalid(&path, -1, "must be positive"), "spec.replicas: Invalid value: -1: must be positive"),
            (required(&path, ""), "spec.replicas: Required value"),
            (required(&path, "must be set"), "spec.replicas: Required value: must be set"),
            (forbidden(&path, "no"), "spec.replicas: Forbidden: no"),
            (
                not_supported(&path, "x", &["a", "b"]),
                "spec.replicas: Unsupported value: \"x\": supported values: \"a\", \"b\"",
            ),
            (duplicate(&path, "a\"b"), "spec.replicas: Duplicate value: \"a\\\"b\""),
            (too_many(&path, 5, 3), "spec.replicas: Too many: 5: must have at most 3 items"),
            (too_long(&path, 63), "spec.replicas: Too long: may not be more than 63 bytes"),
            (not_found(&path, "v"), "spec.replicas: Not found: \"v\""),
            (invalid(&path, Value::Null, ""), "spec.replicas: Invalid value: \"null\""),
            (internal(&path, "boom"), "spec.replicas: Internal error: boom"),
        ];
        for (error, text) in cases {
            assert_eq!(error.to_string(), text);
        }
        assert_eq!(required(&path, "").reason(), "FieldValueRequired");
    }
}
