//! `/stats/summary` and `/metrics`: what the node's containers use.

use std::collections::BTreeMap;

use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};
use xebec_cri::{ContainerFilter, ContainerState, ContainerStatus, ResourceUsage};

use super::Door;
use super::routes::{Body, content};
use crate::labels;

async fn usage(door: &Door) -> Vec<(ContainerStatus, ResourceUsage)> {
    let runtime = &door.shared.runtime.runtime;
    let mut out = Vec::new();
    let all = runtime.list_containers(&ContainerFilter::default()).await.unwrap_or_default();
    for container in all.into_iter().filter(|c| c.state == ContainerState::Running) {
        if let Ok(usage) = runtime.container_stats(&container.id).await {
            out.push((container, usage));
        }
    }
    out
}

fn label<'a>(container: &'a ContainerStatus, name: &str) -> &'a str {
    container.labels.get(name).map(String::as_str).unwrap_or_default()
}

/// The summary API, cpu and memory of running containers.
pub(super) async fn summary(door: &Door) -> Response<Body> {
    let mut pods: BTreeMap<String, (Value, Vec<Value>)> = BTreeMap::new();
    for (container, usage) in usage(door).await {
        let uid = label(&container, labels::POD_UID);
        let reference = json!({"name": label(&container, labels::POD_NAME),
            "namespace": label(&container, labels::POD_NAMESPACE), "uid": uid});
        let at = Timestamp::try_from(usage.at).unwrap_or_default().to_string();
        let stats = json!({
            "name": container.metadata.name,
            "cpu": {"time": at, "usageCoreNanoSeconds": usage.cpu_nanoseconds},
            "memory": {"time": at, "usageBytes": usage.memory_usage_bytes,
                "workingSetBytes": usage.memory_working_set_bytes, "rssBytes": usage.memory_rss_bytes},
        });
        pods.entry(uid.to_owned()).or_insert((reference, Vec::new())).1.push(stats);
    }
    let pods: Vec<_> = pods.into_values().map(|(r, c)| json!({"podRef": r, "containers": c})).collect();
    let summary = json!({"node": {"nodeName": door.shared.config.node_name}, "pods": pods});
    content(StatusCode::OK, "application/json", summary.to_string())
}

/// Prometheus text.
pub(super) async fn metrics(door: &Door) -> Response<Body> {
    let mut out =
        format!("# TYPE kubelet_running_pods gauge\nkubelet_running_pods {}\n", door.pods.borrow().len());
    out.push_str(
        "# TYPE container_cpu_usage_seconds_total counter\n# TYPE container_memory_working_set_bytes gauge\n",
    );
    for (container, usage) in usage(door).await {
        let of = format!(
            "{{container=\"{}\",namespace=\"{}\",pod=\"{}\"}}",
            container.metadata.name,
            label(&container, labels::POD_NAMESPACE),
            label(&container, labels::POD_NAME)
        );
        let cpu = usage.cpu_nanoseconds as f64 / 1e9;
        out.push_str(&format!("container_cpu_usage_seconds_total{of} {cpu}\n"));
        out.push_str(&format!("container_memory_working_set_bytes{of} {}\n", usage.memory_working_set_bytes));
    }
    content(StatusCode::OK, "text/plain; version=0.0.4", out)
}
