//! Texts and corners of the decoder.

#![allow(clippy::unwrap_used, missing_docs)]

use proptest::prelude::*;
use serde_json::{Value, json};
use xebec_schema::{DecodeError, FieldValidation, builtin, decode};

fn pod(text: &str, fields: FieldValidation) -> Result<(Value, Vec<String>), DecodeError> {
    decode(text.as_bytes(), &builtin("", "v1", "Pod").unwrap(), fields)
}

fn refused(group: &str, kind: &str, text: &str) -> String {
    let schema = builtin(group, "v1", kind).unwrap();
    decode(text.as_bytes(), &schema, FieldValidation::Strict).unwrap_err().to_string()
}

#[test]
fn unknown_and_repeated_fields_have_upstreams_texts() {
    let text = r#"{"kind":"Pod","spec":{"containers":[{"name":"a","foo":1}],"hostname":"x","hostname":"y"}}"#;
    assert_eq!(
        pod(text, FieldValidation::Strict).unwrap_err().to_string(),
        r#"strict decoding error: unknown field "spec.containers[0].foo", duplicate field "spec.hostname""#
    );
    let (value, warnings) = pod(text, FieldValidation::Warn).unwrap();
    assert_eq!(warnings, [r#"unknown field "spec.containers[0].foo""#, r#"duplicate field "spec.hostname""#]);
    assert_eq!(value["spec"], json!({"containers": [{"name": "a"}], "hostname": "y"}));
    assert_eq!(pod(text, FieldValidation::Ignore).unwrap().1, [] as [&str; 0]);
    assert_eq!(
        pod(r#"{"metadata":{"labels":{"a":"1","a":"2"}},"Kind":"Pod"}"#, FieldValidation::Strict)
            .unwrap_err()
            .to_string(),
        r#"strict decoding error: duplicate field "metadata.labels.a", unknown field "Kind""#
    );
}

#[test]
fn type_errors_are_gos() {
    let cases = [
        (
            "apps",
            "Deployment",
            r#"{"spec":{"replicas":"3"}}"#,
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            "apps",
            "Deployment",
            r#"{"spec":{"replicas":1.5}}"#,
            "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            "",
            "Pod",
            r#"{"spec":{"containers":[{"env":[{"value":1}]}]}}"#,
            "json: cannot unmarshal number into Go struct field EnvVar.spec.containers.env.value of type string",
        ),
        (
            "",
            "Pod",
            r#"{"spec":{"containers":{}}}"#,
            "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            "",
            "Pod",
            r#"{"metadata":{"labels":{"a":1}}}"#,
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            "",
            "Pod",
            r#"{"spec":{"restartPolicy":true}}"#,
            "json: cannot unmarshal bool into Go struct field PodSpec.spec.restartPolicy of type v1.RestartPolicy",
        ),
        ("", "Pod", "[]", "json: cannot unmarshal array into Go value of type v1.Pod"),
        ("", "Secret", r#"{"data":{"a":"*"}}"#, "illegal base64 data at input byte 0"),
        (
            "",
            "Pod",
            r#"{"spec":{"containers":[{"resources":{"limits":{"cpu":"x"}}}]}}"#,
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
    ];
    for (group, kind, text, error) in cases {
        assert_eq!(refused(group, kind, text), error);
    }
}

#[test]
fn values_become_what_go_would_write() {
    let text = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","namespace":"","labels":{},
        "annotations":null,"creationTimestamp":null,"deletionTimestamp":"2024-01-01T02:00:00+02:00"},
        "spec":{"containers":[{"name":"","resources":{"limits":{"cpu":1,"memory":"1024Mi"}},"args":[],
        "securityContext":{"privileged":false}}],"hostNetwork":false,"volumes":[],"securityContext":{}},
        "status":{"startTime":null}}"#;
    let (value, _) = pod(text, FieldValidation::Strict).unwrap();
    let expected = json!({"kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": "a", "deletionTimestamp": "2024-01-01T00:00:00Z"},
        "spec": {"containers": [{"name": "", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
            "securityContext": {"privileged": false}}], "securityContext": {}},
        "status": {}});
    assert_eq!(value, expected);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes, &builtin("", "v1", "Pod").unwrap(), FieldValidation::Strict);
    }

    #[test]
    fn mangled_pods_never_panic(at in 0usize..300, byte in any::<u8>()) {
        let mut text = br#"{"kind":"Pod","metadata":{"labels":{"a":"b"},"creationTimestamp":"2024-01-01T00:00:00Z"},
            "spec":{"containers":[{"name":"a","ports":[{"containerPort":80}],"resources":{"limits":{"cpu":"1"}},
            "livenessProbe":{"httpGet":{"port":"x"},"periodSeconds":3}}],"nodeSelector":{"x":"y"}}}"#.to_vec();
        let at = at % text.len();
        text[at] = byte;
        let schema = builtin("", "v1", "Pod").unwrap();
        if let Ok((value, _)) = decode(&text, &schema, FieldValidation::Ignore) {
            let again = decode(value.to_string().as_bytes(), &schema, FieldValidation::Strict).unwrap().0;
            prop_assert_eq!(again, value);
        }
    }
}
