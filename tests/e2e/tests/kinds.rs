//! Every kind of the API through the same verbs, by the `kube` client and by upstream's kubectl.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::WatchParams;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchEvent,
};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use xebec_e2e::create;
use xebec_testkit::{Cluster, Kubectl, Options, PATIENCE, run, wait_for};

/// A kind with an object of it.
struct Kind {
    resource: ApiResource,
    namespaced: bool,
    /// CRDs' instances know no strategic merge patch.
    strategic: bool,
    object: Value,
}

#[test]
fn every_kind_has_every_verb() {
    run(Options::default(), async |cluster| {
        define_crd(&cluster.client()).await?;
        for kind in kinds() {
            let name = kind.resource.kind.clone();
            verbs(&cluster.client(), &kind).await.with_context(|| name)?;
        }
        Ok(())
    });
}

#[test]
fn kubectl_knows_every_kind() {
    run(Options::default(), async |cluster| {
        let mut all = kinds();
        all.retain(|kind| kind.strategic);
        let list = json!({
            "apiVersion": "v1", "kind": "List",
            "items": all.iter().map(|kind| kind.object.clone()).collect::<Vec<_>>(),
        });
        let file = cluster.scratch().join("all.json").display().to_string();
        std::fs::write(&file, list.to_string())?;
        let made = cluster.kubectl(&["apply", "-f", &file]).await?;
        ensure!(made.lines().filter(|line| line.ends_with(" created")).count() == all.len(), "{made}");
        let again = cluster.kubectl(&["apply", "-f", &file]).await?;
        for line in again.lines().filter(|line| !line.is_empty()) {
            let (name, verdict) = line.rsplit_once(' ').context("a line of apply")?;
            let wanted = if CONFIGURED.contains(&name) { "configured" } else { "unchanged" };
            ensure!(verdict == wanted, "applied again: {line}");
        }

        let names = cluster.kubectl(&["get", "-f", &file, "-o", "name"]).await?;
        ensure!(names.lines().count() == all.len(), "{names}");
        describe(cluster, &all).await?;
        for (kind, columns) in TABLES {
            let table = cluster.kubectl(&["get", kind, "-o", "wide"]).await?;
            let head: Vec<&str> =
                table.lines().next().unwrap_or_default().split("  ").map(str::trim).collect();
            let head: Vec<&str> = head.into_iter().filter(|column| !column.is_empty()).collect();
            ensure!(head == *columns, "columns of {kind}: {head:?}");
            ensure!(table.lines().any(|line| line.starts_with("sample")), "{table}");
        }
        let label = cluster.kubectl(&["label", "configmap", "sample", "colour=blue"]).await?;
        ensure!(label.contains("labeled"), "{label}");
        let selected = cluster.kubectl(&["get", "cm", "-l", "colour=blue", "-o", "name"]).await?;
        ensure!(selected.trim() == "configmap/sample", "{selected}");
        // The pod is bound to a node that does not exist, where nobody ends it: after its quarantine of 40 s it is the
        // pod garbage collector's, so kubectl waits that long.
        let deleted = cluster.kubectl(&["delete", "-f", &file, "--now"]).await?;
        ensure!(deleted.lines().filter(|line| line.contains(" deleted")).count() >= all.len(), "{deleted}");
        let left = cluster.kubectl(&["get", "-f", &file, "-o", "name", "--ignore-not-found"]).await?;
        ensure!(left.trim().is_empty(), "still there: {left}");
        Ok(())
    });
}

async fn describe(cluster: &Cluster, kinds: &[Kind]) -> Result<()> {
    // Before 1.21 kubectl looked for a beta version of EndpointSlices.
    let current = Kubectl::newest_minor()? >= 21;
    let known = kinds.iter().filter(|kind| current || kind.resource.kind != "EndpointSlice");
    let known: Vec<&Value> = known.map(|kind| &kind.object).collect();
    let file = cluster.scratch().join("known.json").display().to_string();
    std::fs::write(&file, json!({"apiVersion": "v1", "kind": "List", "items": known}).to_string())?;
    let described = cluster.kubectl(&["describe", "-f", &file]).await?;
    ensure!(described.matches("Name:").count() >= known.len(), "{described}");
    Ok(())
}

#[test]
fn kubectl_knows_custom_kinds() {
    run(Options::default(), async |cluster| {
        define_crd(&cluster.client()).await?;
        let resources = cluster.kubectl(&["api-resources", "-o", "name"]).await?;
        ensure!(resources.lines().any(|line| line == "boats.example.com"), "{resources}");
        let boat = kinds().into_iter().find(|kind| !kind.strategic).context("one kind is custom")?;
        let boat = boat.object.to_string();
        let created = cluster.try_kubectl(&["create", "-f", "-"], &boat).await?;
        ensure!(created.success(), "{created:?}");
        cluster.apply(&boat.replace("\"masts\":2", "\"masts\":3")).await?;
        let table = cluster.kubectl(&["get", "boats"]).await?;
        let cells: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        ensure!(cells[0] == ["NAME", "MASTS", "AGE"] && cells[1][..2] == ["sample", "3"], "{table}");
        let described = cluster.kubectl(&["describe", "boat", "sample"]).await?;
        ensure!(described.contains("Masts:"), "{described}");
        let wrong = cluster.try_kubectl(&["apply", "-f", "-"], &boat.replace("masts", "sails")).await?;
        ensure!(!wrong.success() && wrong.both().contains("sails"), "unknown field: {wrong:?}");
        let explained = cluster.kubectl(&["explain", "boat.spec"]).await?;
        ensure!(explained.contains("masts"), "{explained}");
        cluster.kubectl(&["delete", "boat", "sample"]).await?;
        cluster.kubectl(&["delete", "crd", "boats.example.com"]).await?;
        let gone = cluster.try_kubectl(&["get", "boats"], "").await?;
        ensure!(!gone.success(), "{gone:?}");
        Ok(())
    });
}

/// What kubectl sends a patch for every time: `stringData` is never in the stored Secret, and lists without merge
/// keys are sent whole because the server's defaults in them differ from the manifest.
const CONFIGURED: &[&str] = &["secret/sample", "endpoints/sample", "endpointslice.discovery.k8s.io/sample"];

/// Columns as upstream prints them with `-o wide`.
const TABLES: &[(&str, &[&str])] = &[
    ("configmaps", &["NAME", "DATA", "AGE"]),
    ("secrets", &["NAME", "TYPE", "DATA", "AGE"]),
    ("namespaces", &["NAME", "STATUS", "AGE"]),
    ("services", &["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE", "SELECTOR"]),
    (
        "pods",
        &["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE", "NOMINATED NODE", "READINESS GATES"],
    ),
    ("deployments", &["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE", "CONTAINERS", "IMAGES", "SELECTOR"]),
    ("replicasets", &["NAME", "DESIRED", "CURRENT", "READY", "AGE", "CONTAINERS", "IMAGES", "SELECTOR"]),
    ("endpointslices", &["NAME", "ADDRESSTYPE", "PORTS", "ENDPOINTS", "AGE"]),
    ("leases", &["NAME", "HOLDER", "AGE"]),
    ("roles", &["NAME", "CREATED AT"]),
    ("rolebindings", &["NAME", "ROLE", "AGE", "USERS", "GROUPS", "SERVICEACCOUNTS"]),
];

#[test]
fn strangers_are_turned_away() {
    run(Options::default(), async |cluster| {
        let anonymous = stranger(cluster, None)?;
        let (status, body) = ask(&anonymous, "/api/v1/namespaces/default/pods").await?;
        let words = r#"pods is forbidden: User \"system:anonymous\" cannot list resource \"pods\""#;
        ensure!(status == 403 && body.contains(words), "anonymous: {status} {body}");
        for path in ["/version", "/healthz", "/livez", "/readyz"] {
            let (status, body) = ask(&anonymous, path).await?;
            ensure!(status == 200, "anonymous {path}: {status} {body}");
        }
        let (status, body) = ask(&anonymous, "/metrics").await?;
        ensure!(status == 403, "anonymous /metrics: {status} {body}");

        let (status, body) = ask(&stranger(cluster, Some("no-such-token"))?, "/api/v1/namespaces").await?;
        ensure!(status == 401 && body.contains("Unauthorized"), "bad token: {status} {body}");

        // An account may what its roles say, and no more.
        let accounts: Api<ServiceAccount> = Api::default_namespaced(cluster.client());
        wait_for(&accounts, "default", PATIENCE, "exists", |_| true).await?;
        let request = serde_json::from_value(json!({"spec": {"audiences": []}}))?;
        let token = accounts.create_token_request("default", &PostParams::default(), &request).await?;
        let token = token.status.context("a token request is answered")?.token;
        let account = stranger(cluster, token.as_deref())?;
        let (status, body) = ask(&account, "/api/v1/namespaces/default/configmaps").await?;
        ensure!(status == 403 && body.contains("system:serviceaccount:default:default"), "{status} {body}");
        let roles: Api<Role> = Api::default_namespaced(cluster.client());
        create(
            &roles,
            json!({
                "metadata": {"name": "reader"},
                "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}],
            }),
        )
        .await?;
        let bindings: Api<RoleBinding> = Api::default_namespaced(cluster.client());
        create(
            &bindings,
            json!({
                "metadata": {"name": "reader"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
                "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}],
            }),
        )
        .await?;
        let allowed = async {
            // Rights follow the binding by a watch.
            while ask(&account, "/api/v1/namespaces/default/configmaps").await?.0 != 200 {
                tokio::task::yield_now().await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(PATIENCE, allowed).await.context("the binding has no effect")??;
        let (status, _) = ask(&account, "/api/v1/namespaces/kube-system/configmaps").await?;
        ensure!(status == 403, "the role of one namespace works in another: {status}");
        Ok(())
    });
}

#[test]
fn kubectl_makes_what_it_has_verbs_for() {
    run(Options::default(), async |cluster| {
        for words in [
            &["create", "namespace", "made"][..],
            &["create", "configmap", "made", "--from-literal=key=value"],
            &["create", "secret", "generic", "made", "--from-literal=key=value"],
            &["create", "serviceaccount", "made"],
            &["create", "role", "made", "--verb=get", "--resource=pods"],
            &["create", "rolebinding", "made", "--role=made", "--serviceaccount=default:made"],
            &["create", "clusterrole", "made", "--verb=get", "--resource=pods"],
            &["create", "clusterrolebinding", "made", "--clusterrole=made", "--user=me"],
            &["auth", "can-i", "get", "pods", "--as=me"],
            &["create", "deployment", "made", "--image=xebec/toolbox"],
            &["rollout", "status", "deployment/made", "--timeout=50s"],
            &["expose", "deployment", "made", "--port=80", "--target-port=8080"],
            &["run", "made-too", "--image=xebec/toolbox", "--restart=Never"],
            &["wait", "pod/made-too", "--for=condition=Ready", "--timeout=50s"],
            &["get", "all", "-A"],
            &["cluster-info"],
            &["version"],
        ] {
            cluster.kubectl(words).await?;
        }
        if Kubectl::newest_minor()? >= 24 {
            cluster.kubectl(&["create", "token", "made"]).await?;
        }
        Ok(())
    });
}

fn stranger(cluster: &Cluster, token: Option<&str>) -> Result<Client> {
    let kubeconfig = kube::config::Kubeconfig::read_from(cluster.kubeconfig())?;
    let authority = kubeconfig.clusters.iter().find_map(|named| {
        named.cluster.as_ref().and_then(|cluster| cluster.certificate_authority_data.clone())
    });
    let mut stripped = kubeconfig.clone();
    for user in &mut stripped.auth_infos {
        let info = match token {
            Some(token) => json!({"token": token}),
            None => json!({}),
        };
        user.auth_info = Some(serde_json::from_value(info)?);
    }
    ensure!(authority.is_some(), "the kubeconfig has no CA");
    let options = kube::config::KubeConfigOptions::default();
    let config = tokio::task::block_in_place(|| {
        tokio::runtime::Handle::current().block_on(kube::Config::from_custom_kubeconfig(stripped, &options))
    });
    Ok(Client::try_from(config?)?)
}

async fn ask(client: &Client, path: &str) -> Result<(u16, String)> {
    use kube::client::Body;
    let request = http::Request::get(path).body(Body::empty())?;
    let response = client.send(request).await?;
    let status = response.status().as_u16();
    let body = response.into_body().collect_bytes().await?;
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

/// create, get, list by label, watch, the patches, update with precondition, delete.
async fn verbs(client: &Client, kind: &Kind) -> Result<()> {
    let api: Api<DynamicObject> = if kind.namespaced {
        Api::default_namespaced_with(client.clone(), &kind.resource)
    } else {
        Api::all_with(client.clone(), &kind.resource)
    };
    let start = api.list(&ListParams::default()).await.context("list")?;
    let start = start.metadata.resource_version.context("a list has a revision")?;
    let object: DynamicObject = serde_json::from_value(kind.object.clone())?;
    let made = api.create(&PostParams::default(), &object).await.context("create")?;
    ensure!(made.uid().is_some() && made.creation_timestamp().is_some(), "no uid or time: {made:?}");
    let twice = api.create(&PostParams::default(), &object).await;
    ensure!(matches!(&twice, Err(kube::Error::Api(status)) if status.code == 409), "twice: {twice:?}");

    let merge = json!({"metadata": {"labels": {"merge": "yes"}, "annotations": {"gone": "soon"}}});
    let patched =
        api.patch("sample", &PatchParams::default(), &Patch::Merge(merge)).await.context("merge patch")?;
    ensure!(patched.labels().get("merge").is_some_and(|value| value == "yes"), "{patched:?}");
    let operations = json!([{"op": "remove", "path": "/metadata/annotations/gone"}]);
    let operations = Patch::Json::<()>(serde_json::from_value(operations)?);
    let patched = api.patch("sample", &PatchParams::default(), &operations).await.context("JSON patch")?;
    ensure!(!patched.annotations().contains_key("gone"), "{patched:?}");
    let strategic = Patch::Strategic(json!({"metadata": {"labels": {"strategic": "yes"}}}));
    let answer = api.patch("sample", &PatchParams::default(), &strategic).await;
    if kind.strategic {
        let patched = answer.context("strategic merge patch")?;
        ensure!(patched.labels().len() >= 2, "{patched:?}");
    } else {
        ensure!(matches!(&answer, Err(kube::Error::Api(status)) if status.code == 415), "{answer:?}");
    }
    // Server-side apply comes later; until then it is refused in words that help.
    let apply = api.patch("sample", &PatchParams::apply("e2e"), &Patch::Apply(&kind.object)).await;
    ensure!(matches!(&apply, Err(kube::Error::Api(status)) if status.code == 415), "apply: {apply:?}");

    let listed = api.list(&ListParams::default().labels("merge=yes")).await.context("list by label")?;
    ensure!(listed.items.len() == 1, "{} listed", listed.items.len());
    let mut stale = patched.clone();
    stale.metadata.resource_version = made.resource_version();
    let stale = api.replace("sample", &PostParams::default(), &stale).await;
    ensure!(matches!(&stale, Err(kube::Error::Api(status)) if status.code == 409), "stale: {stale:?}");
    update(&api).await.context("update")?;
    let other = kube::api::Preconditions { uid: Some("not-this-one".into()), resource_version: None };
    let wrong = DeleteParams { preconditions: Some(other), ..DeleteParams::default() };
    let wrong = api.delete("sample", &wrong).await;
    ensure!(matches!(&wrong, Err(kube::Error::Api(status)) if status.code == 409), "precondition: {wrong:?}");
    let delete = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    api.delete("sample", &delete).await.context("delete")?;
    history(&api, &start).await.context("watch")
}

/// Controllers write to some kinds meanwhile: a conflict means to look again.
async fn update(api: &Api<DynamicObject>) -> Result<()> {
    for _ in 0..10 {
        let mut fresh = api.get("sample").await.context("get")?;
        fresh.labels_mut().insert("update".into(), "yes".into());
        match api.replace("sample", &PostParams::default(), &fresh).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Ok(updated) => {
                ensure!(updated.labels().contains_key("update"), "{updated:?}");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
    }
    anyhow::bail!("10 conflicts in a row")
}

/// The watch from before the first write tells all of it.
async fn history(api: &Api<DynamicObject>, start: &str) -> Result<()> {
    let parameters = WatchParams::default().fields("metadata.name=sample").timeout(30);
    let mut events = api.watch(&parameters, start).await?.boxed();
    let mut seen = BTreeSet::new();
    let mut last: u64 = start.parse()?;
    while let Some(event) = events.try_next().await? {
        let (word, object) = match event {
            WatchEvent::Added(object) => ("added", object),
            WatchEvent::Modified(object) => ("modified", object),
            WatchEvent::Deleted(object) => ("deleted", object),
            WatchEvent::Bookmark(_) => continue,
            WatchEvent::Error(status) => anyhow::bail!("{status}"),
        };
        let revision = object.resource_version().unwrap_or_default().parse()?;
        ensure!(revision > last, "revisions go back: {revision} after {last}");
        last = revision;
        seen.insert(word);
        if word == "deleted" {
            break;
        }
    }
    ensure!(seen == BTreeSet::from(["added", "deleted", "modified"]), "{seen:?}");
    Ok(())
}

async fn define_crd(client: &Client) -> Result<()> {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    create(
        &definitions,
        json!({
            "metadata": {"name": "boats.example.com"},
            "spec": {
                "group": "example.com", "scope": "Namespaced",
                "names": {"plural": "boats", "singular": "boat", "kind": "Boat", "listKind": "BoatList"},
                "versions": [{
                    "name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {
                        "type": "object", "properties": {"masts": {"type": "integer", "minimum": 1}},
                    }}}},
                    "additionalPrinterColumns": [
                        {"name": "Masts", "type": "integer", "jsonPath": ".spec.masts"},
                        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                    ],
                }],
            },
        }),
    )
    .await?;
    wait_for(&definitions, "boats.example.com", PATIENCE, "is established", |definition| {
        let conditions = definition.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.into_iter().any(|condition| condition.type_ == "Established" && condition.status == "True")
    })
    .await?;
    let boats = ApiResource::from_gvk(&kube::api::GroupVersionKind::gvk("example.com", "v1", "Boat"));
    let boats: Api<DynamicObject> = Api::default_namespaced_with(client.clone(), &boats);
    let wrong = json!({
        "apiVersion": "example.com/v1", "kind": "Boat", "metadata": {"name": "raft"}, "spec": {"masts": 0},
    });
    let wrong = boats.create(&PostParams::default(), &serde_json::from_value(wrong)?).await;
    ensure!(matches!(&wrong, Err(kube::Error::Api(status)) if status.code == 422), "no masts: {wrong:?}");
    Ok(())
}

fn kinds() -> Vec<Kind> {
    let all: &[(&str, &str, bool, Value)] = &[
        ("v1", "Namespace", false, json!({})),
        ("v1", "ConfigMap", true, json!({"data": {"key": "value"}})),
        ("v1", "Secret", true, json!({"type": "Opaque", "stringData": {"key": "value"}})),
        ("v1", "ServiceAccount", true, json!({})),
        // To a node that does not exist: nothing runs it.
        ("v1", "Pod", true, json!({"spec": {"nodeName": "elsewhere", "containers": [CONTAINER.clone()]}})),
        ("v1", "Service", true, json!({"spec": {"ports": [{"port": 80}]}})),
        (
            "v1",
            "Endpoints",
            true,
            json!({"subsets": [{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 1}]}]}),
        ),
        ("v1", "Node", false, json!({})),
        (
            "v1",
            "Event",
            true,
            json!({
                "involvedObject": {"kind": "Pod", "namespace": "default", "name": "sample"},
                "reason": "Tested", "message": "hello", "type": "Normal",
            }),
        ),
        (
            "discovery.k8s.io/v1",
            "EndpointSlice",
            true,
            json!({
                "addressType": "IPv4", "endpoints": [{"addresses": ["192.0.2.1"]}],
                "ports": [{"port": 80, "name": ""}],
            }),
        ),
        ("coordination.k8s.io/v1", "Lease", true, json!({"spec": {"holderIdentity": "me"}})),
        ("apps/v1", "Deployment", true, json!({"spec": WORKLOAD.clone()})),
        ("apps/v1", "ReplicaSet", true, json!({"spec": WORKLOAD.clone()})),
        ("rbac.authorization.k8s.io/v1", "Role", true, json!({"rules": RULES.clone()})),
        ("rbac.authorization.k8s.io/v1", "ClusterRole", false, json!({"rules": RULES.clone()})),
        ("rbac.authorization.k8s.io/v1", "RoleBinding", true, json!({"roleRef": role("Role")})),
        (
            "rbac.authorization.k8s.io/v1",
            "ClusterRoleBinding",
            false,
            json!({"roleRef": role("ClusterRole")}),
        ),
        ("example.com/v1", "Boat", true, json!({"spec": {"masts": 2}})),
    ];
    all.iter().map(|(version, kind, namespaced, rest)| described(version, kind, *namespaced, rest)).collect()
}

static CONTAINER: std::sync::LazyLock<Value> =
    std::sync::LazyLock::new(|| json!({"name": "main", "image": "xebec/toolbox"}));
static WORKLOAD: std::sync::LazyLock<Value> = std::sync::LazyLock::new(|| {
    json!({
        "replicas": 0,
        "selector": {"matchLabels": {"app": "sample"}},
        "template": {"metadata": {"labels": {"app": "sample"}}, "spec": {"containers": [CONTAINER.clone()]}},
    })
});
static RULES: std::sync::LazyLock<Value> =
    std::sync::LazyLock::new(|| json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]));

fn role(kind: &str) -> Value {
    json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": "sample"})
}

fn described(version: &str, kind: &str, namespaced: bool, rest: &Value) -> Kind {
    let (group, bare) = version.split_once('/').unwrap_or(("", version));
    let mut object = rest.clone();
    object["apiVersion"] = json!(version);
    object["kind"] = json!(kind);
    object["metadata"] = json!({"name": "sample"});
    if namespaced {
        object["metadata"]["namespace"] = json!("default");
    }
    let mut resource = ApiResource::from_gvk(&kube::api::GroupVersionKind::gvk(group, bare, kind));
    if kind == "Endpoints" {
        resource.plural = "endpoints".into();
    }
    Kind { resource, namespaced, strategic: kind != "Boat", object }
}
