//! What kubectl keeps open: exec, attach, logs that go on, port-forward and cp; with upstream's newest, with one of
//! v1.20, which speaks SPDY and v1 of everything, and with our own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use serde_json::json;
use xebec_e2e::{create, first, phase, pods, ready_pod, ready_pods, tools};
use xebec_testkit::{Cluster, Kubectl, Options, PATIENCE, Running, run, wait_for, wait_gone};

const ALL: [Kubectl; 3] = [Kubectl::Newest, Kubectl::Old, Kubectl::Own];
/// Those that know every verb.
const UPSTREAM: [Kubectl; 2] = [Kubectl::Newest, Kubectl::Old];
/// Nothing happens in the container until somebody executes something.
const IDLE: &str = "while true; do sleep 1000; done";

#[test]
fn exec_passes_everything_on() {
    run(Options::default(), async |cluster| {
        let idle = tools::container("main", IDLE, &json!({}));
        let other = tools::container("other", IDLE, &json!({}));
        ready_pod(cluster, tools::pod("tools", &[idle, other])).await?;
        for kubectl in ALL {
            exec(cluster, kubectl).await.with_context(|| kubectl.name())?;
            terminal(cluster, kubectl).await.with_context(|| kubectl.name())?;
        }
        Ok(())
    });
}

#[test]
fn attach_joins_what_runs() {
    run(Options::default(), async |cluster| {
        for (index, kubectl) in UPSTREAM.into_iter().enumerate() {
            attach(cluster, kubectl, &format!("pipe-{index}")).await.with_context(|| kubectl.name())?;
            attach_terminal(cluster, kubectl, &format!("terminal-{index}"))
                .await
                .with_context(|| kubectl.name())?;
            let words =
                &["run", "once", "-i", "--rm", "--restart=Never", "--image=xebec/toolbox", "--", "cat"];
            let said = cluster.try_run_kubectl(kubectl, words, "through a pod\n").await?;
            ensure!(said.success() && said.stdout.contains("through a pod\n"), "run -i --rm: {said:?}");
            wait_gone(&pods(&cluster.client()), "once", PATIENCE).await?;
        }
        Ok(())
    });
}

#[test]
fn logs_follow_and_select() {
    run(Options::default(), async |cluster| {
        // It fails once, so that there is a previous log.
        let again = "if [ -e /shared/before ]; then echo second; while true; do sleep 1000; done; fi; \
                     touch /shared/before; echo first; exit 1";
        create(&pods(&cluster.client()), tools::pod("again", &[tools::container("main", again, &json!({}))]))
            .await?;
        for (index, kubectl) in ALL.into_iter().enumerate() {
            logs(cluster, kubectl, &format!("chatty-{index}")).await.with_context(|| kubectl.name())?;
        }
        wait_for(&pods(&cluster.client()), "again", PATIENCE, "was restarted", |pod| {
            first(pod).is_some_and(|status| status.restart_count == 1 && status.ready)
        })
        .await?;
        for kubectl in ALL {
            let before = cluster.run_kubectl(kubectl, &["logs", "again", "--previous"]).await?;
            ensure!(before == "first\n", "{}: logs --previous: {before}", kubectl.name());
            let now = cluster.run_kubectl(kubectl, &["logs", "again"]).await?;
            ensure!(now == "second\n", "{}: logs: {now}", kubectl.name());
        }
        Ok(())
    });
}

#[test]
fn a_log_loses_nothing_when_it_is_rotated() {
    run(Options::default(), async |cluster| {
        // More than the 10 MiB at which a log is rotated, and then on and on.
        let padding = "x".repeat(1000);
        let script = format!(
            "i=0; while [ $i -lt 12000 ]; do i=$((i+1)); echo $i {padding}; done; touch /shared/full; \
             until [ -e /shared/stop ]; do i=$((i+1)); echo $i; done"
        );
        let other = "until [ -e /shared/full ]; do sleep 0.1; done";
        let idle = tools::container("idle", IDLE, &json!({}));
        let containers = [
            tools::container("main", &script, &json!({})),
            tools::container("other", other, &json!({})),
            idle,
        ];
        let mut pod = tools::pod("writer", &containers);
        pod["spec"]["restartPolicy"] = "Never".into();
        create(&pods(&cluster.client()), pod).await?;
        let full = |pod: &k8s_openapi::api::core::v1::Pod| {
            let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
            let ended = |name: &str| {
                let mut of = statuses.clone().filter(|status| status.name == name);
                of.any(|status| status.state.as_ref().is_some_and(|state| state.terminated.is_some()))
            };
            ended("other")
        };
        // A container that ends is when the node looks after logs.
        wait_for(&pods(&cluster.client()), "writer", PATIENCE, "has written much", full).await?;
        let following =
            cluster.start_kubectl(Kubectl::Newest, &["logs", "-f", "writer", "-c", "main", "--tail=1"])?;
        following.until("a line", |said| said.contains('\n')).await?;
        let rotated = async {
            while logs_of(cluster.data_dir()).len() < 2 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, rotated).await.context("the log is not rotated")?;
        cluster.kubectl(&["exec", "writer", "-c", "idle", "--", "touch", "/shared/stop"]).await?;
        let said = following.succeeds().await?;
        let followed = said.lines().map(number).collect::<Result<Vec<_>>>()?;
        let gap = followed.windows(2).find(|pair| pair[1] != pair[0] + 1);
        ensure!(gap.is_none(), "kubectl logs -f: {gap:?}");

        let mut written = Vec::new();
        for log in logs_of(cluster.data_dir()) {
            let text = std::fs::read_to_string(&log)?;
            // A line of the log: time, stream, whether it is whole, text.
            let lines = text.lines().map(|line| line.splitn(4, ' ').nth(3).context("a line of a log"));
            written.extend(lines.map(|line| number(line?)).collect::<Result<Vec<_>>>()?);
        }
        let gap = written.iter().zip(1..).find(|(is, wanted)| *is != wanted);
        ensure!(gap.is_none() && written.len() > 12_000, "in the files: {gap:?} of {}", written.len());
        ensure!(followed.last() == written.last(), "{:?} and {:?}", followed.last(), written.last());
        Ok(())
    });
}

#[test]
fn ports_are_forwarded() {
    run(Options::default(), async |cluster| {
        let client = cluster.client();
        create::<Deployment>(
            &Api::default_namespaced(client.clone()),
            json!({
                "metadata": {"name": "web"},
                "spec": {
                    "replicas": 1,
                    "selector": {"matchLabels": {"app": "web"}},
                    "template": {
                        "metadata": {"labels": {"app": "web"}},
                        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
                            "name": "main", "image": "xebec/toolbox",
                            "ports": [{"name": "http", "containerPort": 8080}],
                        }]},
                    },
                },
            }),
        )
        .await?;
        create::<Service>(
            &Api::default_namespaced(client.clone()),
            json!({
                "metadata": {"name": "web"},
                "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]},
            }),
        )
        .await?;
        let name = ready_pods(&client, "app=web", 1).await?.remove(0);
        for kubectl in ALL {
            for (target, port) in [(format!("pod/{name}"), "8080"), ("service/web".into(), "80")] {
                forward(cluster, kubectl, &target, port, &name).await.with_context(|| kubectl.name())?;
            }
            forward(cluster, kubectl, "deployment/web", "8080", &name)
                .await
                .with_context(|| kubectl.name())?;
            refused(cluster, kubectl, &name).await.with_context(|| kubectl.name())?;
        }
        Ok(())
    });
}

#[test]
fn cp_copies_both_ways() {
    run(Options::default(), async |cluster| {
        ready_pod(cluster, tools::pod("tools", &[tools::container("main", IDLE, &json!({}))])).await?;
        let here = cluster.scratch().join("here");
        std::fs::create_dir_all(here.join("below"))?;
        // More than any window or buffer on the way, and not text.
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|number| (number.wrapping_mul(31) >> 7) as u8).collect();
        std::fs::write(here.join("large"), &bytes)?;
        std::fs::write(here.join("below/small"), "small\n")?;
        let here = here.display().to_string();
        for (index, kubectl) in UPSTREAM.into_iter().enumerate() {
            let there = format!("tools:/shared/{index}");
            cluster.run_kubectl(kubectl, &["cp", &here, &there]).await?;
            let small = format!("/shared/{index}/below/small");
            let shown = cluster.run_kubectl(kubectl, &["exec", "tools", "--", "cat", &small]).await?;
            ensure!(shown == "small\n", "{}: copied in: {shown}", kubectl.name());
            let back = cluster.scratch().join(format!("back-{index}"));
            cluster.run_kubectl(kubectl, &["cp", &there, &back.display().to_string()]).await?;
            ensure!(std::fs::read(back.join("large"))? == bytes, "{}: large differs", kubectl.name());
            ensure!(std::fs::read(back.join("below/small"))? == b"small\n", "{}: small", kubectl.name());
        }
        Ok(())
    });
}

async fn exec(cluster: &Cluster, kubectl: Kubectl) -> Result<()> {
    let script = "cat; echo wrong >&2; exit 4";
    let words = &["exec", "-i", "tools", "-c", "main", "--", "ash", "-c", script];
    let said = cluster.try_run_kubectl(kubectl, words, "fed\n").await?;
    ensure!(said.code == 4 && said.stdout == "fed\n" && said.stderr.starts_with("wrong\n"), "{said:?}");
    ensure!(said.stderr.contains("command terminated with exit code 4"), "{said:?}");
    let quiet = cluster.try_run_kubectl(kubectl, &["exec", "tools", "--", "true"], "").await?;
    ensure!(quiet.success() && quiet.stdout.is_empty(), "the first container is the default one: {quiet:?}");

    // More than any window or buffer on the way, in both directions at once.
    let large = "0123456789abcdef".repeat(1 << 16);
    let words = &["exec", "-i", "tools", "-c", "other", "--", "cat"];
    let said = cluster.try_run_kubectl(kubectl, words, &large).await?;
    ensure!(said.success() && said.stdout == large, "{} bytes came back, {}", said.stdout.len(), said.stderr);

    for (words, error) in [
        (&["exec", "tools", "-c", "main", "--", "no-such-program"][..], "no-such-program"),
        (&["exec", "tools", "-c", "nobody", "--", "true"], "nobody"),
        (&["exec", "nobody", "--", "true"], "pods \"nobody\" not found"),
    ] {
        let said = cluster.try_run_kubectl(kubectl, words, "").await?;
        ensure!(!said.success() && said.stderr.contains(error), "{words:?}: {said:?}");
    }
    Ok(())
}

/// Asks the terminal until it has a size: it comes after the command has started.
fn until_size(size: &str, word: &str) -> String {
    format!("until [ \"$(stty size)\" = '{size}' ]; do true; done; echo \"size of\" {word}\n")
}

async fn terminal(cluster: &Cluster, kubectl: Kubectl) -> Result<()> {
    let words = &["exec", "-it", "tools", "-c", "main", "--", "ash"];
    let mut shell = cluster.start_in_terminal(kubectl, words)?;
    shell.write(&until_size("24 80", "start"))?;
    shell.until("the terminal's size", |said| said.contains("size of start")).await?;
    shell.resize(40, 132)?;
    shell.write(&until_size("40 132", "later"))?;
    shell.until("the new size", |said| said.contains("size of later")).await?;
    // Ctrl-C goes to the command and not to kubectl.
    // It is a process of its own that tells, so that it has the terminal by then.
    shell.write("sh -c 'echo now \"waits\"; exec sleep 1000'\n")?;
    shell.until("the command runs", |said| said.contains("now waits")).await?;
    shell.write("\u{3}")?;
    // What is typed before the prompt is back may be thrown away with the line.
    let prompt = |said: &str| said.rsplit_once("^C").is_some_and(|(_, after)| after.contains("# "));
    shell.until("the prompt after Ctrl-C", prompt).await?;
    shell.write("echo still \"here\"\n")?;
    shell.until("the shell after Ctrl-C", |said| said.contains("still here")).await?;
    shell.write("exit 5\n")?;
    let code = shell.ended().await?;
    ensure!(code == 5, "exit code {code} of a shell: {}", shell.said());
    Ok(())
}

async fn attach(cluster: &Cluster, kubectl: Kubectl, name: &str) -> Result<()> {
    let script = "while read line; do echo heard $line; echo also $line >&2; done; echo end of input; exit 3";
    let container = tools::container("main", script, &json!({"stdin": true, "stdinOnce": true}));
    let mut pod = tools::pod(name, &[container]);
    pod["spec"]["restartPolicy"] = "Never".into();
    ready_pod(cluster, pod).await?;
    let mut attached = cluster.start_kubectl(kubectl, &["attach", "-i", name])?;
    attached.write("one\n")?;
    attached.until("both streams", |said| said.contains("heard one") && said.contains("also one")).await?;
    attached.write("two\n")?;
    attached.until("more", |said| said.contains("heard two")).await?;
    attached.close_input();
    // The container's exit code is the pod's affair.
    let said = attached.succeeds().await?;
    ensure!(said.contains("end of input"), "{said}");
    wait_for(&pods(&cluster.client()), name, PATIENCE, "failed", |pod| phase(pod) == "Failed").await?;
    let log = cluster.run_kubectl(kubectl, &["logs", name]).await?;
    ensure!(log.contains("heard two\n") && log.contains("end of input\n"), "the log has it too: {log}");
    Ok(())
}

async fn attach_terminal(cluster: &Cluster, kubectl: Kubectl, name: &str) -> Result<()> {
    let container = tools::container("main", "exec ash", &json!({"stdin": true, "tty": true}));
    ready_pod(cluster, tools::pod(name, &[container])).await?;
    let mut shell = cluster.start_in_terminal(kubectl, &["attach", "-it", name])?;
    shell.write(&until_size("24 80", "start"))?;
    shell.until("the terminal's size", |said| said.contains("size of start")).await?;
    shell.resize(50, 100)?;
    shell.write(&until_size("50 100", "later"))?;
    shell.until("the new size", |said| said.contains("size of later")).await?;
    // Leaving does not end what runs: somebody else finds the same shell.
    drop(shell);
    let mut again = cluster.start_in_terminal(kubectl, &["attach", "-it", name])?;
    again.write("echo the same \"shell\"\n")?;
    again.until("the shell is still there", |said| said.contains("the same shell")).await?;
    Ok(())
}

async fn logs(cluster: &Cluster, kubectl: Kubectl, name: &str) -> Result<()> {
    let script =
        "for i in 1 2 3 4 5; do echo line $i; done; until [ -e /shared/go ]; do sleep 0.1; done; echo last";
    let other = "echo other; until [ -e /shared/go ]; do sleep 0.1; done";
    let mut pod = tools::pod(
        name,
        &[tools::container("main", script, &json!({})), tools::container("other", other, &json!({}))],
    );
    pod["spec"]["restartPolicy"] = "Never".into();
    ready_pod(cluster, pod).await?;
    let following = cluster.start_kubectl(kubectl, &["logs", "-f", name, "-c", "main"])?;
    following.until("what was there", |said| said.contains("line 5\n")).await?;
    ensure!(!following.said().contains("last"), "{}", following.said());

    let tail = cluster.run_kubectl(kubectl, &["logs", name, "-c", "main", "--tail=2"]).await?;
    ensure!(tail == "line 4\nline 5\n", "--tail: {tail}");
    let since = cluster.run_kubectl(kubectl, &["logs", name, "-c", "main", "--since=1h"]).await?;
    ensure!(since.lines().count() == 5, "--since: {since}");
    let future = &["logs", name, "-c", "main", "--since-time=2999-01-01T00:00:00Z"];
    let future = cluster.run_kubectl(kubectl, future).await?;
    ensure!(future.is_empty(), "--since-time: {future}");
    let stamped = cluster.run_kubectl(kubectl, &["logs", name, "-c", "main", "--timestamps"]).await?;
    for line in stamped.lines() {
        let (time, text) = line.split_once(' ').context("a stamped line")?;
        ensure!(time.parse::<jiff::Timestamp>().is_ok() && text.starts_with("line"), "--timestamps: {line}");
    }
    let limited = cluster.run_kubectl(kubectl, &["logs", name, "-c", "main", "--limit-bytes=9"]).await?;
    ensure!(limited == "line 1\nli", "--limit-bytes: {limited}");
    let other = cluster.run_kubectl(kubectl, &["logs", name, "-c", "other"]).await?;
    ensure!(other == "other\n", "-c: {other}");
    let selector = format!("app={name}");
    let all = &["logs", "-l", &selector, "--all-containers", "--prefix"];
    let all = cluster.run_kubectl(kubectl, all).await?;
    let prefix = format!("[pod/{name}/other] other\n");
    ensure!(all.contains(&prefix) && all.lines().count() == 6, "--all-containers --prefix: {all}");
    let wrong = cluster.try_run_kubectl(kubectl, &["logs", name, "-c", "nobody"], "").await?;
    ensure!(!wrong.success() && wrong.stderr.contains("nobody"), "no such container: {wrong:?}");
    let wrong = cluster.try_run_kubectl(kubectl, &["logs", name, "-c", "main", "--previous"], "").await?;
    let words = "previous terminated container \"main\" in pod";
    ensure!(!wrong.success() && wrong.stderr.contains(words), "--previous of the first: {wrong:?}");

    cluster.run_kubectl(kubectl, &["exec", name, "-c", "other", "--", "touch", "/shared/go"]).await?;
    let said = following.succeeds().await?;
    ensure!(said.ends_with("line 5\nlast\n"), "-f until the container ended: {said}");
    Ok(())
}

/// The number that a line of the writer begins with.
fn number(line: &str) -> Result<u64> {
    let (number, _) = line.split_once(' ').unwrap_or((line, ""));
    number.parse().with_context(|| format!("a line of the writer: {line}"))
}

/// The logs of the container `main`, the oldest first: names end with their time, the one being written has none.
fn logs_of(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(path);
            } else if name.to_string_lossy().starts_with("0.log")
                && path.parent().is_some_and(|p| p.ends_with("main"))
            {
                found.push(path);
            }
        }
    }
    found.sort_by_key(|path| (path.ends_with("0.log"), path.clone()));
    found
}

/// The port that kubectl has taken.
async fn forwarding(running: &Running) -> Result<SocketAddr> {
    let told = "Forwarding from 127.0.0.1:";
    let said = running
        .until("it listens", |said| said.split_once(told).is_some_and(|(_, rest)| rest.contains(" ->")));
    let said = said.await?;
    let (_, rest) = said.split_once(told).context("invariant: waited for")?;
    let (port, _) = rest.split_once(" ->").context("invariant: waited for")?;
    Ok(SocketAddr::from(([127, 0, 0, 1], port.parse().context("a port")?)))
}

async fn forward(cluster: &Cluster, kubectl: Kubectl, target: &str, port: &str, pod: &str) -> Result<()> {
    let forward = cluster.start_kubectl(kubectl, &["port-forward", target, &format!(":{port}")])?;
    let address = forwarding(&forward).await?;
    let answers = tokio::task::spawn_blocking(move || -> Result<Vec<String>> {
        // All are open before the first one asks.
        let mut open = (0..6).map(|_| connect(address)).collect::<Result<Vec<_>>>()?;
        for stream in open.iter_mut().rev() {
            write!(stream, "GET /hostname HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n")?;
        }
        open.iter_mut().map(read).collect()
    });
    let answers = answers.await?.with_context(|| format!("{target}; {}", forward.said()))?;
    for answer in answers {
        ensure!(answer.starts_with("HTTP/1.1 200") && answer.trim_end().ends_with(pod), "{target}: {answer}");
    }
    forward.interrupt().await.map(drop)
}

/// Nobody listens on the pod's port: the connection ends and kubectl says why.
async fn refused(cluster: &Cluster, kubectl: Kubectl, pod: &str) -> Result<()> {
    let forward = cluster.start_kubectl(kubectl, &["port-forward", pod, ":9"])?;
    let address = forwarding(&forward).await?;
    let answer = tokio::task::spawn_blocking(move || read(&mut connect(address)?)).await?;
    ensure!(answer.as_deref().unwrap_or_default().is_empty(), "nobody answered: {answer:?}");
    forward.until("why", |said| said.to_lowercase().contains("connection refused")).await?;
    Ok(())
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).context("connect")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn read(stream: &mut TcpStream) -> Result<String> {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("read the answer")?;
    Ok(answer)
}
