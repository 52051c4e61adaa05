//! What the client wants to read and what it has written: media types and their parameters.

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use serde_json::Value;
use xebec_types::Status;

/// Media types of every object.
pub const PLAIN: [&str; 2] = ["application/json", "application/yaml"];
/// Media types of objects of built-in kinds.
pub const ACCEPTED: [&str; 3] =
    ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// What becomes of the objects in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// As they are.
    Object,
    /// Rows of a `meta.k8s.io/v1` Table.
    Table,
    /// `meta.k8s.io/v1` PartialObjectMetadata.
    Metadata,
}

/// The answer that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// How it is written.
    pub encoding: Encoding,
    /// What becomes of objects.
    pub shape: Shape,
}

impl Wanted {
    /// Plain JSON.
    pub const JSON: Self = Self { encoding: Encoding::Json, shape: Shape::Object };
}

/// One alternative of an `Accept` header.
pub(crate) struct Media<'a> {
    pub kind: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> Media<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let kind = parts.next().unwrap_or("");
        let parameters =
            parts.filter_map(|part| part.split_once('=')).map(|(k, v)| (k.trim(), v.trim())).collect();
        Self { kind, parameters }
    }

    pub(crate) fn parameter(&self, key: &str) -> &'a str {
        self.parameters.iter().find(|(k, _)| *k == key).map_or("", |(_, v)| v)
    }
}

/// The alternatives of the `Accept` header in the client's order.
pub(crate) fn accepted(headers: &HeaderMap) -> Vec<Media<'_>> {
    let texts = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    texts
        .flat_map(|text| text.split(','))
        .map(|text| Media::parse(text.trim()))
        .filter(|m| !m.kind.is_empty())
        .collect()
}

fn encoding_of(kind: &str) -> Option<Encoding> {
    match kind {
        "application/json" | "*/*" | "application/*" => Some(Encoding::Json),
        "application/yaml" => Some(Encoding::Yaml),
        _ => None,
    }
}

/// Chooses the first alternative that can be served. `shapes` tells whether tables and metadata can.
///
/// # Errors
/// 406 if none can.
pub fn wanted(headers: &HeaderMap, shapes: bool) -> Result<Wanted, Status> {
    let media = accepted(headers);
    if media.is_empty() {
        return Ok(Wanted::JSON);
    }
    for media in &media {
        let Some(encoding) = encoding_of(media.kind) else { continue };
        let meta_v1 = media.parameter("g") == "meta.k8s.io" && media.parameter("v") == "v1";
        let shape = match media.parameter("as") {
            "" => Shape::Object,
            "Table" if shapes && meta_v1 => Shape::Table,
            "PartialObjectMetadata" | "PartialObjectMetadataList" if shapes && meta_v1 => Shape::Metadata,
            _ => continue,
        };
        return Ok(Wanted { encoding, shape });
    }
    Err(Status::not_acceptable(&ACCEPTED))
}

/// The `Accept` header that asks for JSON where the client's asks for protobuf; `None` if it does not. Tables are left
/// out: protobuf does not have them.
pub fn protobuf_as_json(headers: &HeaderMap) -> Option<HeaderValue> {
    let texts = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let wanted: Vec<String> = texts
        .flat_map(|text| text.split(','))
        .map(str::trim)
        .filter(|text| Media::parse(text).parameter("as") != "Table")
        .filter_map(|text| Some(format!("application/json{}", text.strip_prefix(xebec_wire::MEDIA_TYPE)?)))
        .collect();
    if wanted.is_empty() { None } else { HeaderValue::from_str(&wanted.join(",")).ok() }
}

/// The media type of a body without parameters; JSON when there is none, as upstream takes it.
pub fn content_type(headers: &HeaderMap) -> &str {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    match text.split(';').next().unwrap_or("").trim() {
        "" => "application/json",
        kind => kind,
    }
}

/// Turns a YAML body into JSON.
///
/// # Errors
/// 400 with what is wrong with it.
pub fn yaml_to_value(body: &[u8]) -> Result<Value, Status> {
    serde_yaml_ng::from_slice(body)
        .map_err(|error| Status::bad_request(format!("error converting YAML to JSON: {error}")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn want(accept: &str) -> Option<Wanted> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        wanted(&headers, true).ok()
    }

    #[test]
    fn the_first_alternative_that_can_be_served() {
        let table = Wanted { encoding: Encoding::Json, shape: Shape::Table };
        let yaml = Wanted { encoding: Encoding::Yaml, shape: Shape::Object };
        assert_eq!(want("application/json;as=Table;v=v1;g=meta.k8s.io,application/json"), Some(table));
        assert_eq!(want("application/json;as=Table;v=v9;g=meta.k8s.io,application/json"), Some(Wanted::JSON));
        assert_eq!(want("application/vnd.kubernetes.protobuf,application/json"), Some(Wanted::JSON));
        assert_eq!(want("application/vnd.kubernetes.protobuf"), None);
        assert_eq!(want("*/*"), Some(Wanted::JSON));
        assert_eq!(want("application/yaml"), Some(yaml));
        assert_eq!(wanted(&HeaderMap::new(), true).unwrap(), Wanted::JSON);
    }
}
