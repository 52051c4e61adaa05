//! `metav1.Status`: the answer to every request that fails, with upstream's reasons, codes and messages
//! (`k8s.io/apimachinery/pkg/api/errors`).

use serde::{Deserialize, Serialize};

use crate::{GroupKind, GroupResource};

/// One of several causes of a failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// Machine-readable reason, as in `FieldValueInvalid`.
    pub reason: String,
    /// For a person.
    pub message: String,
    /// Path of the field; empty when there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// What the failure is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatusDetails {
    /// Object name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// API group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Resource (or kind for `Invalid`).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Object UID.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Causes, when there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// When to try again, in seconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub retry_after_seconds: i32,
}

fn is_zero(n: &i32) -> bool {
    *n == 0
}

/// A failure as the API reports it. Success answers (`DELETE`) are made with [`Status::success`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// CamelCase reason; empty for none.
    pub reason: String,
    /// For a person.
    pub message: String,
    /// What it is about.
    pub details: Option<Box<StatusDetails>>,
}

impl Status {
    /// With code, reason and message, and no details.
    pub fn new(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), message: message.into(), details: None }
    }

    /// The same with details.
    pub fn with_details(mut self, details: StatusDetails) -> Self {
        self.details = Some(Box::new(details));
        self
    }

    fn about(self, resource: &GroupResource, name: &str) -> Self {
        self.with_details(StatusDetails {
            name: name.into(),
            group: resource.group.clone(),
            kind: resource.resource.clone(),
            ..StatusDetails::default()
        })
    }

    /// 404 for an object.
    pub fn not_found(resource: &GroupResource, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{resource} {name:?} not found")).about(resource, name)
    }

    /// 404 for a path that leads nowhere.
    pub fn no_such_resource() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
            .with_details(StatusDetails::default())
    }

    /// 409 for a create of something that exists.
    pub fn already_exists(resource: &GroupResource, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{resource} {name:?} already exists")).about(resource, name)
    }

    /// 409 for a lost race or a wrong precondition.
    pub fn conflict(resource: &GroupResource, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {resource} {name:?}: {why}");
        Self::new(409, "Conflict", message).about(resource, name)
    }

    /// 409 for a stale resourceVersion, in upstream's words.
    pub fn stale(resource: &GroupResource, name: &str) -> Self {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, why)
    }

    /// 409 for a write that was meant for an object of another uid, in upstream's words.
    pub fn other_uid(resource: &GroupResource, name: &str, wanted: &str, found: &str) -> Self {
        let why = format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}");
        Self::conflict(resource, name, &why)
    }

    /// 422 for an object with errors in its fields.
    pub fn invalid(kind: &GroupKind, name: &str, causes: Vec<Cause>) -> Self {
        let text = match causes.as_slice() {
            [] => "<nil>".to_owned(),
            [only] => line(only),
            many => format!("[{}]", many.iter().map(line).collect::<Vec<_>>().join(", ")),
        };
        Self::new(422, "Invalid", format!("{kind} {name:?} is invalid: {text}")).with_details(StatusDetails {
            name: name.into(),
            group: kind.group.clone(),
            kind: kind.kind.clone(),
            causes,
            ..StatusDetails::default()
        })
    }

    /// 403 for something that authorization or admission refuses.
    pub fn forbidden(resource: &GroupResource, name: &str, why: &str) -> Self {
        let message = match (name, resource.resource.as_str()) {
            (_, "") => format!("forbidden: {why}"),
            ("", _) => format!("{resource} is forbidden: {why}"),
            _ => format!("{resource} {name:?} is forbidden: {why}"),
        };
        Self::new(403, "Forbidden", message).about(resource, name)
    }

    /// 401.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(405, "MethodNotAllowed", message).with_details(StatusDetails::default())
    }

    /// 406 with the media types that would do.
    pub fn not_acceptable(accepted: &[&str]) -> Self {
        let message = format!("only the following media types are accepted: {}", accepted.join(", "));
        Self::new(406, "NotAcceptable", message)
    }

    /// 415 with the media types that would do.
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// 410 for a resourceVersion or continue token that is too old.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 413.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(413, "RequestEntityTooLarge", message)
    }

    /// 429 with the seconds to wait.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: i32) -> Self {
        Self::new(429, "TooManyRequests", message)
            .with_details(StatusDetails { retry_after_seconds, ..StatusDetails::default() })
    }

    /// 500.
    pub fn internal(error: impl std::fmt::Display) -> Self {
        let causes = vec![Cause { reason: String::new(), message: error.to_string(), field: String::new() }];
        Self::new(500, "InternalError", format!("Internal error occurred: {error}"))
            .with_details(StatusDetails { causes, ..StatusDetails::default() })
    }

    /// 503.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    /// 504 with the seconds to wait.
    pub fn timeout(message: impl Into<String>, retry_after_seconds: i32) -> Self {
        Self::new(504, "Timeout", format!("Timeout: {}", message.into()))
            .with_details(StatusDetails { retry_after_seconds, ..StatusDetails::default() })
    }

    /// 200, the answer to a finished delete.
    pub fn success(details: StatusDetails) -> Self {
        Self::new(200, "", "").with_details(details)
    }

    /// The JSON object that goes over the wire.
    pub fn to_json(&self) -> serde_json::Value {
        let mut object = serde_json::json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": if self.code < 400 { "Success" } else { "Failure" },
        });
        let mut set = |key: &str, value: serde_json::Value| object[key] = value;
        if !self.message.is_empty() {
            set("message", self.message.clone().into());
        }
        if !self.reason.is_empty() {
            set("reason", self.reason.clone().into());
        }
        if let Some(details) = &self.details {
            set("details", serde_json::json!(details));
        }
        if self.code >= 400 {
            set("code", self.code.into());
        }
        object
    }
}

fn line(cause: &Cause) -> String {
    match cause.field.as_str() {
        "" => cause.message.clone(),
        field => format!("{field}: {}", cause.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_upstreams() {
        let deployments = GroupResource::new("apps", "deployments");
        let status = Status::not_found(&deployments, "web");
        assert_eq!(status.message, r#"deployments.apps "web" not found"#);
        assert_eq!(status.to_json()["details"]["kind"], "deployments");
        let cause = |field: &str| Cause {
            reason: "FieldValueRequired".into(),
            message: "Required value".into(),
            field: field.into(),
        };
        let invalid =
            Status::invalid(&GroupKind::new("", "Pod"), "a", vec![cause("spec.x"), cause("spec.y")]);
        let text = r#"Pod "a" is invalid: [spec.x: Required value, spec.y: Required value]"#;
        assert_eq!(invalid.message, text);
        assert_eq!(invalid.code, 422);
    }
}
