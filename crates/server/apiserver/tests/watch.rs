//! Watches through the in-process door.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use common::TestServer;
use serde_json::{Value, json};
use xebec_store::fake::MemoryStore;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str, value: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"v": value}}})
}

#[tokio::test]
async fn events_follow_the_list_and_tell_selector_edges() {
    let server = TestServer::start().await;
    server.post(MAPS, map("a", "in")).await;
    let mut all = server.watch(&format!("{MAPS}?watch=true")).await;
    let mut some = server.watch(&format!("{MAPS}?watch=1&labelSelector=v%3Din")).await;
    assert_eq!(all.told().await, "ADDED a");
    assert_eq!(some.told().await, "ADDED a");
    server.merge(&format!("{MAPS}/a"), json!({"metadata": {"labels": {"v": "out"}}})).await;
    server.merge(&format!("{MAPS}/a"), json!({"metadata": {"labels": {"v": "in"}}})).await;
    server.merge(&format!("{MAPS}/a"), json!({"data": {"x": "y"}})).await;
    server.delete(&format!("{MAPS}/a"), Value::Null).await;
    for wanted in ["MODIFIED a", "MODIFIED a", "MODIFIED a", "DELETED a"] {
        assert_eq!(all.told().await, wanted);
    }
    for wanted in ["DELETED a", "ADDED a", "MODIFIED a"] {
        assert_eq!(some.told().await, wanted);
    }
    let last = some.next().await.unwrap();
    assert_eq!((&last["type"], &last["object"]["data"]["x"]), (&json!("DELETED"), &json!("y")));
    let (_, list) = server.get(MAPS).await;
    assert_eq!(last["object"]["metadata"]["resourceVersion"], list["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn a_watch_continues_a_list_without_a_gap() {
    let server = TestServer::start().await;
    server.post(MAPS, map("a", "1")).await;
    let (_, list) = server.get(MAPS).await;
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();
    server.post(MAPS, map("b", "1")).await;
    let mut watch = server.watch(&format!("{MAPS}?watch=true&resourceVersion={version}")).await;
    assert_eq!(watch.told().await, "ADDED b");
    server.post(MAPS, map("c", "1")).await;
    assert_eq!(watch.told().await, "ADDED c");
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    let server = TestServer::start().await;
    server.post(MAPS, map("a", "1")).await;
    let query =
        "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = server.watch(&format!("{MAPS}?{query}&timeoutSeconds=3")).await;
    assert_eq!(watch.told().await, "ADDED a");
    let bookmark = watch.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["kind"], "ConfigMap");
    assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let last = watch.next().await.unwrap();
    assert_eq!(last["type"], "BOOKMARK", "one more before the end");
    assert_eq!(watch.next().await, None);
    let (code, _) = server.get(&format!("{MAPS}?watch=true&sendInitialEvents=true")).await;
    assert_eq!(code, 422);
}

#[tokio::test]
async fn too_old_versions_are_gone() {
    let store = Arc::new(MemoryStore::new());
    let first = TestServer::on(store.clone()).await;
    for n in 0..3 {
        first.post(MAPS, map(&format!("m{n}"), "1")).await;
    }
    drop(first);
    let server = TestServer::on(store).await;
    let mut watch = server.watch(&format!("{MAPS}?watch=true&resourceVersion=2")).await;
    let event = watch.next().await.unwrap();
    assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(410)));
    assert!(event["object"]["message"].as_str().unwrap().starts_with("too old resource version: 2 ("));
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn a_hundred_watchers_see_every_event() {
    let server = TestServer::start().await;
    let mut watches = Vec::new();
    for _ in 0..100 {
        watches.push(server.watch(&format!("{MAPS}?watch=true")).await);
    }
    for n in 0..50 {
        server.post(MAPS, map(&format!("m{n:02}"), "1")).await;
    }
    for watch in &mut watches {
        for n in 0..50 {
            assert_eq!(watch.told().await, format!("ADDED m{n:02}"));
        }
    }
}

#[tokio::test]
async fn tables_are_watched_too() {
    use http_body_util::BodyExt;
    let server = TestServer::start().await;
    server.post(MAPS, map("a", "1")).await;
    let request = http::Request::get(format!("{MAPS}?watch=true"))
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(http_body_util::Full::default())
        .unwrap();
    let mut body = server.raw(request).await.into_body();
    let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
    let event: Value = serde_json::from_slice(&frame).unwrap();
    assert_eq!((&event["type"], &event["object"]["kind"]), (&json!("ADDED"), &json!("Table")));
    assert_eq!(event["object"]["columnDefinitions"][0]["name"], "Name");
    assert_eq!(event["object"]["rows"][0]["cells"][0], "a");
}
