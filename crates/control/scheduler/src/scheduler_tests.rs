//! The loop against a client that records what is written.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use xebec_fakeapi::{Asked, Requests};

use super::*;
use crate::testing::{node, pod};

/// A client whose writes come out of the channel; `code` answers bindings.
fn client(code: u16) -> (Client, Requests) {
    xebec_fakeapi::client(move |asked| match asked.path.ends_with("/binding") {
        true => (code, json!({"kind": "Status", "status": "", "code": code, "message": "no", "reason": ""})),
        false => (200, json!({"metadata": {"name": "x"}, "involvedObject": {}, "spec": {"containers": []}})),
    })
}

fn informers() -> Informers {
    Informers {
        pods: Informer::new(),
        nodes: Informer::new(),
        namespaces: Informer::new(),
        services: Informer::new(),
        replica_sets: Informer::new(),
    }
}

/// Runs a scheduler over these objects and returns the first `count` writes.
async fn writes(code: u16, nodes: &[Arc<Node>], pods: &[Arc<PodInfo>], count: usize) -> Vec<Asked> {
    let (client, mut written) = client(code);
    let informers = informers();
    let scheduler = Scheduler::new(client, informers.clone());
    nodes.iter().for_each(|node| informers.nodes.apply(node.clone()));
    let token = CancellationToken::new();
    let running = tokio::spawn({
        let token = token.clone();
        async move { scheduler.schedule(token).await }
    });
    pods.iter().for_each(|pod| informers.pods.apply(pod.object().unwrap().clone()));
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(tokio::time::timeout(Duration::from_secs(20), written.recv()).await.unwrap().unwrap());
    }
    token.cancel();
    running.await.unwrap();
    all
}

#[tokio::test]
async fn pods_are_bound_and_told() {
    let nodes = [node("n1", json!({}), json!({}))];
    let all = writes(201, &nodes, &[pod("p", json!({}))], 2).await;
    let Asked { method, path, body } = &all[0];
    assert_eq!((method.as_str(), path.as_str()), ("POST", "/api/v1/namespaces/default/pods/p/binding"));
    assert_eq!(body["target"]["name"], "n1");
    assert_eq!(body["metadata"]["uid"], "uid-p");
    assert_eq!(all[1].body["reason"], "Scheduled");
    assert_eq!(all[1].body["message"], "Successfully assigned default/p to n1");
}

#[tokio::test]
async fn pods_that_fit_nowhere_get_a_condition_and_an_event() {
    let nodes = [node("n1", json!({}), json!({"unschedulable": true}))];
    let all = writes(201, &nodes, &[pod("p", json!({}))], 2).await;
    assert_eq!(all[0].path, "/api/v1/namespaces/default/pods/p/status");
    let condition = &all[0].body["status"]["conditions"][0];
    assert_eq!(condition["reason"], "Unschedulable");
    assert_eq!(condition["message"], "0/1 nodes are available: 1 node(s) were unschedulable.");
    assert_eq!(all[1].body["reason"], "FailedScheduling");
    assert_eq!(all[1].body["type"], "Warning");
}

#[test]
fn of_a_pod_only_the_newest_word_waits() {
    let untold = Untold::default();
    let one = pod("p", json!({}));
    assert!(untold.put(one.clone(), "first".into()), "it must be told");
    assert!(!untold.put(one.clone(), "second".into()), "it waits already");
    assert_eq!(untold.take(&one.key).map(|(_, message)| message).as_deref(), Some("second"));
    assert!(untold.take(&one.key).is_none());
}

#[tokio::test(start_paused = true)]
async fn failed_bindings_are_told_and_tried_again() {
    let nodes = [node("n1", json!({}), json!({}))];
    let all = writes(500, &nodes, &[pod("p", json!({}))], 4).await;
    assert!(all[0].path.ends_with("/binding"));
    assert!(all[1..].iter().any(|w| w.path.ends_with("/binding")), "{all:?}");
    assert!(all.iter().any(|w| w.body["status"]["conditions"][0]["reason"] == "SchedulerError"));
}

#[tokio::test]
async fn many_pods_fill_a_hundred_nodes_evenly() {
    const PODS: usize = 2000;
    let nodes: Vec<_> = (0..100).map(|i| node(&format!("n{i}"), json!({}), json!({}))).collect();
    let small = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "10m"}}}]});
    let pods: Vec<_> = (0..PODS).map(|i| pod(&format!("p{i}"), small.clone())).collect();
    let mut state = State::default();
    nodes.iter().for_each(|node| state.node(&Change::Added(node)));
    pods.iter().for_each(|pod| state.pod(&Change::Added(pod.object().unwrap())));
    let start = std::time::Instant::now();
    let mut bound = 0;
    while let Step::Bind(..) = state.step(Instant::now()) {
        bound += 1;
    }
    eprintln!("{PODS} pods decided in {:?}", start.elapsed());
    assert_eq!(bound, PODS);
    assert!(state.snapshot.nodes().all(|n| n.pod_count == 20));
}

#[test]
fn a_condition_that_says_so_already_is_not_written_again() {
    let mut known = Pod::clone(pod("p", json!({})).object().unwrap());
    assert!(condition_patch(&known, "Unschedulable", "m").is_some());
    known.status = serde_json::from_value(json!({"conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "m"}
    ]}))
    .unwrap();
    assert_eq!(condition_patch(&known, "Unschedulable", "m"), None);
    assert!(condition_patch(&known, "Unschedulable", "other").is_some());
}
