//! HTTPS probes of real pods. The toolbox serves no TLS, so the probes go to a server of the node that does: the API
//! server's own, whose certificate nobody gave the kubelet to check.

use anyhow::ensure;
use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::runtime::watcher;
use serde_json::{Value, json};
use xebec_e2e::{create, first, pods, ready_pod};
use xebec_testkit::{Cluster, Options, PATIENCE, run, wait_list};

#[test]
fn a_pod_is_ready_by_https() {
    run(Options::default(), async |cluster| {
        ready_pod(cluster, pod(cluster, "right", "HTTPS")).await?;

        // The same server has no good answer to plain HTTP.
        create(&pods(&cluster.client()), pod(cluster, "wrong", "HTTP")).await?;
        let events: Api<Event> = Api::default_namespaced(cluster.client());
        let selection = watcher::Config::default().fields("reason=Unhealthy");
        let seen = wait_list(&events, selection, PATIENCE, "a probe fails", |all| !all.is_empty()).await?;
        for event in seen.values() {
            let message = event.message.as_deref().unwrap_or_default();
            ensure!(event.involved_object.name.as_deref() == Some("wrong"), "an event: {event:?}");
            ensure!(message.starts_with("Readiness probe failed: "), "an event says: {message}");
        }
        let pod = pods(&cluster.client()).get("wrong").await?;
        ensure!(first(&pod).is_some_and(|status| !status.ready), "it is ready: {:?}", pod.status);
        Ok(())
    });
}

fn pod(cluster: &Cluster, name: &str, scheme: &str) -> Value {
    let probe = json!({
        "httpGet": {"scheme": scheme, "host": cluster.address(), "port": 6443, "path": "/livez"},
        "periodSeconds": 1,
        "timeoutSeconds": 20,
    });
    json!({
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": "xebec/toolbox", "readinessProbe": probe}],
        },
    })
}
