//! Building answers.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WARNING, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use serde_json::Value;
use xebec_types::Status;

use crate::body::Body;
use crate::negotiate::Encoding;

/// What handlers answer.
pub type Reply = Result<Response<Body>, Status>;

/// Warnings longer than this are cut; upstream's bound.
const MAX_WARNING: usize = 256;

fn build(code: u16, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// Text, as health checks answer.
pub fn text(code: u16, text: impl Into<Body>) -> Response<Body> {
    build(code, "text/plain; charset=utf-8", text.into())
}

/// JSON bytes in the encoding asked for.
pub fn encoded(code: u16, encoding: Encoding, json: Bytes) -> Response<Body> {
    match encoding {
        Encoding::Json => build(code, "application/json", json.into()),
        Encoding::Yaml => {
            let value: Value = serde_json::from_slice(&json).unwrap_or(Value::Null);
            let yaml = serde_yaml_ng::to_string(&value).unwrap_or_default();
            build(code, "application/yaml", yaml.into())
        }
    }
}

/// JSON bytes.
pub fn json(code: u16, json: impl Into<Bytes>) -> Response<Body> {
    encoded(code, Encoding::Json, json.into())
}

/// A JSON value.
pub fn value(code: u16, value: &Value) -> Response<Body> {
    json(code, value.to_string())
}

/// A JSON value with a media type of its own.
pub fn typed(content_type: &str, json: Bytes) -> Response<Body> {
    let mut response = build(200, "application/json", json.into());
    if let Ok(content_type) = HeaderValue::from_str(content_type) {
        response.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    response
}

/// A stream of watch events.
pub fn stream(body: Body) -> Response<Body> {
    build(200, "application/json", body)
}

/// A Status.
pub fn status(status: &Status) -> Response<Body> {
    let mut response = value(status.code, &status.to_json());
    let headers = response.headers_mut();
    if let Some(seconds) = status.details.as_ref().map(|d| d.retry_after_seconds).filter(|s| *s > 0) {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if status.code == 401 {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"kubernetes\""));
    }
    response
}

/// Adds `Warning: 299` headers.
pub fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings {
        let short: String = warning.chars().take(MAX_WARNING).filter(|c| !c.is_control()).collect();
        let quoted = short.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
}
