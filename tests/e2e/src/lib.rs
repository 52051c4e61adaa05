//! Scenarios on real clusters.
//!
//! Each file in `tests/` is one story; what several of them need to tell it is here.

pub mod tools;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::PostParams;
use kube::runtime::watcher;
use kube::{Api, Client};
use serde_json::Value;
use xebec_testkit::{Cluster, PATIENCE, wait_for, wait_list};

/// Whether a pod's `Ready` condition is true.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Whether a pod is on its way out.
pub fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Status of a pod's first container.
pub fn first(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first()
}

/// The reason for which a pod's first container waits.
pub fn waiting_reason(pod: &Pod) -> &str {
    let waiting = first(pod).and_then(|status| status.state.as_ref()?.waiting.as_ref());
    waiting.and_then(|waiting| waiting.reason.as_deref()).unwrap_or_default()
}

/// The phase of a pod.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Makes an object from JSON.
///
/// # Errors
/// If the JSON is not of the kind, or the server refuses.
pub async fn create<K>(api: &Api<K>, value: Value) -> Result<K>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + serde::Serialize,
{
    let object: K = serde_json::from_value(value).context("the test's own JSON")?;
    api.create(&PostParams::default(), &object).await.context("create")
}

/// Pods of the namespace `default`.
pub fn pods(client: &Client) -> Api<Pod> {
    Api::default_namespaced(client.clone())
}

/// Makes a pod and waits until it is ready.
///
/// # Errors
/// With the pod's state if it does not become ready.
pub async fn ready_pod(cluster: &Cluster, value: Value) -> Result<Pod> {
    let api = pods(&cluster.client());
    let pod = create(&api, value).await?;
    let name = pod.metadata.name.unwrap_or_default();
    wait_for(&api, &name, PATIENCE, "is ready", is_ready).await
}

/// Waits until exactly `count` pods carry a label, all of them ready and none leaving; answers their names.
///
/// # Errors
/// With the pods' state if that does not happen.
pub async fn ready_pods(client: &Client, selector: &str, count: usize) -> Result<Vec<String>> {
    let selection = watcher::Config::default().labels(selector);
    let what = format!("{count} ready pods with {selector}");
    let api = pods(client);
    let found = wait_list(&api, selection, PATIENCE, &what, |all| {
        all.len() == count && all.values().all(|pod| is_ready(pod) && !is_terminating(pod))
    });
    Ok(found.await?.into_values().filter_map(|pod| pod.metadata.name).collect())
}
