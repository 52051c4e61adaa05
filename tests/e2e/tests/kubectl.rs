//! What kubectl asks once: every verb as people use it, with upstream's newest, with one of v1.20 and with our own.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xebec_e2e::tools;
use xebec_testkit::{Cluster, Kubectl, NODE, Options, run};

const ALL: [Kubectl; 3] = [Kubectl::Newest, Kubectl::Old, Kubectl::Own];
/// Those that know every verb.
const UPSTREAM: [Kubectl; 2] = [Kubectl::Newest, Kubectl::Old];
/// Keeps a container there until it is told to end.
const IDLE: &str = "while true; do sleep 1000; done";

/// A kubectl in a namespace of its own.
struct Ctl<'a> {
    cluster: &'a Cluster,
    kubectl: Kubectl,
    namespace: String,
}

#[test]
fn workloads_roll_and_scale() {
    run(Options::default(), async |cluster| each(cluster, &ALL, rollouts).await);
}

#[test]
fn objects_change_and_go() {
    run(Options::default(), async |cluster| {
        each(cluster, &ALL, changes).await?;
        each(cluster, &ALL, cascades).await?;
        each(cluster, &ALL, lists).await
    });
}

#[test]
fn objects_are_shown_and_waited_for() {
    run(Options::default(), async |cluster| {
        each(cluster, &ALL, descriptions).await?;
        each(cluster, &ALL, watches).await
    });
}

#[test]
fn the_server_is_asked_what_it_can() {
    run(Options::default(), async |cluster| {
        each(cluster, &ALL, questions).await?;
        each(cluster, &UPSTREAM, refusals).await?;
        each(cluster, &UPSTREAM, nodes).await
    });
}

/// Runs a story with each of these kubectls.
async fn each(
    cluster: &Cluster,
    kubectls: &[Kubectl],
    story: impl AsyncFn(&Ctl<'_>) -> Result<()>,
) -> Result<()> {
    for kubectl in kubectls {
        let namespace = format!("with-{kubectl:?}").to_lowercase();
        let ctl = Ctl { cluster, kubectl: *kubectl, namespace };
        cluster.kubectl(&["create", "namespace", &ctl.namespace]).await?;
        story(&ctl).await.with_context(|| kubectl.name())?;
        cluster.kubectl(&["delete", "namespace", &ctl.namespace]).await?;
    }
    Ok(())
}

impl Ctl<'_> {
    /// Wants a line of words to succeed. Answers its standard output.
    async fn ok(&self, line: &str) -> Result<String> {
        self.words(&line.split_whitespace().collect::<Vec<_>>()).await
    }

    /// As [`Self::ok`], for words with spaces in them.
    async fn words(&self, words: &[&str]) -> Result<String> {
        self.cluster.run_kubectl(self.kubectl, &[&["-n", &self.namespace], words].concat()).await
    }

    /// Wants a line of words to succeed with this in its answer.
    async fn says(&self, line: &str, wanted: &str) -> Result<String> {
        let said = self.ok(line).await?;
        ensure!(said.contains(wanted), "{line}: no {wanted:?} in:\n{said}");
        Ok(said)
    }

    /// Wants a line of words to fail with this on standard error.
    async fn fails(&self, line: &str, wanted: &str) -> Result<()> {
        let words: Vec<&str> = ["-n", &self.namespace].into_iter().chain(line.split_whitespace()).collect();
        let said = self.cluster.try_run_kubectl(self.kubectl, &words, "").await?;
        ensure!(!said.success() && said.stderr.contains(wanted), "{line}: wanted {wanted:?}: {said:?}");
        Ok(())
    }

    /// Feeds objects to a line of words that ends with `-f -`. Answers exit code and standard output.
    async fn feed(&self, line: &str, objects: &Value) -> Result<(i32, String)> {
        let words: Vec<&str> = ["-n", &self.namespace].into_iter().chain(line.split_whitespace()).collect();
        let said = self.cluster.try_run_kubectl(self.kubectl, &words, &objects.to_string()).await?;
        ensure!(said.stderr.is_empty() || said.code == 0, "{line}: {said:?}");
        Ok((said.code, said.stdout))
    }

    fn is(&self, kubectl: Kubectl) -> bool {
        self.kubectl == kubectl
    }
}

/// A Deployment and its Service.
fn web(replicas: u32) -> Value {
    let container = json!({
        "name": "main", "image": "xebec/toolbox", "ports": [{"name": "http", "containerPort": 8080}],
    });
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": {"app": "web"}},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
                },
            },
        },
        {
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
            "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
        },
    ]})
}

async fn rollouts(ctl: &Ctl<'_>) -> Result<()> {
    let done = "deployment \"web\" successfully rolled out";
    let status = "rollout status deployment/web --timeout=60s";
    ctl.feed("apply -f -", &web(2)).await?;
    ctl.says(status, done).await?;
    ctl.says("scale deployment/web --replicas=3", "deployment.apps/web scaled").await?;
    ctl.says(status, done).await?;
    ctl.fails("scale deployment/web --replicas=1 --current-replicas=7", "xpected replicas to be 7").await?;

    let image = "docker.io/xebec/toolbox:latest";
    ctl.says(&format!("set image deployment/web main={image}"), "deployment.apps/web image updated").await?;
    ctl.says(status, done).await?;
    let of = "get deployment web -o jsonpath={.spec.template.spec.containers[0].image}";
    ensure!(ctl.ok(of).await? == image, "set image");
    let history = ctl.ok("rollout history deployment/web").await?;
    ensure!(revisions(&history) == ["1", "2"], "{history}");
    ctl.says("rollout history deployment/web --revision=2", image).await?;

    ctl.says("rollout undo deployment/web", "deployment.apps/web rolled back").await?;
    ctl.says(status, done).await?;
    ensure!(ctl.ok(of).await? == "xebec/toolbox", "rollout undo");
    ctl.says("rollout undo deployment/web --to-revision=2", "deployment.apps/web rolled back").await?;
    ctl.says(status, done).await?;
    ensure!(ctl.ok(of).await? == image, "rollout undo --to-revision");

    ctl.says("rollout pause deployment/web", "deployment.apps/web paused").await?;
    ctl.fails("rollout restart deployment/web", "paused").await?;
    ctl.says("rollout resume deployment/web", "deployment.apps/web resumed").await?;
    let before = ctl.ok("get pods -l app=web -o name").await?;
    ctl.says("rollout restart deployment/web", "deployment.apps/web restarted").await?;
    ctl.says(status, done).await?;
    let after = ctl.ok("get pods -l app=web -o name").await?;
    ensure!(before.lines().all(|pod| !after.contains(pod)), "rollout restart:\n{before}\n{after}");
    let history = ctl.ok("rollout history deployment/web").await?;
    ensure!(revisions(&history) == ["3", "4", "5"], "{history}");
    Ok(())
}

fn revisions(history: &str) -> Vec<&str> {
    let words = history.lines().filter_map(|line| line.split_whitespace().next());
    words.filter(|word| word.bytes().all(|byte| byte.is_ascii_digit())).collect()
}

async fn changes(ctl: &Ctl<'_>) -> Result<()> {
    let (_, said) = ctl.feed("apply -f -", &web(0)).await?;
    ensure!(said == "deployment.apps/web created\nservice/web created\n", "{said}");
    let (_, said) = ctl.feed("apply -f -", &web(0)).await?;
    ensure!(said == "deployment.apps/web unchanged\nservice/web unchanged\n", "{said}");
    let (_, said) = ctl.feed("apply --dry-run=server -f -", &web(1)).await?;
    ensure!(said.starts_with("deployment.apps/web configured (server dry run)\n"), "{said}");
    ensure!(ctl.ok("get deployment web -o jsonpath={.spec.replicas}").await? == "0", "a dry run changes");
    if !ctl.is(Kubectl::Own) {
        let (code, said) = ctl.feed("diff -f -", &web(0)).await?;
        ensure!(code == 0 && said.is_empty(), "no difference: {code} {said}");
        let (code, said) = ctl.feed("diff -f -", &web(1)).await?;
        ensure!(
            code == 1 && said.contains("-  replicas: 0\n+  replicas: 1\n"),
            "a difference: {code} {said}"
        );
    }
    let (_, said) = ctl.feed("apply -f -", &web(1)).await?;
    ensure!(said == "deployment.apps/web configured\nservice/web unchanged\n", "{said}");

    ctl.says("label service web colour=blue", "service/web labeled").await?;
    ctl.fails("label service web colour=red", "already has a value (blue), and --overwrite is false").await?;
    ctl.says("label service web colour=red --overwrite", "service/web labeled").await?;
    ctl.says("get services -l colour=red -o name", "service/web").await?;
    // v1.20 says "labeled" here too.
    ctl.says("label service web colour-", "labeled").await?;
    ctl.says("annotate service web note=here", "service/web annotated").await?;
    ctl.says("get service web -o jsonpath={.metadata.annotations.note}", "here").await?;
    ctl.says("annotate service web note-", "service/web annotated").await?;

    for (kind, patch, value) in [
        (
            "strategic",
            r#"{"spec":{"ports":[{"port":80,"name":"web"},{"port":81,"name":"more"}]}}"#,
            "web more",
        ),
        ("merge", r#"{"spec":{"ports":[{"port":82,"name":"other"}]}}"#, "other"),
        ("json", r#"[{"op":"replace","path":"/spec/ports/0/name","value":"last"}]"#, "last"),
    ] {
        let flag = format!("--type={kind}");
        let said = ctl.words(&["patch", "service", "web", &flag, "-p", patch]).await?;
        ensure!(said.trim() == "service/web patched", "{kind}: {said}");
        let names = ctl.ok("get service web -o jsonpath={.spec.ports[*].name}").await?;
        ensure!(names == value, "{kind}: {names}");
    }
    let nothing = ["patch", "service", "web", "--type=merge", "-p", r#"{"metadata":{"name":"web"}}"#];
    let said = ctl.words(&nothing).await?;
    ensure!(said.trim() == "service/web patched (no change)", "{said}");

    ctl.says("expose deployment web --name=more --port=80 --target-port=8080", "service/more exposed")
        .await?;
    ctl.says("create deployment made --image=xebec/toolbox", "deployment.apps/made created").await?;
    ctl.says("run made --image=xebec/toolbox --restart=Never", "pod/made created").await?;
    ctl.says("wait --for=condition=Ready pod/made --timeout=60s", "pod/made condition met").await?;
    let (_, said) = ctl.feed("delete -f -", &web(1)).await?;
    ensure!(said.matches(" deleted").count() == 2, "{said}");
    ctl.fails("get deployment web", "deployments.apps \"web\" not found").await
}

async fn cascades(ctl: &Ctl<'_>) -> Result<()> {
    for how in ["background", "foreground", "orphan"] {
        ctl.feed("apply -f -", &web(1)).await?;
        ctl.ok("rollout status deployment/web --timeout=60s").await?;
        ctl.says(&format!("delete deployment web --cascade={how}"), "deleted").await?;
        let left = ctl.ok("get replicasets,pods -l app=web -o name").await?;
        match how {
            // Whoever waits for the owner has waited for its dependents.
            "foreground" => ensure!(left.is_empty(), "foreground leaves: {left}"),
            "orphan" => {
                ensure!(left.contains("replicaset.apps/web-") && left.contains("pod/web-"), "orphan: {left}");
                ctl.says("delete replicasets -l app=web", "deleted").await?;
            }
            _ => {}
        }
        if how != "foreground" {
            // Pods that are gone already are no pods to wait for, which is an error to upstream.
            let line = "wait --for=delete pod -l app=web --timeout=60s";
            let words: Vec<&str> = ["-n", &ctl.namespace].into_iter().chain(line.split(' ')).collect();
            let said = ctl.cluster.try_run_kubectl(ctl.kubectl, &words, "").await?;
            ensure!(said.success() || said.both().contains("no matching resources found"), "{how}: {said:?}");
            let left = ctl.ok("get pods -l app=web -o name").await?;
            ensure!(left.is_empty(), "{how} leaves {left}");
        }
    }
    Ok(())
}

async fn lists(ctl: &Ctl<'_>) -> Result<()> {
    for index in 0..7 {
        ctl.ok(&format!("create configmap map-{index} --from-literal=key={index}")).await?;
    }
    let own = |said: &str| said.lines().filter(|line| line.contains("configmap/map-")).count();
    let chunks = ctl.ok("get configmaps --chunk-size=2 -o name").await?;
    ensure!(own(&chunks) == 7, "--chunk-size: {chunks}");
    let path = format!("/api/v1/namespaces/{}/configmaps", ctl.namespace);
    let page = ctl.ok(&format!("get --raw {path}?limit=2")).await?;
    let page: Value = serde_json::from_str(&page).context("a list")?;
    let metadata = &page["metadata"];
    ensure!(page["items"].as_array().is_some_and(|items| items.len() == 2), "limit=2: {page}");
    ensure!(metadata["continue"].is_string() && metadata["remainingItemCount"] == 6, "{metadata}");

    if ctl.is(Kubectl::Newest) {
        ctl.ok(&format!("delete --raw {path}?labelSelector=nobody")).await?;
        ctl.says("get configmap map-0 -o name", "map-0").await?;
        ctl.ok(&format!("delete --raw {path}?fieldSelector=metadata.name=map-0")).await?;
        ctl.fails("get configmap map-0", "configmaps \"map-0\" not found").await?;
        ctl.ok("create configmap map-0").await?;
    }
    let deleted = ctl.ok("delete configmaps --all").await?;
    ensure!(deleted.matches("\"map-").count() == 7, "delete --all: {deleted}");
    let left = ctl.ok("get configmaps -o name").await?;
    ensure!(own(&left) == 0, "delete --all leaves {left}");
    Ok(())
}

async fn descriptions(ctl: &Ctl<'_>) -> Result<()> {
    ctl.feed("apply -f -", &web(1)).await?;
    ctl.says("wait --for=condition=Available deployment/web --timeout=60s", "condition met").await?;
    let pods = ctl.ok("get pods -l app=web -o jsonpath={.items[*].metadata.name}").await?;
    for (what, words) in [
        (
            format!("pod {pods}"),
            &["Controlled By:  ReplicaSet/web-", "xebec/toolbox", "Scheduled", "Started"][..],
        ),
        ("deployment web".into(), &["1 desired | 1 updated | 1 total | 1 available", "ScalingReplicaSet"]),
        ("service web".into(), &["TargetPort:", "http/TCP", ":8080", "ClusterIP"]),
        (format!("node {NODE}"), &["KubeletReady", "Starting kubelet.", &pods, "PodCIDR:"]),
    ] {
        let said = ctl.ok(&format!("describe {what}")).await?;
        for word in words {
            ensure!(said.contains(word), "describe {what}: no {word:?} in:\n{said}");
        }
    }
    let wide = ctl.ok("get pods -o wide").await?;
    ensure!(wide.contains("NOMINATED NODE") && wide.contains(NODE), "{wide}");
    ctl.says("get pods -o yaml", "kind: Pod").await?;
    ctl.says("get events --field-selector=reason=Scheduled", "Successfully assigned").await.map(drop)
}

async fn watches(ctl: &Ctl<'_>) -> Result<()> {
    let start = |line: &str| {
        let words: Vec<&str> = ["-n", &ctl.namespace].into_iter().chain(line.split_whitespace()).collect();
        ctl.cluster.start_kubectl(ctl.kubectl, &words)
    };
    let watch = start("get configmaps -w")?;
    watch.until("the table", |said| said.contains("NAME") && said.contains("kube-root-ca.crt")).await?;
    ctl.ok("create configmap late --from-literal=a=1").await?;
    watch.until("an object that came", |said| said.contains("late   ")).await?;
    ctl.words(&["patch", "configmap", "late", "-p", r#"{"data":{"b":"2","c":"3"}}"#]).await?;
    watch
        .until("an object that changed", |said| {
            said.lines().any(|l| l.starts_with("late ") && cell(l, 1) == "3")
        })
        .await?;
    watch.interrupt().await?;

    let container = tools::container("main", IDLE, &json!({}));
    let mut pod = tools::pod("waited-for", &[container]);
    (pod["apiVersion"], pod["kind"]) = ("v1".into(), "Pod".into());
    ctl.feed("create -f -", &pod).await?;
    let ready = "wait --for=condition=Ready pod/waited-for --timeout=60s";
    ctl.says(ready, "pod/waited-for condition met").await?;
    // Since 1.23; a machine's newest may be Debian's.
    if ctl.is(Kubectl::Own) || ctl.is(Kubectl::Newest) && Kubectl::newest_minor()? >= 23 {
        ctl.says("wait --for=jsonpath={.status.phase}=Running pod/waited-for --timeout=60s", "met").await?;
    }
    ctl.says("delete pod waited-for", "deleted").await?;

    // A finalizer holds it until the waiting has begun.
    let held = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "held", "finalizers": ["example.com/hold"]},
    });
    ctl.feed("create -f -", &held).await?;
    let waiting = start("wait --for=delete configmap/held --timeout=60s -v=6")?;
    if !ctl.is(Kubectl::Own) {
        waiting.until("it asks", |said| said.contains("/configmaps")).await?;
    }
    ctl.says("delete configmap held --wait=false", "deleted").await?;
    let free = r#"{"metadata":{"finalizers":null}}"#;
    ctl.words(&["patch", "configmap", "held", "--type=merge", "-p", free]).await?;
    waiting.succeeds().await?;
    ctl.fails("get configmap held", "configmaps \"held\" not found").await?;
    ctl.fails("wait --for=condition=Never service/kubernetes -n default --timeout=1s", "timed out").await
}

fn cell(line: &str, index: usize) -> &str {
    line.split_whitespace().nth(index).unwrap_or_default()
}

async fn questions(ctl: &Ctl<'_>) -> Result<()> {
    ctl.says("auth can-i list pods", "yes").await?;
    let words = ["-n", &ctl.namespace, "auth", "can-i", "delete", "nodes", "--as=somebody"];
    let no = ctl.cluster.try_run_kubectl(ctl.kubectl, &words, "").await?;
    ensure!(no.code == 1 && no.stdout.starts_with("no"), "can-i: {no:?}");
    let resources = ctl.ok("api-resources").await?;
    for line in
        ["pods po v1 true Pod", "deployments deploy apps/v1 true Deployment", "nodes no v1 false Node"]
    {
        let found = resources.lines().any(|l| l.split_whitespace().collect::<Vec<_>>().join(" ") == line);
        ensure!(found, "api-resources: no {line:?} in:\n{resources}");
    }
    let named = ctl.ok("api-resources --api-group=apps --namespaced -o name").await?;
    ensure!(named == "deployments.apps\nreplicasets.apps\n", "{named}");
    ctl.says("api-versions", "apps/v1\n").await?;
    ctl.says("cluster-info", "running at").await?;
    ctl.says("version", "xebec").await.map(drop)
}

/// What the server does not have, in words that help.
async fn refusals(ctl: &Ctl<'_>) -> Result<()> {
    ctl.fails("top nodes", "Metrics API not available").await?;
    ctl.fails("top pods", "Metrics API not available").await?;
    let unknown = "the server could not find the requested resource";
    ctl.fails("create job once --image=xebec/toolbox", unknown).await?;
    ctl.fails("create quota small", unknown).await?;
    ctl.fails("get jobs", "the server doesn't have a resource type \"jobs\"").await?;
    let explained = ctl.ok("explain pods.spec.containers").await?;
    ensure!(explained.contains("imagePullPolicy\t<string>"), "explain: {explained}");
    let explained = ctl.ok("explain deployment").await?;
    ensure!(explained.contains("spec\t<"), "explain: {explained}");
    ctl.fails("explain pods.spec.sails", "\"sails\" does not exist").await
}

async fn nodes(ctl: &Ctl<'_>) -> Result<()> {
    ctl.says(&format!("taint node {NODE} tested=yes:NoSchedule"), "tainted").await?;
    let taints = format!("get node {NODE} -o jsonpath={{.spec.taints[*].key}}");
    ctl.says(&taints, "tested").await?;
    ctl.says(&format!("taint node {NODE} tested-"), "untainted").await?;
    ensure!(!ctl.ok(&taints).await?.contains("tested"), "taint -");

    ctl.feed("apply -f -", &web(2)).await?;
    ctl.ok("rollout status deployment/web --timeout=60s").await?;
    ctl.says("run alone --image=xebec/toolbox --restart=Never", "created").await?;
    ctl.says("wait --for=condition=Ready pod/alone --timeout=60s", "condition met").await?;
    let before = ctl.ok("get pods -o name").await?;
    ctl.fails(&format!("drain {NODE}"), "use --force to override").await?;
    ctl.says("get nodes", "Ready,SchedulingDisabled").await?;
    let drain = format!("drain {NODE} --force --ignore-daemonsets --grace-period=1 --timeout=60s");
    let drained = ctl.ok(&drain).await?;
    ensure!(drained.contains("pod/alone"), "drain: {drained}");
    let after = ctl.ok("get pods -o name").await?;
    ensure!(before.lines().all(|pod| !after.contains(pod)), "drained:\n{before}\n{after}");
    ctl.says(&format!("uncordon {NODE}"), "uncordoned").await?;
    ctl.ok("rollout status deployment/web --timeout=60s").await.map(drop)
}
