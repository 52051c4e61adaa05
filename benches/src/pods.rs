//! How long pods take to start.

use std::time::Instant;

use anyhow::{Context, Result};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client};
use serde_json::json;

use crate::percentile;

/// Starts pods of the toolbox image and times each from its create to its Running.
pub async fn start(count: usize, together: bool) -> Result<()> {
    let client = Client::try_default().await.context("kubeconfig")?;
    let pods: Api<Pod> = Api::default_namespaced(client);
    let begin = Instant::now();
    let mut times = Vec::new();
    if together {
        times = try_join_all((0..count).map(|index| one(pods.clone(), index))).await?;
    } else {
        for index in 0..count {
            times.push(one(pods.clone(), index).await?);
        }
    }
    let total = begin.elapsed().as_secs_f64();
    times.sort_by(f64::total_cmp);
    let report = json!({
        "scenario": "pods", "count": count, "together": together, "total_s": total,
        "p50_ms": percentile(&times, 50), "p99_ms": percentile(&times, 99),
    });
    println!("{report}");
    for index in 0..count {
        let parameters = DeleteParams::default().grace_period(0);
        pods.delete(&name(index), &parameters).await.context("delete pod")?;
    }
    Ok(())
}

fn name(index: usize) -> String {
    format!("bench-start-{index}")
}

async fn one(pods: Api<Pod>, index: usize) -> Result<f64> {
    let pod = json!({
        "metadata": {"name": name(index)},
        "spec": {"containers": [{"name": "main", "image": "xebec/toolbox"}]}
    });
    let pod: Pod = serde_json::from_value(pod).context("bench pod")?;
    let begin = Instant::now();
    pods.create(&PostParams::default(), &pod).await.context("create pod")?;
    await_condition(pods, &name(index), conditions::is_pod_running()).await.context("wait for pod")?;
    Ok(begin.elapsed().as_secs_f64() * 1e3)
}
