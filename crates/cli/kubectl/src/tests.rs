//! Verbs against a played server.

use serde_json::{Value, json};

use crate::mock::run;

fn deployment() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default", "uid": "u", "generation": 2, "resourceVersion": "7",
            "labels": {"app": "web"}},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "web", "image": "x:1", "ports": [{"containerPort": 80}]}]}}},
        "status": {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}})
}

fn table(name: &str) -> Value {
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": "5"},
        "columnDefinitions": [{"name": "Name"}, {"name": "Ready"}, {"name": "Node", "priority": 1}],
        "rows": [{"cells": [name, "1/1", "n1"], "object": {"metadata": {"name": name, "namespace": "default"}}}]})
}

const WEB: &str = "GET /apis/apps/v1/namespaces/default/deployments/web";

#[tokio::test]
async fn get_prints_tables_of_several_kinds() {
    let answers = || {
        vec![
            ("GET /api/v1/namespaces/default/pods", 200, table("web-1")),
            ("GET /api/v1/namespaces/default/services", 200, table("web")),
        ]
    };
    let ran = run(&["get", "po", "-l", "app=web"], "", answers()).await;
    assert_eq!(ran.out, "NAME    READY\nweb-1   1/1\n");
    assert!(ran.asked[0].0.contains("labelSelector=app%3Dweb"), "{:?}", ran.asked);
    let ran = run(&["get", "pods,svc", "-o", "wide"], "", answers()).await;
    assert_eq!(
        ran.out,
        "NAME        READY   NODE\npod/web-1   1/1     n1\n\nNAME          READY   NODE\nservice/web   1/1     n1\n"
    );
}

#[tokio::test]
async fn get_says_what_is_not_there() {
    let ran = run(&["get", "pod", "x"], "", vec![]).await;
    assert_eq!(
        (ran.result.unwrap(), ran.err.as_str()),
        (1, "Error from server (NotFound): pods \"x\" not found\n")
    );
    let empty = json!({"kind": "Table", "rows": []});
    let ran = run(&["get", "pods"], "", vec![("GET /api/v1/namespaces/default/pods", 200, empty)]).await;
    assert_eq!((ran.result.unwrap(), ran.err.as_str()), (0, "No resources found in default namespace.\n"));
    let ran = run(&["get", "frobs"], "", vec![]).await;
    assert_eq!(
        ran.result.unwrap_err().to_string(),
        "error: the server doesn't have a resource type \"frobs\""
    );
}

#[tokio::test]
async fn get_prints_objects_and_watches() {
    let ran =
        run(&["get", "deploy/web", "-o", "jsonpath={.spec.replicas}"], "", vec![(WEB, 200, deployment())])
            .await;
    assert_eq!(ran.out, "2");
    let list = json!({"kind": "DeploymentList", "items": [{"metadata": {"name": "web"}}]});
    let all = vec![("GET /apis/apps/v1/deployments", 200, list)];
    assert_eq!(run(&["get", "deploy", "-A", "-o", "name"], "", all).await.out, "deployment.apps/web\n");
    let event = json!({"type": "MODIFIED", "object": table("web-1")}).to_string() + "\n";
    let answers = vec![
        ("GET /api/v1/namespaces/default/pods?includeObject=Metadata&resourceVersion", 404, Value::Null),
        ("GET /api/v1/namespaces/default/pods?resourceVersion=5", 200, event.into()),
        ("GET /api/v1/namespaces/default/pods", 200, table("web-1")),
    ];
    let ran = run(&["get", "pods", "-w"], "", answers).await;
    assert_eq!(ran.out, "NAME    READY\nweb-1   1/1\nweb-1   1/1\n");
}

const MANIFEST: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {replicas: 3}\n---\n\
                        apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: b}\n";

#[tokio::test]
async fn apply_creates_and_configures() {
    let answers = vec![
        (WEB, 200, deployment()),
        (
            "PATCH /apis/apps/v1/namespaces/default/deployments/web",
            200,
            json!({"metadata": {"resourceVersion": "8"}}),
        ),
        (
            "POST /api/v1/namespaces/default/configmaps",
            201,
            json!({"kind": "ConfigMap", "metadata": {"name": "c"}}),
        ),
    ];
    let ran = run(&["apply", "-f", "-"], MANIFEST, answers).await;
    assert_eq!(ran.result.unwrap(), 0, "{}", ran.err);
    assert_eq!(ran.out, "deployment.apps/web configured\nconfigmap/c created\n");
    assert!(ran.err.contains("missing the kubectl.kubernetes.io/last-applied-configuration"));
    let patch: Value =
        serde_json::from_str(&ran.asked.iter().find(|(k, _)| k.starts_with("PATCH")).unwrap().1).unwrap();
    assert_eq!(patch["spec"], json!({"replicas": 3}));
    let created: Value =
        serde_json::from_str(&ran.asked.iter().find(|(k, _)| k.starts_with("POST")).unwrap().1).unwrap();
    let remembered =
        created["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"].as_str();
    assert!(remembered.unwrap().contains("\"data\":{\"a\":\"b\"}"));
}

#[tokio::test]
async fn apply_of_the_same_is_unchanged() {
    let first = run(
        &["apply", "-f", "-", "--dry-run=client", "-o", "json"],
        MANIFEST.split("---\n").nth(1).unwrap(),
        vec![],
    );
    let object: Value = serde_json::from_str(&first.await.out).unwrap();
    let answers = vec![("GET /api/v1/namespaces/default/configmaps/c", 200, object)];
    let ran = run(&["apply", "-f", "-"], MANIFEST.split("---\n").nth(1).unwrap(), answers).await;
    assert_eq!(ran.out, "configmap/c unchanged\n");
    let ran = run(&["apply", "-f", "-", "--prune"], MANIFEST, vec![]).await;
    assert!(ran.result.unwrap_err().to_string().contains("--prune is not supported"));
}

#[tokio::test]
async fn delete_waits_until_gone() {
    let path = "DELETE /api/v1/namespaces/default/pods/web";
    let answers = vec![(path, 200, json!({"kind": "Pod", "metadata": {"name": "web", "uid": "1"}}))];
    let ran = run(&["delete", "pod", "web", "--force"], "", answers).await;
    assert_eq!(ran.out, "pod \"web\" force deleted from default namespace\n");
    assert!(ran.asked[0].1.contains("\"gracePeriodSeconds\":0"));
    assert!(ran.asked[1].0.starts_with("GET /api/v1/namespaces/default/pods/web"));
    let ran = run(&["delete", "pod", "x"], "", vec![]).await;
    assert_eq!(ran.result.unwrap(), 1);
    assert_eq!(run(&["delete", "pod", "x", "--ignore-not-found"], "", vec![]).await.result.unwrap(), 0);
}

#[tokio::test]
async fn create_from_flags() {
    let ran =
        run(&["create", "deployment", "web", "--image=r/x:1", "--dry-run=client", "-o", "yaml"], "", vec![])
            .await;
    assert!(ran.out.contains("image: r/x:1\n        name: x\n"), "{}", ran.out);
    let ran = run(
        &["create", "cm", "c", "--from-literal=a=b", "--dry-run=client", "-ojsonpath={.data.a}"],
        "",
        vec![],
    )
    .await;
    assert_eq!(ran.out, "b");
    let ran = run(
        &["run", "p", "--image=x", "--dry-run=client", "-ojsonpath={.spec.containers[0].args}", "--", "a"],
        "",
        vec![],
    );
    assert_eq!(ran.await.out, "[\"a\"]");
}

#[tokio::test]
async fn small_writes() {
    let patch = "PATCH /apis/apps/v1/namespaces/default/deployments/web";
    let answers = || vec![(WEB, 200, deployment()), (patch, 200, deployment())];
    for (line, out, body) in [
        (&["scale", "deploy/web", "--replicas=5"][..], "scaled", json!({"spec": {"replicas": 5}})),
        (
            &["label", "deploy", "web", "a=b", "app-"],
            "labeled",
            json!({"metadata": {"labels": {"a": "b", "app": null}}}),
        ),
        (
            &["annotate", "deploy", "web", "a=b"],
            "annotated",
            json!({"metadata": {"annotations": {"a": "b"}}}),
        ),
        (
            &["set", "image", "deploy/web", "web=x:2"],
            "image updated",
            json!({"spec": {"template": {"spec": {"containers": [{"name": "web", "image": "x:2"}]}}}}),
        ),
        (
            &["patch", "deploy", "web", "-p", "{spec: {paused: true}}"],
            "patched (no change)",
            json!({"spec": {"paused": true}}),
        ),
        (&["rollout", "pause", "deploy/web"], "paused", json!({"spec": {"paused": true}})),
    ] {
        let ran = run(line, "", answers()).await;
        assert_eq!(ran.result.unwrap(), 0, "{line:?}");
        assert_eq!(ran.out, format!("deployment.apps/web {out}\n"));
        assert_eq!(serde_json::from_str::<Value>(&ran.asked[1].1).unwrap(), body);
    }
    let ran = run(&["label", "deploy", "web", "app=x"], "", answers()).await;
    assert!(ran.result.unwrap_err().to_string().contains("'app' already has a value (web)"));
}

#[tokio::test]
async fn rollout_status_and_wait() {
    let list = json!({"metadata": {"resourceVersion": "7"}, "items": [deployment()]});
    let answers = || {
        vec![
            (WEB, 200, deployment()),
            ("GET /apis/apps/v1/namespaces/default/deployments?", 200, list.clone()),
        ]
    };
    let ran = run(&["rollout", "status", "deploy/web"], "", answers()).await;
    assert_eq!(ran.out, "deployment \"web\" successfully rolled out\n");
    let ran = run(&["wait", "deploy/web", "--for=jsonpath={.status.replicas}=2"], "", answers()).await;
    assert_eq!(ran.out, "deployment.apps/web condition met\n");
}

#[tokio::test]
async fn describe_shows_events() {
    let events = json!({"items": [{"type": "Normal", "reason": "Scaled", "message": "up",
        "source": {"component": "dc"}, "lastTimestamp": "2020-01-01T00:00:00Z"}]});
    let answers = vec![
        (WEB, 200, deployment()),
        ("GET /apis/apps/v1/namespaces/default/replicasets", 200, json!({"items": []})),
        ("GET /api/v1/namespaces/default/events", 200, events),
    ];
    let ran = run(&["describe", "deploy", "web"], "", answers).await;
    assert_eq!(ran.result.unwrap(), 0);
    assert!(
        ran.out
            .contains("Replicas:           2 desired | 2 updated | 2 total | 2 available | 0 unavailable\n"),
        "{}",
        ran.out
    );
    assert!(ran.out.contains("Events:\n  Type    Reason  Age"), "{}", ran.out);
}

#[tokio::test]
async fn logs_of_a_deployment() {
    let pod = json!({"metadata": {"name": "web-1", "namespace": "default"}, "spec": {"containers": [{"name": "web"}]},
        "status": {"phase": "Running"}});
    let answers = vec![
        ("GET /api/v1/namespaces/default/pods/web-1/log", 200, "one\ntwo\n".into()),
        ("GET /api/v1/namespaces/default/pods", 200, json!({"items": [pod]})),
        (WEB, 200, deployment()),
    ];
    let ran = run(&["logs", "deploy/web", "--tail=2"], "", answers).await;
    assert_eq!(ran.out, "one\ntwo\n");
    assert!(ran.asked.last().unwrap().0.contains("container=web&tailLines=2"));
}

#[tokio::test]
async fn discovery_and_permissions() {
    let ran = run(&["api-resources", "--api-group=apps", "--no-headers"], "", vec![]).await;
    assert!(ran.out.starts_with("deployments   deploy   apps/v1   true   Deployment\n"), "{}", ran.out);
    let answer = json!({"status": {"allowed": false}});
    let review = "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let ran = run(&["auth", "can-i", "get", "pods"], "", vec![(review, 201, answer)]).await;
    assert_eq!((ran.result.unwrap(), ran.out.as_str()), (1, "no\n"));
    let ran =
        run(&["expose", "deploy/web", "--dry-run=client", "-ojson"], "", vec![(WEB, 200, deployment())])
            .await;
    let service: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(service["spec"]["ports"], json!([{"port": 80, "targetPort": 80, "protocol": "TCP"}]));
}
