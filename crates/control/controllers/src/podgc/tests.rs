//! The collector against a client that records what it is asked.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use xebec_fakeapi::{Asked, Requests};

use super::*;
use crate::pods::tests::pod;

const POD: &str = "/api/v1/namespaces/default/pods/p";
const NODE: &str = "/api/v1/nodes/n1";

/// A client whose requests come out of the channel; `node` says whether a live read finds the node.
fn client(node: bool) -> (Client, Requests) {
    xebec_fakeapi::client(move |asked| match node || asked.path != NODE {
        true => (200, json!({"metadata": {"name": "x"}, "spec": {"containers": []}})),
        false => (404, xebec_fakeapi::not_found()),
    })
}

/// A running collector, its informers and what it asks for. It ends with the runtime of the test.
fn collector(node: bool, limits: Limits) -> (Informers, Requests) {
    let (client, asked) = client(node);
    let informers = Informers::new();
    let (collector, queue) = PodCollector::new(client, &informers, limits);
    tokio::spawn(xebec_reconcile::run(Arc::new(collector), queue, 1, CancellationToken::new()));
    (informers, asked)
}

fn node(status: &str, taint: &str) -> Arc<Node> {
    let node = json!({
        "metadata": {"name": "n1"},
        "spec": {"taints": [{"key": taint, "effect": "NoExecute"}]},
        "status": {"conditions": [{"type": "Ready", "status": status}]},
    });
    Arc::new(serde_json::from_value(node).unwrap())
}

fn deleted(mut pod: Pod) -> Pod {
    let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::now());
    pod.metadata.deletion_timestamp = Some(now);
    pod
}

async fn nothing_more(asked: &mut Requests) {
    let more = tokio::time::timeout(Duration::from_secs(3600), asked.recv()).await;
    assert!(more.is_err(), "{more:?}");
}

/// The next request, by method and path, and its body.
async fn next(asked: &mut Requests, method: &str, path: &str) -> Value {
    let Asked { method: is, path: at, body } = asked.recv().await.unwrap();
    assert_eq!((is.as_str(), at.as_str()), (method, path), "{body}");
    body
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_a_missing_node_fails_and_goes_after_the_quarantine() {
    let (informers, mut asked) = collector(false, Limits::default());
    let start = Instant::now();
    informers.pods.apply(Arc::new(pod("p", "a", "Running", true)));
    next(&mut asked, "GET", NODE).await;
    assert_eq!(start.elapsed().as_secs(), 40);
    let patch = next(&mut asked, "PATCH", &format!("{POD}/status")).await;
    assert_eq!(patch["status"]["phase"], "Failed");
    assert_eq!(patch["status"]["conditions"][0]["reason"], "DeletionByPodGC");
    let options = next(&mut asked, "DELETE", POD).await;
    assert_eq!(options["gracePeriodSeconds"], 0);
    assert_eq!(options["preconditions"]["uid"], "uid-p");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_a_live_read_finds_keeps_its_pods() {
    let (informers, mut asked) = collector(true, Limits::default());
    informers.pods.apply(Arc::new(pod("p", "a", "Running", true)));
    next(&mut asked, "GET", NODE).await;
    // The informer hears of it later than the read, and nothing is left to ask.
    informers.nodes.apply(node("True", "none"));
    nothing_more(&mut asked).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_comes_in_time_is_not_asked_for() {
    let (informers, mut asked) = collector(false, Limits::default());
    informers.pods.apply(Arc::new(pod("p", "a", "Running", true)));
    informers.nodes.apply(node("True", "none"));
    nothing_more(&mut asked).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_ends_unscheduled_goes_at_once() {
    let (informers, mut asked) = collector(true, Limits::default());
    let mut unscheduled = pod("p", "a", "Pending", false);
    unscheduled.spec.as_mut().unwrap().node_name = None;
    informers.pods.apply(Arc::new(unscheduled.clone()));
    nothing_more(&mut asked).await;
    let start = Instant::now();
    informers.pods.apply(Arc::new(deleted(unscheduled)));
    let patch = next(&mut asked, "PATCH", &format!("{POD}/status")).await;
    assert_eq!((&patch["status"]["phase"], &patch["status"]["conditions"]), (&json!("Failed"), &Value::Null));
    next(&mut asked, "DELETE", POD).await;
    assert!(start.elapsed().is_zero());
}

#[tokio::test(start_paused = true)]
async fn a_node_out_of_service_gives_up_what_ends_on_it() {
    let (informers, mut asked) = collector(true, Limits::default());
    informers.nodes.apply(node("Unknown", "none"));
    informers.pods.apply(Arc::new(deleted(pod("p", "a", "Running", true))));
    nothing_more(&mut asked).await;
    informers.nodes.apply(node("Unknown", "node.kubernetes.io/out-of-service"));
    next(&mut asked, "PATCH", &format!("{POD}/status")).await;
    next(&mut asked, "DELETE", POD).await;
}

#[tokio::test(start_paused = true)]
async fn too_many_ended_pods_are_counted_once_and_go() {
    let (informers, mut asked) = collector(true, Limits { ended: 1, ..Limits::default() });
    informers.nodes.apply(node("True", "none"));
    for name in ["q", "p", "r"] {
        informers.pods.apply(Arc::new(pod(name, "a", "Succeeded", false)));
    }
    next(&mut asked, "DELETE", POD).await;
    next(&mut asked, "DELETE", "/api/v1/namespaces/default/pods/q").await;
    nothing_more(&mut asked).await;
}
