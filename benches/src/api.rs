//! Writes to the API server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use crate::percentile;

const NAMESPACE: &str = "bench-create";

/// A pod like those that people write, which no node takes.
fn pod(index: usize) -> Result<Pod> {
    let pod = json!({
        "metadata": {"name": format!("bench-{index}"), "labels": {"app": "bench", "tier": "front"}},
        "spec": {
            "schedulerName": "nobody",
            "containers": [{
                "name": "main",
                "image": "registry.example/app:1.2.3",
                "env": [{"name": "MODE", "value": "production"}],
                "ports": [{"containerPort": 8080}],
                "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
                "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}}
            }]
        }
    });
    serde_json::from_value(pod).context("bench pod")
}

/// Creates pods as fast as they are taken.
pub async fn create(count: usize, concurrency: usize, connections: usize) -> Result<()> {
    let first = Client::try_default().await.context("kubeconfig")?;
    let namespaces: Api<Namespace> = Api::all(first.clone());
    let namespace = serde_json::from_value(json!({"metadata": {"name": NAMESPACE}})).context("namespace")?;
    namespaces.create(&PostParams::default(), &namespace).await.context("create namespace")?;
    let mut clients = vec![first];
    while clients.len() < connections {
        clients.push(Client::try_default().await.context("kubeconfig")?);
    }
    let next = Arc::new(AtomicUsize::new(0));
    let start = Instant::now();
    let workers = (0..concurrency).map(|worker| {
        let (client, next) = (clients[worker % clients.len()].clone(), next.clone());
        let worker = tokio::spawn(async move { work(client, &next, count).await });
        async { worker.await.context("worker")? }
    });
    let mut latencies: Vec<f64> = try_join_all(workers).await?.into_iter().flatten().collect();
    let seconds = start.elapsed().as_secs_f64();
    latencies.sort_by(f64::total_cmp);
    #[allow(clippy::cast_precision_loss)]
    let rate = latencies.len() as f64 / seconds;
    let report = json!({
        "scenario": "create", "count": latencies.len(), "concurrency": concurrency,
        "per_second": rate.round(),
        "p50_ms": percentile(&latencies, 50), "p99_ms": percentile(&latencies, 99),
    });
    println!("{report}");
    namespaces.delete(NAMESPACE, &DeleteParams::default()).await.context("delete namespace").map(drop)
}

async fn work(client: Client, next: &AtomicUsize, count: usize) -> Result<Vec<f64>> {
    let pods: Api<Pod> = Api::namespaced(client, NAMESPACE);
    let mut latencies = Vec::new();
    loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        if index >= count {
            return Ok(latencies);
        }
        let start = Instant::now();
        pods.create(&PostParams::default(), &pod(index)?).await.context("create pod")?;
        latencies.push(start.elapsed().as_secs_f64() * 1e3);
    }
}
