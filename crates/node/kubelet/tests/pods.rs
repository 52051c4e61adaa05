//! Pods from creation to deletion, through a fake runtime and a fake API server.
#![allow(clippy::unwrap_used)]

mod support;

use kube::api::DeleteParams;
use serde_json::json;
use support::{Node, first, phase, waiting};

#[tokio::test]
async fn a_pod_runs_is_adopted_and_goes() {
    let mut node = Node::new();
    node.up().await;
    node.create(
        "web",
        json!({"containers": [{"name": "a", "image": "run:1"}], "terminationGracePeriodSeconds": 5}),
    )
    .await;
    let pod = node.wait("web", "running", |p| phase(p) == "Running" && first(p).ready).await;
    let id = first(&pod).container_id.unwrap();
    assert!(id.starts_with("xebec://"));
    let status = pod.status.unwrap();
    assert!(status.pod_ip.unwrap().starts_with("10.244.0."));
    assert_eq!(status.host_ip.as_deref(), Some("192.0.2.1"));
    node.wait_event("Started", "Container started").await;

    // Another agent adopts: the same container, no restart.
    node.down().await;
    assert_eq!(node.runtime.running().len(), 1);
    node.up().await;
    let starts = || node.runtime.calls().iter().filter(|c| c.starts_with("start a")).count();
    assert_eq!(starts(), 1);
    node.create("other", json!({"containers": [{"name": "b", "image": "run:1"}]})).await;
    node.wait("other", "running", |p| phase(p) == "Running").await;
    let pod = node.pods().get("web").await.unwrap();
    assert_eq!(first(&pod).container_id.unwrap(), id);
    assert_eq!(starts(), 1);

    node.pods().delete("web", &DeleteParams::default().grace_period(5)).await.unwrap();
    node.wait_gone("web").await;
    node.pods().delete("other", &DeleteParams::default()).await.unwrap();
    node.wait_gone("other").await;
    assert!(node.runtime.calls().iter().any(|c| c.starts_with("stop a")));
    assert!(node.runtime.is_empty(), "nothing may be left: {:?}", node.runtime.calls());
    node.down().await;
}

#[tokio::test]
async fn a_node_registers_with_lease_and_status() {
    let mut node = Node::new();
    node.up().await;
    let nodes: kube::Api<k8s_openapi::api::core::v1::Node> = kube::Api::all(node.client.clone());
    let own = nodes.get("node1").await.unwrap();
    let status = own.status.unwrap();
    let ready = status.conditions.unwrap().into_iter().find(|c| c.type_ == "Ready").unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_deref()), ("True", Some("KubeletReady")));
    assert_eq!(status.capacity.unwrap()["pods"].0, "110");
    assert_eq!(own.metadata.labels.unwrap()["kubernetes.io/hostname"], "node1");
    let mut changes = node.api.changes();
    let leases: kube::Api<k8s_openapi::api::coordination::v1::Lease> =
        kube::Api::namespaced(node.client.clone(), "kube-node-lease");
    while leases.get_opt("node1").await.unwrap().is_none() {
        changes.changed().await.unwrap();
    }
    node.down().await;
}

#[tokio::test]
async fn jobs_succeed_and_fail() {
    let mut node = Node::new();
    node.up().await;
    let spec = |image: &str| json!({"restartPolicy": "Never", "containers": [{"name": "a", "image": image}]});
    node.create("good", spec("exit:0")).await;
    node.create("bad", spec("exit:3")).await;
    node.wait("good", "succeeded", |p| phase(p) == "Succeeded").await;
    let bad = node.wait("bad", "failed", |p| phase(p) == "Failed").await;
    assert_eq!(first(&bad).state.unwrap().terminated.unwrap().exit_code, 3);
    node.down().await;
}

#[tokio::test]
async fn a_crashing_container_backs_off_and_a_missing_image_too() {
    let mut node = Node::new();
    node.up().await;
    node.create("crash", json!({"containers": [{"name": "a", "image": "exit:1"}]})).await;
    node.create("pull", json!({"containers": [{"name": "a", "image": "missing:1"}]})).await;
    let crash = node.wait("crash", "backs off", |p| waiting(p) == "CrashLoopBackOff").await;
    assert_eq!(first(&crash).restart_count, 1);
    assert_eq!(phase(&crash), "Running");
    let pull = node.wait("pull", "backs off", |p| waiting(p) == "ImagePullBackOff").await;
    assert_eq!(phase(&pull), "Pending");
    node.wait_event("BackOff", "Back-off restarting failed container a in pod crash_n(").await;
    node.wait_event("Failed", "Failed to pull image \"missing:1\": no such image").await;
    node.down().await;
}

#[tokio::test]
async fn volumes_and_environment_follow_their_objects() {
    let mut node = Node::new();
    node.up().await;
    node.create(
        "cfg",
        json!({
            "serviceAccountName": "default",
            "containers": [{"name": "a", "image": "run:1",
                "env": [{"name": "K", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}},
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                "volumeMounts": [{"name": "v", "mountPath": "/v"}, {"name": "t", "mountPath": "/t"}]}],
            "volumes": [{"name": "v", "configMap": {"name": "m", "optional": true}},
                {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}]
        }),
    )
    .await;
    let pod = node.wait("cfg", "config error", |p| waiting(p) == "CreateContainerConfigError").await;
    let message = first(&pod).state.unwrap().waiting.unwrap().message.unwrap();
    assert_eq!(message, "configmap \"m\" not found");
    let map = |value: &str| json!({"metadata": {"name": "m", "namespace": "n"}, "data": {"k": value}});
    node.api.put("/api/v1/namespaces/n/configmaps/m", map("1"));
    node.wait("cfg", "running", |p| phase(p) == "Running").await;
    let config = node.runtime.config("a");
    assert!(config.envs.contains(&("K".into(), "1".into())));
    assert!(config.envs.iter().any(|(k, v)| k == "IP" && v.starts_with("10.244.0.")));
    let path = |at: &str| {
        let mount = config.mounts.iter().find(|m| m.container_path == std::path::Path::new(at));
        mount.unwrap().host_path.clone()
    };
    assert_eq!(std::fs::read_to_string(path("/t").join("token")).unwrap(), "tok");
    let file = path("/v").join("k");
    let before = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(before.is_empty() || before == "1");
    node.api.put("/api/v1/namespaces/n/configmaps/m", map("2"));
    let updated = async {
        while std::fs::read_to_string(&file).unwrap_or_default() != "2" {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), updated).await.unwrap();
    let dir = node.dir.path().join("pods");
    node.pods().delete("cfg", &DeleteParams::default().grace_period(1)).await.unwrap();
    node.wait_gone("cfg").await;
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 0);
    node.down().await;
}

#[tokio::test]
async fn probes_restart_and_gate_and_hooks_run() {
    let mut node = Node::new();
    node.runtime.set_exec_code(1);
    node.up().await;
    node.create(
        "probed",
        json!({"terminationGracePeriodSeconds": 4, "containers": [{"name": "a", "image": "run:1",
            "lifecycle": {"preStop": {"exec": {"command": ["bye"]}}},
            "livenessProbe": {"exec": {"command": ["alive"]}, "periodSeconds": 1, "failureThreshold": 1}}]}),
    )
    .await;
    let pod = node.wait("probed", "restarted", |p| first(p).restart_count == 1).await;
    assert_eq!(first(&pod).last_state.unwrap().terminated.unwrap().exit_code, 143);
    node.wait_event("Unhealthy", "Liveness probe failed: out").await;
    node.wait_event("Killing", "Container a failed liveness probe, will be restarted").await;
    assert!(node.runtime.calls().contains(&"exec bye".to_owned()));
    node.runtime.set_exec_code(0);
    node.create(
        "gated",
        json!({"containers": [{"name": "g", "image": "run:1",
            "readinessProbe": {"exec": {"command": ["ready"]}, "periodSeconds": 1}}]}),
    )
    .await;
    node.wait("gated", "ready", |p| first(p).ready).await;
    node.runtime.set_exec_code(1);
    node.wait("gated", "unready", |p| !first(p).ready).await;
    node.down().await;
}

#[tokio::test]
async fn orphans_end_after_the_first_list() {
    let mut node = Node::new();
    node.up().await;
    node.create("lost", json!({"containers": [{"name": "a", "image": "run:1"}]})).await;
    node.wait("lost", "running", |p| phase(p) == "Running").await;
    node.down().await;
    node.pods().delete("lost", &DeleteParams::default().grace_period(0)).await.unwrap();
    node.up().await;
    let ended = async {
        while !node.runtime.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), ended).await.unwrap();
    node.down().await;
}

#[tokio::test]
async fn unused_images_go_when_their_file_system_is_full() {
    let mut node = Node::new();
    // Fuller than nothing is full, so all that is not used goes.
    (node.config.image_gc_high_percent, node.config.image_gc_low_percent) = (0, 0);
    node.runtime.add_image("unused:1", false);
    node.runtime.add_image("pinned:1", true);
    node.up().await;
    node.create("stays", json!({"containers": [{"name": "a", "image": "run:1"}]})).await;
    node.wait("stays", "running", |p| phase(p) == "Running").await;
    let once = json!({"restartPolicy": "Never", "containers": [{"name": "b", "image": "other:1"}]});
    node.create("ends", once).await;
    node.wait("ends", "running", |p| phase(p) == "Running").await;
    // The death of a container is when the node looks after its images.
    node.runtime.exit("b", 0);
    let removing = async {
        while !node.runtime.calls().iter().any(|call| call == "remove sha256:unused:1") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), removing).await.unwrap();
    node.wait_event("FreeDiskSpaceFailed", "but only found 1 bytes eligible to free").await;
    node.down().await;
    let removed: Vec<_> =
        node.runtime.calls().into_iter().filter(|c| c.starts_with("remove sha256")).collect();
    assert_eq!(removed, ["remove sha256:unused:1"], "images of containers and pinned ones stay");
}
