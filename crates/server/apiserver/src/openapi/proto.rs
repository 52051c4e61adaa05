//! The protobuf form of `/openapi/v2`: a `Document` of gnostic's `openapiv2/OpenAPIv2.proto`. kubectl reads no other
//! form of v2: it looks among the paths for the PATCH of a kind and its parameter `fieldValidation`, and among the
//! definitions for the schema of a kind.

mod schema;

use serde_json::{Map, Value};

/// What clients ask for. The first has an `@`, which RFC 2045 does not allow in a media type; clients send it still.
const ASKED: [&str; 2] = [
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
];

/// What is answered, whichever was asked for: clients that parse the type of an answer refuse the one with an `@`.
pub(super) const MEDIA_TYPE: &str = ASKED[1];

/// Whether a media type asks for this form.
pub(super) fn asked(kind: &str) -> bool {
    ASKED.contains(&kind)
}

/// Writes a Swagger 2.0 document: `info`, `paths` and `definitions`.
pub(super) fn document(json: &Value) -> Vec<u8> {
    let mut document = Message::default();
    document.text(1, &json["swagger"]);
    document.message(2, |info| {
        info.text(1, &json["info"]["title"]);
        info.text(2, &json["info"]["version"]);
    });
    document.message(8, |paths| {
        for (path, item) in members(&json["paths"]) {
            paths.named(2, path, |value| path_item(value, item));
        }
    });
    document.message(9, |definitions| {
        for (name, json) in members(&json["definitions"]) {
            definitions.named(1, name, |value| schema::schema(value, json));
        }
    });
    document.0
}

fn path_item(out: &mut Message, item: &Value) {
    for (tag, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
        if let Some(json) = item.get(method) {
            out.message(tag, |operation| self::operation(operation, json));
        }
    }
}

fn operation(out: &mut Message, json: &Value) {
    out.text(5, &json["operationId"]);
    for parameter in json["parameters"].as_array().into_iter().flatten() {
        // ParametersItem.parameter, Parameter.non_body_parameter, NonBodyParameter.query_parameter_sub_schema
        out.message(8, |item| {
            item.message(1, |item| item.message(2, |item| item.message(3, |item| query(item, parameter))));
        });
    }
    out.message(9, |responses| {
        for (code, response) in members(&json["responses"]) {
            responses.named(1, code, |value| value.message(1, |out| out.text(1, &response["description"])));
        }
    });
    for (name, value) in members(json).filter(|(name, _)| name.starts_with("x-")) {
        out.named(13, name, |any| any.yaml(value));
    }
}

fn query(out: &mut Message, parameter: &Value) {
    out.text(2, &parameter["in"]);
    out.text(4, &parameter["name"]);
    out.text(6, &parameter["type"]);
    if parameter["uniqueItems"] == true {
        out.truth(20);
    }
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

/// The fields of a message as written so far.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: usize) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn bytes(&mut self, tag: u8, value: &[u8]) {
        self.varint(usize::from(tag) << 3 | 2);
        self.varint(value.len());
        self.0.extend_from_slice(value);
    }

    /// A text that is there and not empty.
    fn text(&mut self, tag: u8, value: &Value) {
        if let Some(text) = value.as_str().filter(|text| !text.is_empty()) {
            self.bytes(tag, text.as_bytes());
        }
    }

    fn number(&mut self, tag: u8, value: usize) {
        self.varint(usize::from(tag) << 3);
        self.varint(value);
    }

    fn truth(&mut self, tag: u8) {
        self.number(tag, 1);
    }

    fn double(&mut self, tag: u8, value: f64) {
        self.varint(usize::from(tag) << 3 | 1);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// The fields of an `Any`, which gnostic fills with YAML.
    fn yaml(&mut self, value: &Value) {
        let yaml = serde_yaml_ng::to_string(value).unwrap_or_default();
        self.bytes(2, yaml.as_bytes());
    }

    fn message(&mut self, tag: u8, fill: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        fill(&mut inner);
        self.bytes(tag, &inner.0);
    }

    /// An entry of a map, which gnostic writes as a message of a name and a value.
    fn named(&mut self, tag: u8, name: &str, fill: impl FnOnce(&mut Self)) {
        self.message(tag, |entry| {
            entry.bytes(1, name.as_bytes());
            entry.message(2, fill);
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn varint(bytes: &mut &[u8]) -> usize {
        let (mut value, mut shift) = (0, 0);
        loop {
            let (byte, rest) = bytes.split_first().unwrap();
            *bytes = rest;
            value |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return value;
            }
        }
    }

    /// The length-delimited fields at a path of tags, those of every repetition.
    pub(super) fn at<'a>(mut bytes: &'a [u8], tags: &[usize]) -> Vec<&'a [u8]> {
        let Some((tag, deeper)) = tags.split_first() else { return vec![bytes] };
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            if key & 7 == 1 {
                bytes = &bytes[8..];
                continue;
            }
            let length = varint(&mut bytes);
            if key & 7 == 0 {
                continue;
            }
            assert_eq!(key & 7, 2);
            let (field, rest) = bytes.split_at(length);
            bytes = rest;
            if key >> 3 == *tag {
                found.extend(at(field, deeper));
            }
        }
        found
    }

    pub(super) fn texts(bytes: &[u8], tags: &[usize]) -> Vec<String> {
        at(bytes, tags).into_iter().map(|text| String::from_utf8(text.to_vec()).unwrap()).collect()
    }

    #[test]
    fn a_patch_says_its_kind_and_parameters() {
        let kind = xebec_types::GroupVersionKind {
            group: "apps".into(),
            version: "v1".into(),
            kind: "Deployment".into(),
        };
        let patch = super::super::operation(&kind, "patch", super::super::Flavour::V2);
        let path = "/apis/apps/v1/namespaces/{namespace}/deployments/{name}";
        let bytes = document(&json!({
            "swagger": "2.0",
            "info": { "title": "Kubernetes", "version": "v1" },
            "paths": { path: { "patch": patch } },
        }));
        assert_eq!(texts(&bytes, &[1]), ["2.0"]);
        assert_eq!(texts(&bytes, &[2, 2]), ["v1"]);
        assert_eq!(texts(&bytes, &[8, 2, 1]), [path]);
        let patch = at(&bytes, &[8, 2, 2, 8])[0];
        let query = [8, 1, 2, 3];
        let field = |tag| texts(patch, &[&query[..], &[tag]].concat());
        assert_eq!(field(2), ["query"; 4]);
        assert_eq!(field(4), ["dryRun", "fieldManager", "fieldValidation", "force"]);
        assert_eq!(field(6), ["string", "string", "string", "boolean"]);
        assert_eq!(texts(patch, &[9, 1, 2, 1, 1]), ["OK"]);
        assert_eq!(texts(patch, &[13, 1]), ["x-kubernetes-action", "x-kubernetes-group-version-kind"]);
        let extension = texts(patch, &[13, 2, 2]);
        assert_eq!(extension[1], "group: apps\nkind: Deployment\nversion: v1\n");
    }

    #[test]
    fn both_spellings_are_asked_for_and_one_is_answered() {
        assert!(ASKED.into_iter().all(asked));
        assert!(!asked("application/json"));
        assert!(!MEDIA_TYPE.contains('@'));
    }
}
