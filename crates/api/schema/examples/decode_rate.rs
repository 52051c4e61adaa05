//! How long decoding and defaulting one Pod takes: `cargo run --release -p xebec-schema --example decode_rate`.

use std::hint::black_box;
use std::time::Instant;

use serde_json::{Map, Value, json};
use xebec_schema::{DefaultFn, FieldValidation, TypeDefaults, builtin, decode, default};

const ROUNDS: u32 = 20_000;

fn pod() -> String {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web-5d8f6b7c9-abcde", "namespace": "default", "generateName": "web-5d8f6b7c9-",
            "labels": {"app": "web", "pod-template-hash": "5d8f6b7c9", "tier": "front"},
            "annotations": {"example.com/checksum": "0123456789abcdef0123456789abcdef"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d8f6b7c9",
                "uid": "6f1f2c1e-7f52-4c86-9a41-3a1c6f0b8a11", "controller": true, "blockOwnerDeletion": true}]},
        "spec": {"restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
            "serviceAccountName": "default", "nodeSelector": {"kubernetes.io/os": "linux"},
            "containers": [{"name": "web", "image": "registry.example.com/web:1.2.3", "args": ["--port", "8080"],
                "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                "env": [{"name": "A", "value": "1"}, {"name": "NODE", "valueFrom": {"fieldRef":
                    {"fieldPath": "spec.nodeName", "apiVersion": "v1"}}}],
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
                "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 10},
                "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}, "initialDelaySeconds": 2},
                "volumeMounts": [{"name": "data", "mountPath": "/data"}], "imagePullPolicy": "IfNotPresent"}],
            "volumes": [{"name": "data", "emptyDir": {}}],
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": 300}]}
    })
    .to_string()
}

fn main() {
    let text = pod();
    let Some(schema) = builtin("", "v1", "Pod") else { return };
    let set: DefaultFn = |map: &mut Map<String, Value>| {
        map.entry("terminationMessagePath").or_insert_with(|| "/dev/termination-log".into());
    };
    let types = TypeDefaults::new([("core.v1.Container", set)]);
    let time = |name: &str, work: &dyn Fn()| {
        let start = Instant::now();
        for _ in 0..ROUNDS {
            work();
        }
        println!("{name}: {:?} for {} bytes", start.elapsed() / ROUNDS, text.len());
    };
    time("serde_json alone", &|| {
        let _ = black_box(serde_json::from_str::<Value>(&text));
    });
    time("decode", &|| {
        let _ = black_box(decode(text.as_bytes(), &schema, FieldValidation::Strict));
    });
    time("decode and default", &|| {
        if let Ok((mut value, _)) = decode(text.as_bytes(), &schema, FieldValidation::Strict) {
            default(&mut value, &schema, &types);
            black_box(value);
        }
    });
}
