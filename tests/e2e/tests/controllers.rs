//! What the controllers owe the objects that they look after.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Namespace, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::runtime::watcher;
use kube::{Api, Client};
use serde_json::{Value, json};
use xebec_e2e::{create, is_ready, is_terminating, pods, ready_pod, ready_pods};
use xebec_testkit::{NODE, Options, PATIENCE, run, wait_for, wait_gone, wait_list};

#[test]
fn namespaces_and_garbage() {
    run(Options::default(), async |cluster| {
        let client = cluster.client();
        namespace_content(&client).await.context("namespace")?;
        background(&client).await.context("background deletion")?;
        foreground(&client).await.context("foreground deletion")?;
        orphan(&client).await.context("orphaning")?;
        node(&client).await.context("node")
    });
}

#[test]
fn aggregated_roles_show_what_they_allow() {
    run(Options::default(), async |cluster| {
        let roles: Api<ClusterRole> = Api::all(cluster.client());
        let allows = |role: &ClusterRole, resource: &str| {
            let mut resources = role.rules.iter().flatten().flat_map(|rule| rule.resources.iter().flatten());
            resources.any(|known| known == resource)
        };
        wait_for(&roles, "admin", PATIENCE, "has the rules of view", |role| allows(role, "endpointslices"))
            .await?;
        let boats = json!({
            "metadata": {
                "name": "boats", "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"},
            },
            "rules": [{"verbs": ["get"], "apiGroups": ["example.com"], "resources": ["boats"]}],
        });
        create::<ClusterRole>(&roles, boats).await?;
        wait_for(&roles, "admin", PATIENCE, "has the new rule", |role| allows(role, "boats")).await?;
        roles.delete("boats", &DeleteParams::default()).await?;
        wait_for(&roles, "admin", PATIENCE, "has lost it again", |role| !allows(role, "boats")).await?;
        Ok(())
    });
}

#[test]
fn endpoints_follow_readiness() {
    run(Options::default(), async |cluster| {
        let client = cluster.client();
        create::<Service>(
            &Api::default_namespaced(client.clone()),
            json!({
                "metadata": {"name": "moody"},
                "spec": {"selector": {"app": "moody"}, "ports": [{"port": 80, "targetPort": 8080}]},
            }),
        )
        .await?;
        ready_pod(
            cluster,
            json!({
                "metadata": {"name": "moody", "labels": {"app": "moody"}},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{
                        "name": "main", "image": "xebec/toolbox",
                        "volumeMounts": [{"name": "mood", "mountPath": "/mood"}],
                        "readinessProbe": {
                            "exec": {"command": ["sh", "-c", "! cat /mood/bad"]},
                            "periodSeconds": 1, "failureThreshold": 1,
                        },
                    }],
                    "volumes": [{"name": "mood", "emptyDir": {}}],
                },
            }),
        )
        .await?;
        endpoints(&client, 1, 0).await?;
        let answer = cluster.exec("moody", &["sh", "-c", "echo bad > /mood/bad"]).await?;
        ensure!(answer.success(), "{answer:?}");
        endpoints(&client, 0, 1).await?;
        pods(&client).delete("moody", &DeleteParams::default()).await?;
        endpoints(&client, 0, 0).await
    });
}

#[test]
fn rolling_updates_stay_available() {
    run(Options::default(), async |cluster| {
        let client = cluster.client();
        let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
        create(&deployments, rolling()).await?;
        ready_pods(&client, "app=rolling", 3).await?;
        wait_for(&deployments, "rolling", PATIENCE, "is available", |deployment| {
            deployment.status.as_ref().and_then(|status| status.available_replicas) == Some(3)
        })
        .await?;

        let change = json!({"spec": {"template": {"metadata": {"annotations": {"round": "2"}}}}});
        deployments.patch("rolling", &PatchParams::default(), &Patch::Merge(change)).await?;
        let (mut least, mut most) = (usize::MAX, 0);
        let selection = watcher::Config::default().labels("app=rolling");
        wait_list(&pods(&client), selection, PATIENCE, "3 pods of the second round", |all| {
            let ready = |pod: &&Pod| is_ready(pod) && !is_terminating(pod);
            let second = |pod: &Pod| pod.metadata.annotations.as_ref().is_some_and(|a| a["round"] == "2");
            let available = all.values().filter(ready).count();
            least = least.min(available);
            most = most.max(all.values().filter(|pod| !is_terminating(pod)).count());
            available == 3 && all.values().filter(ready).all(second) && all.len() == 3
        })
        .await?;
        ensure!(least >= 3, "only {least} of 3 were available at a time, with maxUnavailable 0");
        ensure!(most <= 4, "{most} pods at a time, with 3 replicas and maxSurge 1");
        wait_for(&deployments, "rolling", PATIENCE, "says so", |deployment| {
            let status = deployment.status.clone().unwrap_or_default();
            status.updated_replicas == Some(3) && status.replicas == Some(3)
        })
        .await?;
        // A pod that goes is replaced.
        let names = ready_pods(&client, "app=rolling", 3).await?;
        pods(&client).delete(&names[0], &DeleteParams::default()).await?;
        let now = ready_after(&client, &names[0]).await?;
        ensure!(now.len() == 3 && !now.contains(&names[0]), "{names:?} became {now:?}");
        Ok(())
    });
}

fn rolling() -> Value {
    json!({
        "metadata": {"name": "rolling"},
        "spec": {
            "replicas": 3,
            "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "selector": {"matchLabels": {"app": "rolling"}},
            "template": {
                "metadata": {"labels": {"app": "rolling"}, "annotations": {"round": "1"}},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{
                        "name": "main", "image": "xebec/toolbox",
                        "readinessProbe": {"httpGet": {"path": "/readyz", "port": 8080}, "periodSeconds": 1},
                    }],
                },
            },
        },
    })
}

async fn ready_after(client: &Client, deleted: &str) -> Result<Vec<String>> {
    wait_gone(&pods(client), deleted, PATIENCE).await?;
    ready_pods(client, "app=rolling", 3).await
}

/// What every namespace gets, and that deleting it takes everything in it along.
async fn namespace_content(client: &Client) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    create(&namespaces, json!({"metadata": {"name": "short"}})).await?;
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "short");
    wait_for(&accounts, "default", PATIENCE, "exists", |_| true).await?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "short");
    wait_for(&maps, "kube-root-ca.crt", PATIENCE, "holds the CA", |map| {
        map.data
            .as_ref()
            .and_then(|data| data.get("ca.crt"))
            .is_some_and(|pem| pem.contains("BEGIN CERTIFICATE"))
    })
    .await?;
    // Both come back when they are deleted.
    accounts.delete("default", &DeleteParams::default()).await?;
    wait_for(&accounts, "default", PATIENCE, "comes back", |account| account.metadata.uid.is_some()).await?;

    create(&maps, json!({"metadata": {"name": "holds", "finalizers": ["example.com/hold"]}})).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "short");
    create(&pods, json!({
        "metadata": {"name": "inside"},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "main", "image": "xebec/toolbox"}]},
    }))
    .await?;
    wait_for(&pods, "inside", PATIENCE, "is ready", is_ready).await?;
    namespaces.delete("short", &DeleteParams::default()).await?;
    wait_gone(&pods, "inside", PATIENCE).await?;
    wait_for(&namespaces, "short", PATIENCE, "is terminating", |namespace| {
        namespace.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Terminating")
    })
    .await?;
    let late = create(&maps, json!({"metadata": {"name": "late"}})).await;
    let refused = late.err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(refused.contains("being terminated"), "creating in a namespace that ends: {refused:?}");
    release(&maps, "holds").await?;
    wait_gone(&namespaces, "short", PATIENCE).await
}

async fn background(client: &Client) -> Result<()> {
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    family(&maps, "b", false).await?;
    maps.delete("b-owner", &DeleteParams::background()).await?;
    ensure!(maps.get_opt("b-owner").await?.is_none(), "the owner waits for its dependents");
    wait_gone(&maps, "b-child", PATIENCE).await?;
    wait_gone(&maps, "b-grandchild", PATIENCE).await
}

async fn foreground(client: &Client) -> Result<()> {
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    family(&maps, "f", true).await?;
    maps.delete("f-owner", &DeleteParams::foreground()).await?;
    wait_for(&maps, "f-child", PATIENCE, "is being deleted", |map| map.metadata.deletion_timestamp.is_some())
        .await?;
    let owner = maps.get("f-owner").await.context("the owner went before its dependent")?;
    let finalizers = owner.metadata.finalizers.unwrap_or_default();
    ensure!(finalizers == ["foregroundDeletion"], "{finalizers:?}");
    release(&maps, "f-child").await?;
    wait_gone(&maps, "f-owner", PATIENCE).await?;
    wait_gone(&maps, "f-grandchild", PATIENCE).await
}

async fn orphan(client: &Client) -> Result<()> {
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    family(&maps, "o", false).await?;
    maps.delete("o-owner", &DeleteParams::orphan()).await?;
    wait_gone(&maps, "o-owner", PATIENCE).await?;
    let child = maps.get("o-child").await.context("the orphan is gone")?;
    ensure!(child.metadata.owner_references.is_none(), "{:?}", child.metadata.owner_references);
    maps.get("o-grandchild").await.context("the orphan's own dependent is gone").map(drop)
}

/// An owner, its dependent and the dependent's dependent.
async fn family(maps: &Api<ConfigMap>, prefix: &str, held: bool) -> Result<()> {
    let mut owners = json!([]);
    for member in ["owner", "child", "grandchild"] {
        let finalizers = if held && member == "child" { json!(["example.com/hold"]) } else { json!([]) };
        let name = format!("{prefix}-{member}");
        let made = create(
            maps,
            json!({
                "metadata": {"name": name, "ownerReferences": owners, "finalizers": finalizers},
            }),
        )
        .await?;
        owners = json!([{
            "apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": made.metadata.uid,
            "blockOwnerDeletion": true,
        }]);
    }
    Ok(())
}

async fn release(maps: &Api<ConfigMap>, name: &str) -> Result<()> {
    let patch = Patch::Json::<()>(serde_json::from_value(json!([
        {"op": "test", "path": "/metadata/finalizers/0", "value": "example.com/hold"},
        {"op": "remove", "path": "/metadata/finalizers/0"},
    ]))?);
    maps.patch(name, &PatchParams::default(), &patch).await.context("release")?;
    Ok(())
}

/// The node says that it is ready, and keeps saying so by its lease.
async fn node(client: &Client) -> Result<()> {
    use k8s_openapi::api::coordination::v1::Lease;
    use k8s_openapi::api::core::v1::Node;
    let nodes: Api<Node> = Api::all(client.clone());
    wait_for(&nodes, NODE, PATIENCE, "is ready", |node| {
        let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    })
    .await?;
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    let renewed = |lease: &Lease| lease.spec.as_ref().and_then(|spec| spec.renew_time.clone());
    let first =
        renewed(&wait_for(&leases, NODE, PATIENCE, "is held", |lease| renewed(lease).is_some()).await?);
    // Leases are renewed every 10 s (KEP-589).
    wait_for(&leases, NODE, Duration::from_secs(25), "is renewed", |lease| renewed(lease) > first).await?;
    Ok(())
}

/// Waits until slices and Endpoints agree on how many addresses are ready and how many are not.
async fn endpoints(client: &Client, ready: usize, not_ready: usize) -> Result<()> {
    let slices: Api<EndpointSlice> = Api::default_namespaced(client.clone());
    let selection = watcher::Config::default().labels("kubernetes.io/service-name=moody");
    let what = format!("{ready} ready endpoints and {not_ready} others");
    wait_list(&slices, selection, PATIENCE, &what, |all| {
        let ends = all.values().flat_map(|slice| slice.endpoints.iter().flatten());
        let (mut yes, mut no) = (0, 0);
        for end in ends {
            let is = end.conditions.as_ref().and_then(|is| is.ready) == Some(true);
            *(if is { &mut yes } else { &mut no }) += 1;
        }
        (yes, no) == (ready, not_ready)
    })
    .await?;
    let endpoints: Api<Endpoints> = Api::default_namespaced(client.clone());
    wait_for(&endpoints, "moody", PATIENCE, &what, |endpoints| {
        let subsets = || endpoints.subsets.iter().flatten();
        let yes: usize = subsets().map(|subset| subset.addresses.iter().flatten().count()).sum();
        let no: usize = subsets().map(|subset| subset.not_ready_addresses.iter().flatten().count()).sum();
        (yes, no) == (ready, not_ready)
    })
    .await
    .map(drop)
}
