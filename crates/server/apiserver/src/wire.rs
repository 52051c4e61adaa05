//! Protobuf at the door: bodies become JSON before the verbs see them, answers become protobuf after.
//!
//! JSON is what objects are kept in, so an answer is protobuf only for clients that take nothing else. Custom
//! resources have no protobuf encoding, as upstream has it: 415 for their bodies, 406 for their answers.

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, Response};
use http_body_util::BodyExt;
use serde_json::Value;
use xebec_schema::builtin;
use xebec_types::{GroupVersion, Status};
use xebec_wire::{MEDIA_TYPE, WireError};

use crate::api::Api;
use crate::body::{Body, BodyError};
use crate::request::RequestInfo;
use crate::{negotiate, reply};

const STREAM_TYPE: &str = "application/vnd.kubernetes.protobuf;stream=watch";
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The longest line of a watch that is put together from pieces, in bytes: objects are smaller.
const MAX_LINE: usize = 64 << 20;

/// Turns a protobuf body into the JSON that says the same, and its headers with it. Patches and what goes on to
/// kubelets stay as they are.
///
/// # Errors
/// 400 for what cannot be read, 415 for kinds without a protobuf encoding.
pub fn request(
    method: &Method,
    info: &RequestInfo,
    headers: &mut HeaderMap,
    body: Bytes,
) -> Result<Bytes, Status> {
    let concerned = info.is_resource && !info.long_running() && *method != Method::PATCH && !body.is_empty();
    if !concerned || negotiate::content_type(headers) != MEDIA_TYPE {
        return Ok(body);
    }
    let value = xebec_wire::decode(&body).map_err(|error| match error {
        WireError::UnknownKind { .. } => Status::unsupported_media_type(&negotiate::ACCEPTED),
        error => Status::bad_request(format!("the object provided is unrecognized: {error}")),
    })?;
    headers.insert(CONTENT_TYPE, JSON);
    Ok(value.to_string().into())
}

/// Whether the answer has to be turned into protobuf by [`answer`] because the client takes nothing else. If so,
/// the headers ask for uncompressed JSON from here on.
pub fn wanted(api: &Api, info: &RequestInfo, headers: &mut HeaderMap) -> bool {
    let streamed = info.long_running() && info.verb != "watch";
    if streamed || !headers.contains_key(ACCEPT) || negotiate::wanted(headers, true).is_ok() {
        return false;
    }
    let Some(accept) = negotiate::protobuf_as_json(headers) else { return false };
    let Ok(target) = api.target(info) else { return false };
    if !target.version().schema.typed {
        return false;
    }
    headers.insert(ACCEPT, accept);
    headers.remove(ACCEPT_ENCODING);
    true
}

/// Turns an answer in JSON into protobuf: objects, lists, statuses and streams of watch events.
pub fn answer(response: Response<Body>) -> Response<Body> {
    if response.headers().get(CONTENT_TYPE) != Some(&JSON) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let (body, media) = match body.full().map(|json| object(json)) {
        Some(Ok(bytes)) => (bytes.into(), MEDIA_TYPE),
        Some(Err(error)) => {
            tracing::error!(%error, "an answer has no protobuf encoding");
            return reply::status(&Status::internal(&error));
        }
        None => (events(body), STREAM_TYPE),
    };
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    Response::from_parts(parts, body)
}

fn object(json: &[u8]) -> Result<Vec<u8>, WireError> {
    encode(&serde_json::from_slice(json).unwrap_or_default())
}

fn encode(value: &Value) -> Result<Vec<u8>, WireError> {
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let version = GroupVersion::parse(api_version);
    let schema = version.and_then(|version| builtin(&version.group, &version.version, kind));
    let schema = schema.ok_or_else(|| WireError::UnknownKind {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
    })?;
    xebec_wire::encode(value, &schema, api_version, kind)
}

/// Turns lines of JSON events into protobuf events.
fn events(body: Body) -> Body {
    let lines = (body.into_data_stream(), Vec::new());
    Body::stream(stream::unfold(lines, |(mut pieces, mut buffer)| async move {
        loop {
            let converted = match pieces.next().await? {
                Ok(piece) => convert(&mut buffer, &piece),
                Err(error) => Err(error),
            };
            if !matches!(&converted, Ok(bytes) if bytes.is_empty()) {
                return Some((converted, (pieces, buffer)));
            }
        }
    }))
}

/// The events whose lines `piece` completes; what is left over stays in `buffer`.
fn convert(buffer: &mut Vec<u8>, piece: &[u8]) -> Result<Bytes, BodyError> {
    buffer.extend_from_slice(piece);
    if buffer.len() > MAX_LINE {
        return Err("a watch event is too large".into());
    }
    let end = buffer.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let lines: Vec<u8> = buffer.drain(..end).collect();
    let mut out = Vec::with_capacity(lines.len());
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let event: Value = serde_json::from_slice(line)?;
        let kind = event.get("type").and_then(Value::as_str).unwrap_or_default();
        let object = encode(event.get("object").unwrap_or(&Value::Null))?;
        out.extend(xebec_wire::watch_event(kind, &object));
    }
    Ok(out.into())
}
