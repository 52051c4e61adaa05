//! `xebec uninstall` leaves nothing.

use anyhow::ensure;
use serde_json::json;
use xebec_e2e::{create, ready_pods};
use xebec_testkit::{Options, leftovers, run};

#[test]
fn uninstall_removes_every_trace() {
    run(Options::default(), async |cluster| {
        let deployments: kube::Api<k8s_openapi::api::apps::v1::Deployment> =
            kube::Api::default_namespaced(cluster.client());
        create(
            &deployments,
            json!({
                "metadata": {"name": "trace"},
                "spec": {
                    "replicas": 2,
                    "selector": {"matchLabels": {"app": "trace"}},
                    "template": {
                        "metadata": {"labels": {"app": "trace"}},
                        "spec": {
                            "containers": [{
                                "name": "main", "image": "xebec/toolbox",
                                "resources": {"limits": {"memory": "64Mi"}},
                                "volumeMounts": [{"name": "memory", "mountPath": "/memory"}],
                            }],
                            "volumes": [{"name": "memory", "emptyDir": {"medium": "Memory"}}],
                        },
                    },
                },
            }),
        )
        .await?;
        ready_pods(&cluster.client(), "app=trace", 2).await?;

        // While it runs all kinds of traces are there: otherwise the check below would look in the wrong place.
        let netns = cluster.netns();
        ensure!(!leftovers::mounts(cluster.data_dir()).is_empty(), "no mounts while pods run");
        ensure!(!leftovers::links(&netns).is_empty(), "no links while pods run");
        ensure!(!leftovers::routes(&netns).is_empty(), "no routes while pods run");
        ensure!(!leftovers::tables(&cluster.netns_path()).is_empty(), "no tables while pods run");
        ensure!(leftovers::processes(cluster.data_dir(), &cluster.netns_path()).len() > 1, "no processes");

        cluster.uninstall().await?;
        let left = cluster.leftovers();
        ensure!(left.is_empty(), "left behind:\n{}", left.join("\n"));
        Ok(())
    });
}

#[test]
fn uninstall_works_after_a_kill() {
    run(Options::default(), async |cluster| {
        let pod = json!({
            "metadata": {"name": "orphan"},
            "spec": {"containers": [{"name": "main", "image": "xebec/toolbox"}]},
        });
        xebec_e2e::ready_pod(cluster, pod).await?;
        cluster.kill_agent()?;
        cluster.uninstall().await?;
        let left = cluster.leftovers();
        ensure!(left.is_empty(), "left behind:\n{}", left.join("\n"));
        Ok(())
    });
}
