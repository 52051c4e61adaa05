//! The verbs over built-in kinds, through the in-process door.
#![allow(clippy::unwrap_used)]

mod common;

use common::TestServer;
use http::Method;
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"v": value}},
        "data": {"k": value}})
}

#[tokio::test]
async fn an_object_lives_and_dies() {
    let server = TestServer::start().await;
    let (code, made) = server.post(MAPS, map("a", "1")).await;
    assert_eq!(code, 201, "{made}");
    let meta = &made["metadata"];
    assert_eq!((&meta["name"], &meta["namespace"]), (&json!("a"), &json!("default")));
    assert!(meta["uid"].as_str().unwrap().len() == 36 && meta["creationTimestamp"].is_string());
    let (code, again) = server.post(MAPS, map("a", "1")).await;
    assert_eq!((code.as_u16(), &again["reason"]), (409, &json!("AlreadyExists")));
    assert_eq!(again["message"], "configmaps \"a\" already exists");

    let (code, got) = server.get(&format!("{MAPS}/a")).await;
    assert_eq!((code.as_u16(), &got), (200, &made));

    let mut changed = made.clone();
    changed["data"]["k"] = "2".into();
    let (code, updated) = server.put(&format!("{MAPS}/a"), changed.clone()).await;
    assert_eq!(code, 200, "{updated}");
    assert_ne!(updated["metadata"]["resourceVersion"], meta["resourceVersion"]);
    assert_eq!(updated["metadata"]["uid"], meta["uid"]);
    let (code, stale) = server.put(&format!("{MAPS}/a"), changed).await;
    assert_eq!((code.as_u16(), &stale["reason"]), (409, &json!("Conflict")));
    let (_, same) = server.put(&format!("{MAPS}/a"), updated.clone()).await;
    assert_eq!(same, updated, "nothing changed, nothing is written");

    let (code, patched) = server.merge(&format!("{MAPS}/a"), json!({"data": {"k": null, "l": "3"}})).await;
    assert_eq!((code.as_u16(), &patched["data"]), (200, &json!({"l": "3"})));

    let (code, gone) = server.delete(&format!("{MAPS}/a"), Value::Null).await;
    assert_eq!((code.as_u16(), &gone["status"]), (200, &json!("Success")));
    let (code, missing) = server.get(&format!("{MAPS}/a")).await;
    assert_eq!((code.as_u16(), &missing["message"]), (404, &json!("configmaps \"a\" not found")));
}

#[tokio::test]
async fn what_is_refused_is_told_in_upstreams_words() {
    let server = TestServer::start().await;
    let cases = [
        (map("A", "1"), 422, "ConfigMap \"A\" is invalid: metadata.name: Invalid value: \"A\""),
        (json!({"metadata": {}}), 422, "metadata.name: Required value: name or generateName is required"),
        (
            json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "x"}}),
            400,
            "does not match the expected",
        ),
        (
            json!({"metadata": {"name": "x", "namespace": "other"}}),
            400,
            "the namespace of the provided object",
        ),
        (
            json!({"metadata": {"name": "x", "resourceVersion": "5"}}),
            500,
            "resourceVersion should not be set",
        ),
        (json!({"metadata": {"name": "x"}, "data": {"a": 1}}), 400, "cannot unmarshal number"),
    ];
    for (body, code, text) in cases {
        let (status, answer) = server.post(MAPS, body).await;
        assert_eq!(status, code, "{answer}");
        assert!(answer["message"].as_str().unwrap().contains(text), "{answer}");
    }
    let (code, answer) = server.post("/api/v1/namespaces/nowhere/configmaps", map("a", "1")).await;
    assert_eq!(
        (code.as_u16(), answer["message"].as_str().unwrap()),
        (404, "namespaces \"nowhere\" not found")
    );
    let (code, _) = server.get("/api/v1/namespaces/default/nothings").await;
    assert_eq!(code, 404);
    let (code, answer) = server.get(&format!("{MAPS}?fieldSelector=data.k=1")).await;
    assert_eq!(
        (code.as_u16(), answer["message"].as_str().unwrap()),
        (400, "field label not supported: data.k")
    );
    let (code, _) = server.send(Method::POST, MAPS, "application/cbor", "k8s".into()).await;
    assert_eq!(code, 415);
    let (code, _) = server.get_as(MAPS, "application/cbor").await;
    assert_eq!(code, 406);
    let (code, _) =
        server.send(Method::PATCH, &format!("{MAPS}/a"), "application/apply-patch+yaml", "{}".into()).await;
    assert_eq!(code, 415);
}

#[tokio::test]
async fn unknown_fields_warn_or_are_refused() {
    let server = TestServer::start().await;
    let body = json!({"metadata": {"name": "x"}, "nonsense": 1});
    let (code, answer) = server.post(&format!("{MAPS}?fieldValidation=Strict"), body.clone()).await;
    assert_eq!(code, 400);
    assert!(
        answer["message"].as_str().unwrap().contains("strict decoding error: unknown field \"nonsense\"")
    );
    let request = http::Request::post(format!("{MAPS}?dryRun=All"))
        .body(http_body_util::Full::new(body.to_string().into()))
        .unwrap();
    let response = server.raw(request).await;
    assert_eq!(response.status(), 201);
    assert_eq!(response.headers()["warning"], "299 - \"unknown field \\\"nonsense\\\"\"");
    assert_eq!(server.get(&format!("{MAPS}/x")).await.0, 404, "a dry run stores nothing");
}

#[tokio::test]
async fn deprecated_kinds_warn_whatever_is_asked() {
    let server = TestServer::start().await;
    for path in ["/api/v1/endpoints", "/api/v1/namespaces/default/endpoints"] {
        let request = http::Request::get(path).body(http_body_util::Full::default()).unwrap();
        let response = server.raw(request).await;
        let warnings: Vec<_> = response.headers().get_all("warning").iter().collect();
        assert_eq!(
            warnings,
            ["299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\""]
        );
    }
}

#[tokio::test]
async fn yaml_goes_in_and_out() {
    let server = TestServer::start().await;
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: y}\ndata: {a: b}\n";
    let (code, _) = server.send(Method::POST, MAPS, "application/yaml", yaml.into()).await;
    assert_eq!(code, 201);
    let (_, text) = server.get_as(&format!("{MAPS}/y"), "application/yaml").await;
    assert!(text.as_str().unwrap().contains("kind: ConfigMap"), "{text}");
}

#[tokio::test]
async fn octals_in_yaml_are_numbers() {
    let server = TestServer::start().await;
    server.post("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    let yaml = "metadata: {name: p, labels: {mode: 0400}}\nspec:\n  containers: [{name: c, image: i}]\n  \
                volumes: [{name: v, secret: {secretName: s, defaultMode: 0400}}]\n";
    let pods = "/api/v1/namespaces/default/pods";
    let (code, pod) = server.send(Method::POST, pods, "application/yaml", yaml.into()).await;
    assert_eq!(code, 201, "{pod}");
    assert_eq!(pod["spec"]["volumes"][0]["secret"]["defaultMode"], 256);
    assert_eq!(pod["metadata"]["labels"]["mode"], "0400");
    let json = json!({"metadata": {"name": "q"}, "spec": {"terminationGracePeriodSeconds": "010"}});
    assert_eq!(server.post(pods, json).await.0, 400, "JSON has no octals");
}

#[tokio::test]
async fn generated_names_differ() {
    let server = TestServer::start().await;
    let body = json!({"metadata": {"generateName": "gen-"}});
    let (_, one) = server.post(MAPS, body.clone()).await;
    let (_, two) = server.post(MAPS, body).await;
    let name = |o: &Value| o["metadata"]["name"].as_str().unwrap().to_owned();
    assert_ne!(name(&one), name(&two));
    assert_eq!(name(&one).len(), "gen-".len() + 5);
}

#[tokio::test]
async fn lists_are_pages_of_one_state() {
    let server = TestServer::start().await;
    for n in 0..7 {
        server.post(MAPS, map(&format!("m{n}"), if n % 2 == 0 { "even" } else { "odd" })).await;
    }
    let (_, all) = server.get(MAPS).await;
    assert_eq!((&all["kind"], all["items"].as_array().unwrap().len()), (&json!("ConfigMapList"), 7));
    let (_, first) = server.get(&format!("{MAPS}?limit=3")).await;
    assert_eq!(first["metadata"]["remainingItemCount"], 4);
    server.post(MAPS, map("m3a", "late")).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let (_, second) = server.get(&format!("{MAPS}?limit=10&continue={token}")).await;
    let names: Vec<_> =
        second["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["m3", "m4", "m5", "m6"], "the state of the first page");
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert_eq!(second["metadata"].get("continue"), None);
    let (code, expired) = server.get(&format!("{MAPS}?limit=10&continue={token}")).await;
    assert_eq!((code.as_u16(), &expired["reason"]), (410, &json!("Expired")));
    let token = expired["metadata"]["continue"].as_str().unwrap();
    let (_, rest) = server.get(&format!("{MAPS}?continue={token}")).await;
    assert_eq!(rest["items"].as_array().unwrap().len(), 5, "goes on with what there is now");

    let (_, odd) = server.get(&format!("{MAPS}?labelSelector=v%3Dodd")).await;
    assert_eq!(odd["items"].as_array().unwrap().len(), 3);
    let (_, one) = server.get("/api/v1/configmaps?fieldSelector=metadata.name%3Dm4").await;
    assert_eq!(one["items"].as_array().unwrap().len(), 1);
    let (code, future) = server.get(&format!("{MAPS}?resourceVersion=0&resourceVersionMatch=Exact")).await;
    assert_eq!(code, 422, "{future}");
    let (code, _) = server.delete(&format!("{MAPS}?labelSelector=v%3Dodd"), Value::Null).await;
    assert_eq!(code, 200);
    assert_eq!(server.get(MAPS).await.1["items"].as_array().unwrap().len(), 5);
}

#[tokio::test]
async fn tables_and_bare_metadata() {
    let server = TestServer::start().await;
    server.post(MAPS, map("t", "1")).await;
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    for path in [MAPS.to_owned(), format!("{MAPS}/t")] {
        let (_, table) = server.get_as(&path, accept).await;
        assert_eq!(table["kind"], "Table", "{table}");
        assert_eq!(table["columnDefinitions"][0]["name"], "Name");
        assert_eq!(table["rows"][0]["cells"][0], "t");
        assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    }
    let accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let (_, list) = server.get_as(MAPS, accept).await;
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["items"][0].get("data"), None);
}

#[tokio::test]
async fn finalizers_and_preconditions_hold_an_object() {
    let server = TestServer::start().await;
    let path = format!("{MAPS}/f");
    let mut body = map("f", "1");
    body["metadata"]["finalizers"] = json!(["example.com/hold"]);
    let (_, made) = server.post(MAPS, body).await;
    let (code, refused) = server.delete(&path, json!({"preconditions": {"uid": "other"}})).await;
    assert_eq!(code, 409);
    let text = r#"Operation cannot be fulfilled on ConfigMap "f": the UID in the precondition (other) does not match"#;
    assert!(refused["message"].as_str().unwrap().starts_with(text), "{refused}");
    let (code, marked) = server.delete(&path, json!({"propagationPolicy": "Foreground"})).await;
    assert_eq!(code, 200);
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(marked["metadata"]["finalizers"], json!(["example.com/hold", "foregroundDeletion"]));
    let (code, refused) =
        server.merge(&path, json!({"metadata": {"finalizers": ["example.com/hold", "example.com/b"]}})).await;
    assert_eq!(code, 422, "{refused}");
    let (code, last) = server.merge(&path, json!({"metadata": {"finalizers": null}})).await;
    assert_eq!((code.as_u16(), &last["metadata"]["uid"]), (200, &made["metadata"]["uid"]));
    assert_eq!(server.get(&path).await.0, 404);
}

#[tokio::test]
async fn subresources_write_their_part() {
    let server = TestServer::start().await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let body = json!({"metadata": {"name": "d"}, "spec": {
        "replicas": 2, "selector": {"matchLabels": {"app": "d"}},
        "template": {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let (code, made) = server.post(path, body).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(made["metadata"]["generation"], 1);
    let path = format!("{path}/d");
    let (code, scale) = server.get(&format!("{path}/scale")).await;
    assert_eq!((code.as_u16(), &scale["spec"]["replicas"]), (200, &json!(2)));
    assert_eq!(scale["status"]["selector"], "app=d");
    let (code, scale) = server.merge(&format!("{path}/scale"), json!({"spec": {"replicas": 5}})).await;
    assert_eq!((code.as_u16(), &scale["spec"]["replicas"]), (200, &json!(5)), "{scale}");
    let (_, now) = server.get(&path).await;
    assert_eq!((&now["spec"]["replicas"], &now["metadata"]["generation"]), (&json!(5), &json!(2)));
    let status = json!({"status": {"replicas": 3}, "spec": {"replicas": 9}});
    let (code, now) = server.merge(&format!("{path}/status"), status).await;
    assert_eq!(code, 200, "{now}");
    assert_eq!((&now["spec"]["replicas"], &now["status"]["replicas"]), (&json!(5), &json!(3)));
    assert_eq!(now["metadata"]["generation"], 2);
    let strategic = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "j"}]}}}});
    let kind = "application/strategic-merge-patch+json";
    let (code, now) = server.send(Method::PATCH, &path, kind, strategic.to_string()).await;
    assert_eq!(code, 200, "{now}");
    assert_eq!(now["spec"]["template"]["spec"]["containers"][0]["image"], "j");
}
