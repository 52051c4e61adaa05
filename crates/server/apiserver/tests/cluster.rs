//! What the server offers beside plain objects: definitions, discovery, RBAC, reviews, tokens, bindings.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{TestServer, json as read};
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use tower::ServiceExt;
use xebec_auth::UserInfo;

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const BOATS: &str = "/apis/example.com/v1/namespaces/default/boats";

fn boats() -> Value {
    json!({"metadata": {"name": "boats.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced",
        "names": {"kind": "Boat", "plural": "boats", "singular": "boat", "shortNames": ["bt"]},
        "versions": [{"name": "v1", "served": true, "storage": true,
            "subresources": {"status": {}, "scale": {
                "specReplicasPath": ".spec.oars", "statusReplicasPath": ".status.oars"}},
            "additionalPrinterColumns": [{"name": "Oars", "type": "integer", "jsonPath": ".spec.oars"}],
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "properties": {
                    "oars": {"type": "integer", "minimum": 1, "default": 2},
                    "name": {"type": "string", "maxLength": 5}}},
                "status": {"type": "object", "properties": {"oars": {"type": "integer"}}}}}}}]}})
}

#[tokio::test]
async fn a_definition_becomes_a_resource_and_takes_its_objects_along() {
    let server = TestServer::start().await;
    assert_eq!(server.get(BOATS).await.0, 404);
    let (code, made) = server.post(CRDS, boats()).await;
    assert_eq!(code, 201, "{made}");
    let (code, boat) =
        server.post(BOATS, json!({"metadata": {"name": "a"}, "spec": {"name": "x"}, "junk": 1})).await;
    assert_eq!(code, 201, "served as soon as the definition is answered: {boat}");
    assert_eq!(
        (&boat["spec"]["oars"], boat.get("junk"), &boat["apiVersion"]),
        (&json!(2), None, &json!("example.com/v1"))
    );
    assert_eq!(boat["metadata"]["generation"], 1);
    let (code, bad) =
        server.post(BOATS, json!({"metadata": {"name": "b"}, "spec": {"oars": 0, "name": "too long"}})).await;
    assert_eq!(code, 422);
    assert!(bad["message"].as_str().unwrap().contains("spec.oars: Invalid value: 0"), "{bad}");
    let (_, table) = server.get_as(BOATS, "application/json;as=Table;v=v1;g=meta.k8s.io").await;
    assert_eq!(table["columnDefinitions"][1]["name"], "Oars", "{table}");
    assert_eq!(table["rows"][0]["cells"], json!(["a", 2]));
    let (code, _) = server.merge(&format!("{BOATS}/a/status"), json!({"status": {"oars": 1}})).await;
    assert_eq!(code, 200);
    let (code, scale) = server.merge(&format!("{BOATS}/a/scale"), json!({"spec": {"replicas": 7}})).await;
    assert_eq!((code.as_u16(), &scale["status"]["replicas"]), (200, &json!(1)), "{scale}");
    let kind = "application/strategic-merge-patch+json";
    let (code, _) = server.send(http::Method::PATCH, &format!("{BOATS}/a"), kind, "{}".into()).await;
    assert_eq!(code, 415);
    let (_, list) = server.get("/apis/example.com/v1").await;
    assert_eq!(list["resources"][0]["shortNames"], json!(["bt"]));
    let (code, document) = server.get("/openapi/v3/apis/example.com/v1").await;
    assert_eq!(code, 200);
    assert!(document["components"]["schemas"]["com.example.v1.Boat"]["properties"]["spec"].is_object());

    let mut watch = server.watch(&format!("{BOATS}?watch=true")).await;
    assert_eq!(watch.told().await, "ADDED a");
    let mut definitions = server.watch(&format!("{CRDS}?watch=true")).await;
    assert_eq!(definitions.told().await, "ADDED boats.example.com");
    let (code, _) = server.delete(&format!("{CRDS}/boats.example.com"), Value::Null).await;
    assert_eq!(code, 200);
    assert_eq!(watch.told().await, "DELETED a");
    while definitions.told().await != "DELETED boats.example.com" {}
    assert_eq!(watch.next().await, None, "its watches end with the resource");
    assert_eq!(server.get(BOATS).await.0, 404);
}

#[tokio::test]
async fn roles_are_in_force_when_they_are_answered() {
    let server = TestServer::start().await;
    let ann =
        UserInfo { name: "ann".into(), groups: vec!["system:authenticated".into()], ..UserInfo::default() };
    let get = |path: &'static str| {
        let door = server.server.service(ann.clone());
        async move {
            read(
                door.oneshot(Request::get(path).body(Full::<bytes::Bytes>::default()).unwrap())
                    .await
                    .unwrap(),
            )
            .await
        }
    };
    let (code, refused) = get("/api/v1/namespaces/default/pods").await;
    assert_eq!(code, 403);
    assert_eq!(
        refused["message"],
        "pods is forbidden: User \"ann\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    let binding = json!({"metadata": {"name": "ann"}, 
        "subjects": [{"kind": "User", "name": "ann", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}});
    let (code, made) =
        server.post("/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings", binding).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(get("/api/v1/namespaces/default/pods").await.0, 200);
    assert_eq!(get("/api/v1/namespaces/default/secrets").await.0, 403);
    assert_eq!(get("/version").await.0, 200);
    let review = json!({"spec": {"user": "ann", "resourceAttributes": {
        "verb": "get", "resource": "pods", "namespace": "default"}}});
    let (code, answer) = server.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", review).await;
    assert_eq!((code.as_u16(), &answer["status"]["allowed"]), (201, &json!(true)), "{answer}");
    let (_, me) = server.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", json!({})).await;
    assert_eq!(me["status"]["userInfo"]["username"], "admin");
    let request = Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews")
        .header("impersonate-user", "bob")
        .body(Full::from("{}"))
        .unwrap();
    let (_, bob) = read(server.raw(request).await).await;
    assert_eq!(bob["status"]["userInfo"]["username"], "bob");
}

#[tokio::test]
async fn tokens_are_issued_and_reviewed() {
    let server = TestServer::start().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    server.post(accounts, json!({"metadata": {"name": "app"}})).await;
    let (code, token) =
        server.post(&format!("{accounts}/app/token"), json!({"spec": {"expirationSeconds": 600}})).await;
    assert_eq!(code, 201, "{token}");
    let review = json!({"spec": {"token": token["status"]["token"]}});
    let (_, answer) = server.post("/apis/authentication.k8s.io/v1/tokenreviews", review.clone()).await;
    assert_eq!(answer["status"]["user"]["username"], "system:serviceaccount:default:app", "{answer}");
    server.delete(&format!("{accounts}/app"), Value::Null).await;
    let (_, answer) = server.post("/apis/authentication.k8s.io/v1/tokenreviews", review).await;
    assert_eq!(answer["status"].get("authenticated"), None, "{answer}");
    let (code, _) = server.post(&format!("{accounts}/gone/token"), json!({})).await;
    assert_eq!(code, 404);
}

#[tokio::test]
async fn pods_are_bound_once_and_end_gracefully() {
    let server = TestServer::start().await;
    server.post("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let (code, made) = server.post(pods, pod).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(made["status"]["phase"], "Pending");
    let bind = |node: &str| {
        json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"},
        "target": {"kind": "Node", "name": node}})
    };
    let (code, answer) = server.post(&format!("{pods}/p/binding"), bind("n1")).await;
    assert_eq!((code.as_u16(), &answer["status"]), (201, &json!("Success")), "{answer}");
    let (code, answer) = server.post(&format!("{pods}/p/binding"), bind("n2")).await;
    assert_eq!(code, 409);
    assert!(
        answer["message"].as_str().unwrap().contains("pod p is already assigned to node \"n1\""),
        "{answer}"
    );
    let (_, list) = server.get(&format!("{pods}?fieldSelector=spec.nodeName%3Dn1")).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    assert_eq!(list["items"][0]["status"]["conditions"][0]["type"], "PodScheduled");
    assert_eq!(list["items"][0]["metadata"]["generation"], 1, "a binding changes nothing that is wanted");
    let (code, marked) = server.delete(&format!("{pods}/p"), Value::Null).await;
    assert_eq!(
        (code.as_u16(), &marked["metadata"]["deletionGracePeriodSeconds"]),
        (200, &json!(30)),
        "{marked}"
    );
    let (_, sooner) = server.delete(&format!("{pods}/p"), json!({"gracePeriodSeconds": 5})).await;
    assert_eq!(sooner["metadata"]["deletionGracePeriodSeconds"], 5);
    let (code, _) = server.delete(&format!("{pods}/p"), json!({"gracePeriodSeconds": 0})).await;
    assert_eq!(code, 200);
    assert_eq!(server.get(&format!("{pods}/p")).await.0, 404);
}

#[tokio::test]
async fn namespaces_end_when_their_finalizers_do() {
    let server = TestServer::start().await;
    let (code, made) = server.post("/api/v1/namespaces", json!({"metadata": {"name": "n"}})).await;
    assert_eq!((code.as_u16(), &made["status"]["phase"]), (201, &json!("Active")), "{made}");
    let (_, going) = server.delete("/api/v1/namespaces/n", Value::Null).await;
    assert_eq!(going["status"]["phase"], "Terminating");
    let (code, refused) =
        server.post("/api/v1/namespaces/n/configmaps", json!({"metadata": {"name": "x"}})).await;
    assert_eq!(code, 403, "{refused}");
    let mut done = going.clone();
    done["spec"]["finalizers"] = json!([]);
    let (code, answer) = server.put("/api/v1/namespaces/n/finalize", done).await;
    assert_eq!(code, 200, "{answer}");
    assert_eq!(server.get("/api/v1/namespaces/n").await.0, 404);
}

#[tokio::test]
async fn health_version_and_metrics() {
    let server = TestServer::start().await;
    for path in ["/healthz", "/livez", "/readyz", "/readyz/ping"] {
        assert_eq!(server.get(path).await, (http::StatusCode::OK, json!("ok")), "{path}");
    }
    let (_, verbose) = server.get("/readyz?verbose").await;
    assert!(verbose.as_str().unwrap().contains("[+]poststarthook/bootstrap ok"), "{verbose}");
    let (_, version) = server.get("/version").await;
    assert!(version["gitVersion"].as_str().unwrap().starts_with("v1.36."));
    let (_, metrics) = server.get("/metrics").await;
    assert!(metrics.as_str().unwrap().contains("apiserver_request_total{verb=\"GET\""), "{metrics}");
}

/// Drops what a cluster of the first step does not have, and what differs for good reasons.
fn known(upstream: &Value, ours: &Value) -> Vec<Value> {
    let names: Vec<&Value> = ours["resources"].as_array().unwrap().iter().map(|r| &r["name"]).collect();
    let mut list: Vec<Value> = upstream["resources"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|r| names.contains(&&r["name"]))
        .cloned()
        .collect();
    for item in &mut list {
        item.as_object_mut().unwrap().remove("storageVersionHash");
    }
    list
}

#[tokio::test]
async fn discovery_is_upstreams() {
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../../shared/reference/discovery");
    if !reference.is_dir() {
        eprintln!("skipped: {} is not there", reference.display());
        return;
    }
    let server = TestServer::start().await;
    for (path, file) in [
        ("/api/v1", "api__v1.json"),
        ("/apis/apps/v1", "apis__apps__v1.json"),
        ("/apis/authorization.k8s.io/v1", "apis__authorization.k8s.io__v1.json"),
        ("/apis/authentication.k8s.io/v1", "apis__authentication.k8s.io__v1.json"),
        ("/apis/rbac.authorization.k8s.io/v1", "apis__rbac.authorization.k8s.io__v1.json"),
        ("/apis/coordination.k8s.io/v1", "apis__coordination.k8s.io__v1.json"),
        ("/apis/discovery.k8s.io/v1", "apis__discovery.k8s.io__v1.json"),
        ("/apis/apiextensions.k8s.io/v1", "apis__apiextensions.k8s.io__v1.json"),
    ] {
        let upstream: Value = serde_json::from_slice(&std::fs::read(reference.join(file)).unwrap()).unwrap();
        let (code, mut ours) = server.get(path).await;
        assert_eq!(code, 200, "{path}");
        for item in ours["resources"].as_array_mut().unwrap() {
            item.as_object_mut().unwrap().remove("storageVersionHash");
        }
        let by_name = |mut list: Vec<Value>| {
            list.sort_by_key(|r| r["name"].as_str().unwrap().to_owned());
            list
        };
        let wanted = by_name(known(&upstream, &ours));
        let found = by_name(ours["resources"].as_array().unwrap().clone());
        for (found, wanted) in found.iter().zip(&wanted) {
            assert_eq!(found, wanted, "{path}");
        }
        assert_eq!(found.len(), wanted.len(), "{path}");
    }
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let (_, list) = server.get_as("/apis", accept).await;
    assert_eq!(list["kind"], "APIGroupDiscoveryList");
    assert_eq!(list["items"][0]["metadata"]["name"], "apps");
}

#[tokio::test]
async fn nobody_gives_what_they_do_not_have() {
    let server = TestServer::start().await;
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    let rules = json!([{"verbs": ["create", "list"], "apiGroups":
        ["rbac.authorization.k8s.io"], "resources": ["clusterroles"]}]);
    server.post(roles, json!({"metadata": {"name": "maker"}, "rules": rules})).await;
    let binding = json!({"metadata": {"name": "ann"}, 
        "subjects": [{"kind": "User", "name": "ann", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "maker"}});
    server.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await;
    let ann =
        UserInfo { name: "ann".into(), groups: vec!["system:authenticated".into()], ..UserInfo::default() };
    let make = |name: &str, verb: &str| {
        let rules = json!([{"verbs": [verb], "apiGroups":
            ["rbac.authorization.k8s.io"], "resources": ["clusterroles"]}]);
        let body = json!({"metadata": {"name": name}, "rules": rules}).to_string();
        let door = server.server.service(ann.clone());
        async move {
            read(door.oneshot(Request::post(roles).body(Full::from(body)).unwrap()).await.unwrap()).await
        }
    };
    assert_eq!(make("less", "list").await.0, 201);
    let (code, refused) = make("more", "delete").await;
    assert_eq!(code, 403);
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("attempting to grant RBAC permissions not currently held")
    );
}

#[tokio::test]
async fn paths_that_lead_nowhere_are_told_as_upstream_does() {
    let server = TestServer::start().await;
    for path in ["/nosuch", "/apis/no.such/v1/things", "/apis/no.such", "/healthz/nosuch", "/logs"] {
        let (code, text) = server.get(path).await;
        assert_eq!((code.as_u16(), &text), (404, &json!("404 page not found\n")), "{path}");
    }
    for path in [
        "/apis/apps/v9/deployments",
        "/apis/apps/v1/nosuch",
        "/api/v2",
        "/api/v1/pods/x/nosuch",
        "/version/x",
    ] {
        let (code, status) = server.get(path).await;
        let text = "the server could not find the requested resource";
        assert_eq!((code.as_u16(), &status["message"]), (404, &json!(text)), "{path}");
    }
}
