//! The control plane goes and comes back; the pods do not notice.

use anyhow::{Result, ensure};
use kube::Api;
use serde_json::json;
use xebec_e2e::{first, is_ready, pods, ready_pod};
use xebec_testkit::{Cluster, Options, PATIENCE, run, wait_for};

#[test]
fn pods_outlive_sigterm_and_sigkill() {
    run(Options::default(), async |cluster| {
        ready_pod(cluster, pod("witness")).await?;
        let before = identity(cluster).await?;
        let lines = cluster.logs("witness").await?;

        cluster.stop_agent().await?;
        cluster.up().await?;
        same(cluster, &before, "after SIGTERM").await?;

        cluster.kill_agent()?;
        cluster.up().await?;
        same(cluster, &before, "after SIGKILL").await?;

        ensure!(cluster.logs("witness").await? == lines, "the log changed");
        let answer = cluster.exec("witness", &["hostname"]).await?;
        ensure!(answer.stdout.trim() == "witness", "exec after adoption: {answer:?}");
        Ok(())
    });
}

#[test]
fn pods_come_back_after_down() {
    run(Options::default(), async |cluster| {
        ready_pod(cluster, pod("sleeper")).await?;
        cluster.down().await?;
        cluster.up().await?;
        wait_for(&pods(&cluster.client()), "sleeper", PATIENCE, "is ready again", is_ready).await?;
        let answer = cluster.exec("sleeper", &["hostname"]).await?;
        ensure!(answer.stdout.trim() == "sleeper", "exec after down and up: {answer:?}");
        Ok(())
    });
}

fn pod(name: &str) -> serde_json::Value {
    json!({
        "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "main", "image": "xebec/toolbox"}]},
    })
}

/// What a restart of the control plane must not change: container id, start time, restart count, pod address.
async fn identity(cluster: &Cluster) -> Result<Vec<String>> {
    let api: Api<_> = pods(&cluster.client());
    let pod = wait_for(&api, "witness", PATIENCE, "is ready", is_ready).await?;
    let status = first(&pod).ok_or_else(|| anyhow::anyhow!("no container status"))?;
    let running = status.state.as_ref().and_then(|state| state.running.as_ref());
    Ok(vec![
        status.container_id.clone().unwrap_or_default(),
        format!("{:?}", running.and_then(|running| running.started_at.as_ref())),
        format!("restarts {}", status.restart_count),
        pod.status.as_ref().and_then(|status| status.pod_ip.clone()).unwrap_or_default(),
    ])
}

async fn same(cluster: &Cluster, before: &[String], when: &str) -> Result<()> {
    let after = identity(cluster).await?;
    ensure!(after == before, "{when}: {before:?} became {after:?}");
    Ok(())
}
