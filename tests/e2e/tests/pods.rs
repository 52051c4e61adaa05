//! What a node does with a pod.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::DeleteParams;
use kube::{Api, Client};
use serde_json::{Value, json};
use xebec_e2e::{create, first, phase, pods, ready_pod, waiting_reason};
use xebec_testkit::{Cluster, Options, PATIENCE, run, wait_for};

#[test]
fn containers_share_and_configure() {
    run(Options::default(), async |cluster| {
        let client = cluster.client();
        create::<ConfigMap>(
            &Api::default_namespaced(client.clone()),
            json!({
                "metadata": {"name": "settings"}, "data": {"colour": "blue", "SHAPE": "round"},
            }),
        )
        .await?;
        create::<Secret>(
            &Api::default_namespaced(client.clone()),
            json!({
                "metadata": {"name": "keys"}, "stringData": {"password": "s3cret"},
            }),
        )
        .await?;
        ready_pod(cluster, shared()).await?;
        let log = cluster.kubectl(&["logs", "shared", "-c", "first"]).await?;
        ensure!(
            log == "from the first\nwritten\n",
            "what init containers and the first container see: {log:?}"
        );
        let env = cluster.exec("shared", &["env"]).await?.stdout;
        for line in
            ["COLOUR=blue", "SHAPE=round", "PASSWORD=s3cret", "NODE=n1", "LONG=blue and s3cret", "CPU=1"]
        {
            ensure!(env.lines().any(|there| there == line), "{line} is not in {env}");
        }
        for (file, content) in [
            ("/settings/colour", "blue"),
            ("/keys/secret-password", "s3cret"),
            ("/all/name", "shared"),
            ("/all/colour", "blue"),
        ] {
            let there = cluster.exec("shared", &["cat", file]).await?;
            ensure!(there.stdout == content, "{file}: {there:?}");
        }
        let token =
            cluster.exec("shared", &["cat", "/var/run/secrets/kubernetes.io/serviceaccount/token"]).await?;
        ensure!(token.stdout.split('.').count() == 3, "the account's token: {token:?}");
        // The two containers share localhost.
        let answer = cluster.exec("shared", &["get", "http://127.0.0.1:9090/hostname"]).await?;
        ensure!(answer.stdout.trim() == "shared", "the other container by localhost: {answer:?}");
        Ok(())
    });
}

fn shared() -> Value {
    let mount = json!({"name": "work", "mountPath": "/work"});
    let init = |name: &str, script: &str| {
        json!({
            "name": name, "image": "xebec/toolbox", "command": ["sh", "-c", script], "volumeMounts": [mount],
        })
    };
    json!({
        "metadata": {"name": "shared", "labels": {"app": "shared"}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "initContainers": [
                init("one", "echo from the first > /work/file"),
                init("two", "cat /work/file && echo written >> /work/file"),
            ],
            "containers": [
                {
                    "name": "first", "image": "xebec/toolbox",
                    "command": ["sh", "-c", "cat /work/file; sleep infinity"],
                    "envFrom": [{"configMapRef": {"name": "settings"}}],
                    "env": [
                        {"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "colour"}}},
                        {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "password"}}},
                        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
                        {"name": "LONG", "value": "$(COLOUR) and $(PASSWORD)"},
                    ],
                    "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}},
                    "volumeMounts": [
                        mount,
                        {"name": "settings", "mountPath": "/settings"},
                        {"name": "keys", "mountPath": "/keys"},
                        {"name": "all", "mountPath": "/all"},
                    ],
                },
                {"name": "second", "image": "xebec/toolbox", "args": ["serve", "--http", "9090"]},
            ],
            "volumes": [
                {"name": "work", "emptyDir": {}},
                {"name": "settings", "configMap": {"name": "settings"}},
                {"name": "keys", "secret": {
                    "secretName": "keys", "items": [{"key": "password", "path": "secret-password"}],
                }},
                {"name": "all", "projected": {"sources": [
                    {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
                    {"configMap": {"name": "settings"}},
                ]}},
            ],
        },
    })
}

#[test]
fn what_goes_wrong_is_told() {
    run(Options::default(), async |cluster| {
        let client = cluster.client();
        let container = |more: Value| {
            let mut container = json!({"name": "main", "image": "xebec/toolbox"});
            container
                .as_object_mut()
                .expect("an object")
                .extend(more.as_object().cloned().unwrap_or_default());
            json!({"terminationGracePeriodSeconds": 1, "containers": [container]})
        };
        let once = |mut spec: Value| {
            spec["restartPolicy"] = json!("Never");
            spec
        };
        for (name, spec) in [
            (
                "greedy",
                once(container(json!({
                    "command": ["sh", "/dev/zero"], "resources": {"limits": {"memory": "24Mi"}},
                }))),
            ),
            ("failing", once(container(json!({"command": ["sh", "-c", "echo sorry; exit 3"]})))),
            ("done", once(container(json!({"command": ["true"]})))),
            ("nowhere", container(json!({"image": "127.0.0.1:1/nowhere:1"}))),
            ("never", container(json!({"image": "example.com/none:1", "imagePullPolicy": "Never"}))),
            ("misnamed", container(json!({"image": "Not A Name"}))),
            ("unconfigured", container(json!({"envFrom": [{"configMapRef": {"name": "missing"}}]}))),
            (
                "sick",
                container(json!({
                    "command": ["sleep", "infinity"],
                    "livenessProbe": {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1},
                })),
            ),
            ("looping", container(json!({"command": ["false"]}))),
        ] {
            create(&pods(&client), json!({"metadata": {"name": name}, "spec": spec})).await.context(name)?;
        }
        ended(&client, "greedy", "OOMKilled", 137).await?;
        ended(&client, "failing", "Error", 3).await?;
        ended(&client, "done", "Completed", 0).await?;
        wait_for(&pods(&client), "done", PATIENCE, "has succeeded", |pod| phase(pod) == "Succeeded").await?;
        ensure!(cluster.logs("failing").await? == "sorry\n", "the log of a container that ended");
        waits(&client, "nowhere", &["ErrImagePull", "ImagePullBackOff"]).await?;
        waits(&client, "never", &["ErrImageNeverPull"]).await?;
        waits(&client, "misnamed", &["InvalidImageName"]).await?;
        waits(&client, "unconfigured", &["CreateContainerConfigError"]).await?;
        waits(&client, "looping", &["CrashLoopBackOff"]).await?;
        restarted(&client, "sick").await?;
        events(cluster).await?;
        let events = cluster.kubectl(&["describe", "pod", "nowhere"]).await?;
        ensure!(events.contains("127.0.0.1:1/nowhere:1") && events.contains("Failed"), "describe: {events}");
        Ok(())
    });
}

#[test]
fn termination_is_graceful_until_it_is_not() {
    run(Options::default(), async |cluster| {
        let client = cluster.client();
        // The server of the toolbox ends at SIGTERM by itself; a shell that waits for a child does not.
        ready_pod(
            cluster,
            json!({
                "metadata": {"name": "polite"},
                "spec": {"terminationGracePeriodSeconds": 60, "containers": [{
                    "name": "main", "image": "xebec/toolbox",
                    "lifecycle": {"preStop": {"exec": {"command": ["true"]}}},
                }]},
            }),
        )
        .await?;
        ready_pod(
            cluster,
            json!({
                "metadata": {"name": "stubborn"},
                "spec": {"terminationGracePeriodSeconds": 1, "containers": [{
                    "name": "main", "image": "xebec/toolbox",
                    "command": ["sh", "-c", "sh -c 'cat /dev/zero > /dev/null'; true"],
                }]},
            }),
        )
        .await?;
        for name in ["polite", "stubborn"] {
            pods(&client).delete(name, &DeleteParams::default()).await?;
        }
        for name in ["polite", "stubborn"] {
            xebec_testkit::wait_gone(&pods(&client), name, PATIENCE).await?;
        }
        Ok(())
    });
}

async fn ended(client: &Client, name: &str, reason: &str, code: i32) -> Result<()> {
    let what = format!("has ended with {reason} and {code}");
    wait_for(&pods(client), name, PATIENCE, &what, |pod| {
        let state = first(pod).and_then(|status| status.state.as_ref()?.terminated.as_ref());
        state.is_some_and(|state| state.reason.as_deref() == Some(reason) && state.exit_code == code)
    })
    .await
    .map(drop)
}

async fn waits(client: &Client, name: &str, reasons: &[&str]) -> Result<()> {
    let what = format!("waits because of {reasons:?}");
    wait_for(&pods(client), name, PATIENCE, &what, |pod| reasons.contains(&waiting_reason(pod)))
        .await
        .map(drop)
}

async fn restarted(client: &Client, name: &str) -> Result<()> {
    wait_for(&pods(client), name, PATIENCE, "was restarted", |pod| {
        let last = first(pod).and_then(|status| status.last_state.as_ref()?.terminated.as_ref());
        last.is_some() && first(pod).is_some_and(|status| status.restart_count > 0)
    })
    .await
    .map(drop)
}

/// The events that tell people why.
async fn events(cluster: &Cluster) -> Result<()> {
    use k8s_openapi::api::core::v1::Event;
    let events: Api<Event> = Api::default_namespaced(cluster.client());
    let wanted = [("sick", "Unhealthy"), ("sick", "Killing"), ("nowhere", "Failed"), ("looping", "BackOff")];
    let selection = kube::runtime::watcher::Config::default();
    xebec_testkit::wait_list(&events, selection, PATIENCE, &format!("events {wanted:?}"), |all| {
        wanted.iter().all(|(pod, reason)| {
            all.values().any(|event| {
                event.involved_object.name.as_deref() == Some(pod) && event.reason.as_deref() == Some(reason)
            })
        })
    })
    .await
    .map(drop)
}
