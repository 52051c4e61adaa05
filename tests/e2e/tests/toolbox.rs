//! The example that needs no registry, from apply to delete, by upstream's kubectl.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::runtime::watcher;
use xebec_e2e::{pods, ready_pods};
use xebec_testkit::{Cluster, Options, PATIENCE, run, wait_list};

const MANIFEST: &str = include_str!("../../../examples/toolbox.yaml");

/// A request as `printf` of a shell takes it.
const REQUEST: &str = r"GET /hostname HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n";

#[test]
fn the_toolbox_serves_scales_and_rolls() {
    run(Options::default(), async |cluster| {
        cluster.apply(MANIFEST).await?;
        let names = ready_pods(&cluster.client(), "app=toolbox", 2).await?;
        endpoints(cluster, 2).await?;
        let service: Service = Api::default_namespaced(cluster.client()).get("toolbox").await?;
        let spec = service.spec.context("the Service has a spec")?;
        let address = spec.cluster_ip.context("the Service has an address")?;
        let port = spec.ports.iter().flatten().find_map(|port| port.node_port).context("a node port")?;

        reach_it_everywhere(cluster, &names, &address, port).await?;
        logs_and_exec(cluster, &names[0]).await?;
        scale_and_roll(cluster, port).await?;

        cluster.kubectl(&["delete", "deployment,service", "toolbox"]).await?;
        wait_list(&pods(&cluster.client()), watcher::Config::default(), PATIENCE, "no pods", |all| {
            all.is_empty()
        })
        .await?;
        let gone = get(cluster, port, "/hostname");
        ensure!(gone.is_err(), "the node port still answers: {gone:?}");
        Ok(())
    });
}

async fn reach_it_everywhere(cluster: &Cluster, names: &[String], address: &str, port: i32) -> Result<()> {
    let (client, other) = (&names[0], &names[1]);
    let answered_by_one = |text: &str| names.iter().any(|name| name == text.trim());

    // From a pod by address, by short and by full name, and to itself (a hairpin) sooner or later.
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..40 {
        let answer = cluster.exec(client, &["get", &format!("http://{address}/hostname")]).await?;
        ensure!(answer.success() && answered_by_one(&answer.stdout), "ClusterIP from a pod: {answer:?}");
        seen.insert(answer.stdout);
        if seen.len() == 2 {
            break;
        }
    }
    ensure!(seen.len() == 2, "40 requests to two endpoints all went to {seen:?}");
    for name in ["toolbox", "toolbox.default", "toolbox.default.svc.cluster.local"] {
        let answer = cluster.exec(other, &["get", &format!("http://{name}/hostname")]).await?;
        ensure!(answer.success() && answered_by_one(&answer.stdout), "{name} from a pod: {answer:?}");
    }
    let lookup = cluster.exec(other, &["lookup", "toolbox.default.svc.cluster.local", "A"]).await?;
    ensure!(lookup.success() && lookup.stdout.contains(address), "lookup: {lookup:?}");
    let unknown = cluster.exec(other, &["lookup", "nobody.default.svc.cluster.local", "A"]).await?;
    ensure!(!unknown.success() && unknown.both().contains("NXDOMAIN"), "lookup of nobody: {unknown:?}");

    // From the node by ClusterIP, from outside by node port.
    let script = format!("exec 3<>/dev/tcp/{address}/80; printf '{REQUEST}' >&3; cat <&3");
    let answer = cluster.run_in_netns(&["bash", "-c", &script]).await?;
    ensure!(answer.stdout.lines().last().is_some_and(answered_by_one), "ClusterIP from the node: {answer:?}");
    let answer = get(cluster, port, "/hostname")?;
    ensure!(answered_by_one(&answer), "node port from outside: {answer:?}");
    // Pods see each other's own addresses.
    let pod = pods(&cluster.client()).get(other).await?;
    let ip = pod.status.and_then(|status| status.pod_ip).context("a pod address")?;
    let own = pods(&cluster.client()).get(client).await?.status.and_then(|status| status.pod_ip);
    let answer = cluster.exec(client, &["get", &format!("http://{ip}:8080/clientip")]).await?;
    ensure!(answer.stdout.starts_with(&own.context("a pod address")?), "pod to pod without NAT: {answer:?}");
    Ok(())
}

async fn logs_and_exec(cluster: &Cluster, pod: &str) -> Result<()> {
    let log = cluster.kubectl(&["logs", pod]).await?;
    ensure!(log.contains("serving http on :8080"), "logs: {log}");
    let tail = cluster.kubectl(&["logs", "--tail=1", "--timestamps", "deployment/toolbox"]).await?;
    ensure!(tail.lines().count() == 1 && tail.starts_with("20"), "logs --tail --timestamps: {tail}");

    let said = cluster.try_kubectl(&["exec", pod, "--", "sh", "-c", "echo out; exit 7"], "").await?;
    ensure!(said.code == 7 && said.stdout == "out\n", "exit code of exec: {said:?}");
    let fed = cluster.try_kubectl(&["exec", "-i", pod, "--", "cat"], "over stdin\n").await?;
    ensure!(fed.success() && fed.stdout == "over stdin\n", "exec -i: {fed:?}");
    let missing = cluster.try_kubectl(&["exec", pod, "--", "/no/such/program"], "").await?;
    ensure!(
        !missing.success() && missing.both().contains("/no/such/program"),
        "no such program: {missing:?}"
    );
    Ok(())
}

async fn scale_and_roll(cluster: &Cluster, port: i32) -> Result<()> {
    cluster.kubectl(&["scale", "deployment/toolbox", "--replicas=3"]).await?;
    ready_pods(&cluster.client(), "app=toolbox", 3).await?;
    endpoints(cluster, 3).await?;

    for (change, green) in [
        (&["set", "env", "deployment/toolbox", "COLOUR=green"][..], true),
        (&["rollout", "undo", "deployment/toolbox"][..], false),
    ] {
        cluster.kubectl(change).await?;
        cluster.kubectl(&["rollout", "status", "deployment/toolbox", "--timeout=50s"]).await?;
        let names = ready_pods(&cluster.client(), "app=toolbox", 3).await?;
        for name in &names {
            let answer = cluster.exec(name, &["env"]).await?;
            ensure!(answer.stdout.contains("COLOUR=green\n") == green, "{change:?}: {answer:?}");
        }
        let answer = get(cluster, port, "/env")?;
        ensure!(answer.contains("COLOUR: green\n") == green, "{change:?} by node port: {answer}");
    }
    let history = cluster.kubectl(&["rollout", "history", "deployment/toolbox"]).await?;
    ensure!(history.contains('3') && !history.contains("\n1 "), "history after undo: {history}");
    Ok(())
}

async fn endpoints(cluster: &Cluster, count: usize) -> Result<()> {
    let slices: Api<EndpointSlice> = Api::default_namespaced(cluster.client());
    let selection = watcher::Config::default().labels("kubernetes.io/service-name=toolbox");
    wait_list(&slices, selection, PATIENCE, &format!("{count} ready endpoints"), |all| {
        let ends = all.values().flat_map(|slice| slice.endpoints.iter().flatten());
        ends.filter(|end| end.conditions.as_ref().and_then(|is| is.ready) == Some(true)).count() == count
    })
    .await
    .map(drop)
}

/// The body of an HTTP answer of the node, from outside of it.
fn get(cluster: &Cluster, port: i32, path: &str) -> Result<String> {
    let address = SocketAddr::new(cluster.address(), u16::try_from(port)?);
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).context("connect")?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").context("an HTTP answer")?;
    Ok(body.to_owned())
}
