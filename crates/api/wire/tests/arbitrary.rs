//! Arbitrary bytes are read or refused, never a panic.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::json;
use xebec_schema::builtin;
use xebec_wire::{decode, encode};

const KINDS: [(&str, &str, &str); 5] = [
    ("", "v1", "Pod"),
    ("", "v1", "Event"),
    ("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
    ("admission.k8s.io", "v1", "AdmissionReview"),
    ("autoscaling", "v2", "HorizontalPodAutoscaler"),
];

fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let field = |tag: u8, bytes: &[u8]| {
        let mut out = vec![tag << 3 | 2];
        let mut length = bytes.len();
        while length >= 0x80 {
            out.push(length as u8 | 0x80);
            length >>= 7;
        }
        out.push(length as u8);
        [out, bytes.to_vec()].concat()
    };
    let meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
    [b"k8s\0".to_vec(), field(1, &meta), field(2, raw)].concat()
}

proptest! {
    #[test]
    fn bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
        let _ = decode(&[b"k8s\0".as_slice(), &bytes].concat());
        for (group, version, kind) in KINDS {
            let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
            let _ = decode(&envelope(&api_version, kind, &bytes));
        }
    }

    #[test]
    fn damaged_objects_are_read_or_refused(at in 0usize..200, byte in any::<u8>(), cut in 0usize..200) {
        let pod = json!({
            "metadata": {"name": "a", "labels": {"x": "y"}, "creationTimestamp": "2020-01-01T00:00:00Z"},
            "spec": {"containers": [{
                "name": "c", "resources": {"limits": {"cpu": "1"}},
                "livenessProbe": {"httpGet": {"port": "http", "path": "/"}},
            }]},
        });
        let schema = builtin("", "v1", "Pod").unwrap();
        let mut bytes = encode(&pod, &schema, "v1", "Pod").unwrap();
        let length = bytes.len();
        bytes[at % length] = byte;
        let _ = decode(&bytes);
        bytes.truncate(cut);
        let _ = decode(&bytes);
    }
}

#[test]
fn depth_is_bounded() {
    // JSONSchemaProps.not within itself.
    let mut raw = Vec::new();
    for _ in 0..2000 {
        let mut outer = vec![0xe2, 0x01];
        let mut length = raw.len();
        while length >= 0x80 {
            outer.push(length as u8 | 0x80);
            length >>= 7;
        }
        outer.push(length as u8);
        outer.append(&mut raw);
        raw = outer;
    }
    for tag in [&[0x0a][..], &[0x22], &[0x3a], &[0x12]] {
        let mut length = raw.len();
        let mut outer = tag.to_vec();
        while length >= 0x80 {
            outer.push(length as u8 | 0x80);
            length >>= 7;
        }
        outer.push(length as u8);
        outer.append(&mut raw);
        raw = outer;
    }
    let body = envelope("apiextensions.k8s.io/v1", "CustomResourceDefinition", &raw);
    assert!(decode(&body).unwrap_err().to_string().contains("128"));
}
