//! Protobuf bodies and answers, through the in-process door.
#![allow(clippy::unwrap_used)]

mod common;

use bytes::Bytes;
use common::TestServer;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use xebec_apiserver::body::Body;
use xebec_types::GroupVersion;
use xebec_wire::MEDIA_TYPE;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn protobuf(value: &Value) -> Vec<u8> {
    let (api_version, kind) = (value["apiVersion"].as_str().unwrap(), value["kind"].as_str().unwrap());
    let version = GroupVersion::parse(api_version).unwrap();
    let schema = xebec_schema::builtin(&version.group, &version.version, kind).unwrap();
    xebec_wire::encode(value, &schema, api_version, kind).unwrap()
}

async fn send(server: &TestServer, method: &str, path: &str, accept: &str, body: Vec<u8>) -> Response<Body> {
    let request = Request::builder().method(method).uri(path).header("accept", accept);
    let request = request.header("content-type", MEDIA_TYPE).header("accept-encoding", "gzip");
    server.raw(request.body(Full::new(Bytes::from(body))).unwrap()).await
}

async fn decoded(response: Response<Body>) -> (StatusCode, Value) {
    assert_eq!(response.headers()["content-type"], MEDIA_TYPE);
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, xebec_wire::decode(&bytes).unwrap())
}

#[tokio::test]
async fn bodies_may_be_protobuf() {
    let server = TestServer::start().await;
    let both = format!("{MEDIA_TYPE},application/json");
    let space = protobuf(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}}));
    let (code, made) = common::json(send(&server, "POST", "/api/v1/namespaces", &both, space).await).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(made["metadata"]["name"], "x");
    assert!(made["metadata"]["uid"].is_string());

    let path = "/apis/apps/v1/namespaces/x/deployments";
    let deployment = protobuf(&json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "labels": {"app": "d"}},
        "spec": {
            "replicas": 0, "selector": {"matchLabels": {"app": "d"}},
            "template": {
                "metadata": {"labels": {"app": "d"}},
                "spec": {"containers": [{
                    "name": "c", "image": "i", "resources": {"requests": {"cpu": "100m"}},
                    "livenessProbe": {"httpGet": {"port": 80}},
                }]},
            },
        },
    }));
    let (code, made) = common::json(send(&server, "POST", path, &both, deployment).await).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(made["spec"]["replicas"], 0, "an explicit zero is no default");
    assert_eq!(made["spec"]["strategy"]["type"], "RollingUpdate");
    let container = &made["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["livenessProbe"]["httpGet"]["port"], 80);
    assert_eq!(container["terminationMessagePath"], "/dev/termination-log");

    let (_, scale) = server.get(&format!("{path}/d/scale")).await;
    let mut scale = scale;
    scale["spec"]["replicas"] = 3.into();
    let answer = send(&server, "PUT", &format!("{path}/d/scale"), &both, protobuf(&scale)).await;
    let (code, scaled) = common::json(answer).await;
    assert_eq!((code.as_u16(), &scaled["spec"]["replicas"]), (200, &json!(3)));

    let options =
        json!({"apiVersion": "apps/v1", "kind": "DeleteOptions", "preconditions": {"uid": "other"}});
    let answer = send(&server, "DELETE", &format!("{path}/d"), &both, protobuf(&options)).await;
    assert_eq!(answer.status(), 409, "the preconditions are read");
    let options = json!({"apiVersion": "apps/v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0});
    let answer = send(&server, "DELETE", &format!("{path}/d"), &both, protobuf(&options)).await;
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn nonsense_and_other_kinds_are_refused() {
    let server = TestServer::start().await;
    let (code, status) = common::json(send(&server, "POST", MAPS, "*/*", b"nonsense".to_vec()).await).await;
    assert_eq!((code.as_u16(), &status["reason"]), (400, &json!("BadRequest")), "{status}");
    let secret = protobuf(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}));
    assert_eq!(send(&server, "POST", MAPS, "*/*", secret).await.status(), 400);
    let custom = b"k8s\0\x0a\x11\x0a\x07acme/v1\x12\x06Widget".to_vec();
    assert_eq!(send(&server, "POST", MAPS, "*/*", custom).await.status(), 415);
    let patch = send(&server, "PATCH", &format!("{MAPS}/a"), "*/*", b"k8s\0".to_vec()).await;
    assert_eq!(patch.status(), 415);
    let table = format!("{MEDIA_TYPE};as=Table;v=v1;g=meta.k8s.io");
    assert_eq!(send(&server, "GET", MAPS, &table, Vec::new()).await.status(), 406);
}

#[tokio::test]
async fn answers_are_protobuf_for_those_who_take_nothing_else() {
    let server = TestServer::start().await;
    let big = "x".repeat(300_000);
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": big},
    });
    let (code, made) = decoded(send(&server, "POST", MAPS, MEDIA_TYPE, protobuf(&map)).await).await;
    assert_eq!((code.as_u16(), &made["data"]), (201, &map["data"]));
    let (_, json) = server.get(&format!("{MAPS}/a")).await;
    let get = || send(&server, "GET", "/api/v1/namespaces/default/configmaps/a", MEDIA_TYPE, Vec::new());
    assert_eq!(decoded(get().await).await, (StatusCode::OK, json.clone()));
    let (_, list) = decoded(send(&server, "GET", MAPS, MEDIA_TYPE, Vec::new()).await).await;
    assert_eq!((&list["kind"], &list["items"][0]["metadata"]), (&json!("ConfigMapList"), &json["metadata"]));
    let (code, status) =
        decoded(send(&server, "GET", &format!("{MAPS}/none"), MEDIA_TYPE, Vec::new()).await).await;
    assert_eq!((code.as_u16(), &status["reason"]), (404, &json!("NotFound")));

    let path = format!("{MAPS}?watch=true");
    let watch = send(&server, "GET", &path, MEDIA_TYPE, Vec::new()).await;
    assert_eq!(watch.headers()["content-type"], format!("{MEDIA_TYPE};stream=watch"));
    let mut body = watch.into_body();
    let mut buffer: Vec<u8> = Vec::new();
    let whole = |buffer: &[u8]| {
        let length = buffer.first_chunk::<4>()?;
        buffer.get(4..4 + u32::from_be_bytes(*length) as usize).map(<[u8]>::to_vec)
    };
    let event = loop {
        if let Some(event) = whole(&buffer) {
            break event;
        }
        let frame = tokio::time::timeout(std::time::Duration::from_secs(10), body.frame());
        let frame = frame.await.expect("an event within ten seconds").unwrap().unwrap();
        buffer.extend_from_slice(&frame.into_data().unwrap());
    };
    assert!(event.starts_with(b"\x0a\x05ADDED\x12"));
    let at = event.windows(4).position(|window| window == b"k8s\0").unwrap();
    assert_eq!(xebec_wire::decode(&event[at..]).unwrap(), json);
}
