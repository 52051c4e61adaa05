//! Sandboxes, streams, and everything that outlives somebody.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::{Bed, bed};
use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use xebec_cri::*;

const SLEEP: &str = "exec sleep 1000";

fn text(output: &ExecOutput) -> String {
    assert_eq!(output.code, 0, "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn namespaces(bed: &Bed, id: &str) -> Vec<String> {
    let script = "for n in net ipc uts pid mnt; do readlink /proc/self/ns/$n; done";
    text(&bed.exec(id, script).await).lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pod_namespaces() {
    let bed = bed().await;
    let sandbox = bed
        .sandbox_with("pod", |c| {
            c.sysctls.insert("net.ipv4.ip_unprivileged_port_start".into(), "80".into());
            c.dns = Some(DnsConfig { servers: vec!["10.0.0.10".into()], ..DnsConfig::default() });
        })
        .await;
    let status = bed.runtime.pod_sandbox_status(&sandbox).await.unwrap();
    assert_eq!((status.state, status.ips.len()), (SandboxState::Ready, 1));
    let (a, b) = (bed.start(&sandbox, "a", SLEEP).await, bed.start(&sandbox, "b", SLEEP).await);
    let (of_a, of_b) = (namespaces(&bed, &a).await, namespaces(&bed, &b).await);
    assert_eq!(of_a[..3], of_b[..3], "network, IPC and UTS are shared");
    assert!(of_a[3] != of_b[3] && of_a[4] != of_b[4], "processes and mounts are not");
    let host = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_ne!(Path::new(&of_a[0]), host);
    bed.exec(&a, "echo shared > /dev/shm/x").await;
    assert_eq!(
        text(&bed.exec(&b, "cat /dev/shm/x; cat /etc/resolv.conf").await),
        "shared\nnameserver 10.0.0.10\n"
    );
    let sysctl = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start; ip addr show lo | grep -c UP; \
                  ps -o comm | grep -c '^sleep$'";
    assert_eq!(text(&bed.exec(&a, sysctl).await), "80\n1\n1\n");
    let again = bed.sandbox_with("pod", |_| {}).await;
    assert_eq!(again, sandbox, "a ready sandbox of the same identity is answered again");
    bed.runtime.stop_pod_sandbox(&sandbox).await.unwrap();
    let status = bed.runtime.pod_sandbox_status(&sandbox).await.unwrap();
    assert_eq!(status.state, SandboxState::NotReady);
    assert_eq!(bed.runtime.container_status(&a).await.unwrap().state, ContainerState::Exited);
    bed.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    bed.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    assert!(bed.runtime.container_status(&a).await.unwrap_err().is_not_found());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_and_shared_process_namespaces() {
    let bed = bed().await;
    let host = bed
        .sandbox_with("host", |c| {
            c.hostname = String::new();
            c.namespaces = NamespaceOptions {
                network: NamespaceMode::Node,
                pid: NamespaceMode::Node,
                ipc: NamespaceMode::Node,
            };
        })
        .await;
    let id = bed.start(&host, "main", "sleep 1000 & sleep 1000").await;
    let seen = namespaces(&bed, &id).await;
    for (index, kind) in ["net", "ipc", "uts", "pid"].iter().enumerate() {
        let ours = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert_eq!(Path::new(&seen[index]), ours, "{kind}");
    }
    bed.runtime.remove_pod_sandbox(&host).await.unwrap();

    let shared = bed.sandbox_with("shared", |c| c.namespaces.pid = NamespaceMode::Pod).await;
    let (a, b) = (bed.start(&shared, "a", SLEEP).await, bed.start(&shared, "b", "exec sleep 2000").await);
    assert_eq!(namespaces(&bed, &a).await[3], namespaces(&bed, &b).await[3]);
    let seen = text(&bed.exec(&a, "ps; ls /proc/1/root/ 2>&1 | wc -l").await);
    assert!(seen.contains("sleep 1000") && seen.contains("sleep 2000") && seen.contains("--pause"), "{seen}");
    bed.runtime.stop_container(&a, Duration::ZERO).await.unwrap();
    assert_eq!(bed.runtime.container_status(&b).await.unwrap().state, ContainerState::Running);
    bed.runtime.remove_pod_sandbox(&shared).await.unwrap();
}

/// A container with power over its own control groups divides them, as systemd and Docker in a pod do. On cgroup v2 no
/// process may be in a group that has given its controllers to those below.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_divide_their_control_groups() {
    let bed = bed().await;
    let shared = bed.sandbox_with("divided", |c| c.namespaces.pid = NamespaceMode::Pod).await;
    let divide = "cd /sys/fs/cgroup; v2=.; groups=.; if [ -d unified ]; then v2=unified; groups=*; fi; \
                  for g in $groups; do mkdir $g/own; for f in cpuset.cpus cpuset.mems; do \
                  if [ -e $g/own/$f ]; then cat $g/$f >$g/own/$f; fi; done; echo 0 >$g/own/cgroup.procs; done; \
                  for c in $(cat $v2/cgroup.controllers); do echo +$c >$v2/cgroup.subtree_control; done; \
                  echo divided; sleep 2000 & sleep 5000";
    let id = bed.start_with(&shared, "main", divide, |c| c.security.privileged = true).await;
    let log = bed.runtime.container_status(&id).await.unwrap().log_path;
    bed.until(|| async { std::fs::read_to_string(&log).unwrap().contains("divided").then_some(()) }).await;
    let group = text(&bed.exec(&id, "grep ^0: /proc/self/cgroup").await);
    assert!(group.ends_with("/own\n"), "{group}");

    let other = bed.start(&shared, "other", SLEEP).await;
    let running = async |what: &str| text(&bed.exec(&other, "ps -o args").await).contains(what);
    let forever = ["sh", "-c", "sleep 3000 & sleep 4000"].map(str::to_owned);
    let error = bed.runtime.exec_sync(&id, &forever, Duration::from_millis(100)).await.unwrap_err();
    assert!(matches!(error, CriError::Timeout { .. }), "{error}");
    bed.until(|| async { (!running("sleep 3000").await).then_some(()) }).await;
    assert!(running("sleep 2000").await);
    bed.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    bed.until(|| async { (!running("sleep 2000").await).then_some(()) }).await;
    bed.runtime.remove_pod_sandbox(&shared).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exec_in_all_its_forms() {
    let bed = bed().await;
    let sandbox = bed.sandbox("exec").await;
    let id = bed
        .start_with(&sandbox, "main", SLEEP, |c| {
            c.security.run_as_user = Some(33);
            c.envs = vec![("FROM_POD".into(), "yes".into())];
        })
        .await;
    let out =
        bed.exec(&id, "id -u; echo $FROM_POD; grep Seccomp: /proc/self/status; echo bad >&2; exit 5").await;
    assert_eq!(String::from_utf8_lossy(&out.stdout), "33\nyes\nSeccomp:\t2\n");
    assert_eq!((out.code, &out.stderr[..]), (5, &b"bad\n"[..]));
    let missing = bed.runtime.exec_sync(&id, &["nosuch".to_owned()], Duration::from_secs(5)).await;
    assert!(matches!(missing, Err(CriError::Start(text)) if text.contains("not found in $PATH")));
    let big = bed.exec(&id, "head -c 3000000 /dev/zero").await;
    assert_eq!(big.stdout.len(), 3_000_000);
    assert_eq!(
        bed.exec(&id, "sleep 1000 & echo $!").await.code,
        0,
        "a background process does not hold it up"
    );

    let begin = Instant::now();
    let command =
        ["sh", "-c", "sh -c 'sleep 4321; true' & setsid sleep 4321 & sleep 4321; true"].map(str::to_owned);
    let timeout = bed.runtime.exec_sync(&id, &command, Duration::from_millis(300)).await;
    assert!(matches!(timeout, Err(CriError::Timeout { .. })) && begin.elapsed() < Duration::from_secs(5));
    bed.until(|| async { (!text(&bed.exec(&id, "ps").await).contains("sleep 4321")).then_some(()) }).await;

    let request = ExecRequest {
        container_id: id.clone(),
        command: vec!["cat".into()],
        tty: false,
        stdin: true,
        stdout: true,
        stderr: true,
    };
    let mut session = bed.runtime.exec(request.clone()).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"through").await.unwrap();
    stdin.shutdown().await.unwrap();
    let mut out = String::new();
    session.stdout.take().unwrap().read_to_string(&mut out).await.unwrap();
    assert_eq!((out.as_str(), session.exit.await.unwrap().unwrap().code), ("through", 0));

    let abandoned = ExecRequest { command: vec!["sleep".into(), "5432".into()], ..request };
    drop(bed.runtime.exec(abandoned).await.unwrap());
    bed.until(|| async { (!text(&bed.exec(&id, "ps").await).contains("sleep 5432")).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terminals() {
    let bed = bed().await;
    let sandbox = bed.sandbox("tty").await;
    // The size comes by a way of its own: it may be later than the line.
    let script = "read line; echo got $line; until stty size | grep '31 101'; do :; done; exec sleep 1000";
    let id = bed
        .start_with(&sandbox, "main", script, |c| {
            c.tty = true;
            c.stdin = true;
        })
        .await;
    let request = AttachRequest { container_id: id.clone(), stdin: true, stdout: true, stderr: true };
    let mut session = bed.runtime.attach(request).await.unwrap();
    session.resize.send(TerminalSize { width: 101, height: 31 }).await.unwrap();
    session.stdin.as_mut().unwrap().write_all(b"hello\n").await.unwrap();
    let seen = read_until(session.stdout.as_mut().unwrap(), "31 101").await;
    assert!(seen.contains("got hello"), "{seen}");

    let request = ExecRequest {
        container_id: id.clone(),
        command: vec!["sh".into()],
        tty: true,
        stdin: true,
        stdout: true,
        stderr: false,
    };
    let mut session = bed.runtime.exec(request).await.unwrap();
    session.resize.send(TerminalSize { width: 77, height: 22 }).await.unwrap();
    let (mut stdin, mut stdout) = (session.stdin.take().unwrap(), session.stdout.take().unwrap());
    stdin.write_all(b"tty; until stty size | grep '22 77'; do :; done; exit 9\n").await.unwrap();
    let seen = read_until(&mut stdout, "22 77\r").await;
    assert!(seen.contains("/dev/pts/"), "{seen}");
    assert_eq!(session.exit.await.unwrap().unwrap().code, 9);
}

async fn read_until(stream: &mut OutputStream, what: &str) -> String {
    let mut seen = String::new();
    let mut buffer = [0; 512];
    while !seen.contains(what) {
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut buffer)).await;
        let length = read.unwrap_or_else(|_| panic!("{what:?} did not come: {seen:?}")).unwrap();
        assert_ne!(length, 0, "end before {what:?}: {seen:?}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attach_fans_out_and_stdin_once_ends() {
    let bed = bed().await;
    let sandbox = bed.sandbox("attach").await;
    let id = bed
        .start_with(&sandbox, "main", "while read x; do echo o-$x; echo e-$x >&2; done; exit 4", |c| {
            c.stdin = true;
            c.stdin_once = true;
        })
        .await;
    let request = AttachRequest { container_id: id.clone(), stdin: false, stdout: true, stderr: true };
    let mut watcher = bed.runtime.attach(request.clone()).await.unwrap();
    let mut writer = bed.runtime.attach(AttachRequest { stdin: true, ..request }).await.unwrap();
    let mut stdin = writer.stdin.take().unwrap();
    stdin.write_all(b"one\n").await.unwrap();
    for session in [&mut watcher, &mut writer] {
        read_until(session.stdout.as_mut().unwrap(), "o-one\n").await;
        read_until(session.stderr.as_mut().unwrap(), "e-one\n").await;
    }
    drop(stdin);
    assert_eq!(writer.exit.await.unwrap().unwrap().code, 4);
    let mut rest = String::new();
    watcher.stdout.take().unwrap().read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_and_port_forward() {
    let bed = bed().await;
    let mut events = bed.runtime.events().await.unwrap();
    let sandbox = bed.sandbox("events").await;
    let script = "while :; do nc -l -p 8080 -e echo answer; done";
    let id = bed.start(&sandbox, "main", script).await;
    let answer = bed
        .until(|| async {
            let mut stream = bed.runtime.port_forward(&sandbox, 8080).await.ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.ok().map(|_| answer)
        })
        .await;
    assert_eq!(answer, "answer\n");
    assert!(bed.runtime.port_forward(&sandbox, 8081).await.is_err());
    bed.runtime.remove_container(&id).await.unwrap();
    let mut kinds = Vec::new();
    while kinds.last() != Some(&ContainerEventKind::Deleted) {
        let event = tokio::time::timeout(Duration::from_secs(10), events.next()).await.unwrap().unwrap();
        if event.container_id == id {
            assert_eq!(event.pod_uid, "uid-events");
            kinds.push(event.kind);
        }
    }
    use ContainerEventKind::{Created, Deleted, Started, Stopped};
    assert_eq!(kinds, [Created, Started, Stopped, Deleted]);
}

const COUNT: &str = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done";

/// The numbers that a counting container has logged: none missing, none twice.
fn counted(log: &Path) -> usize {
    let text = std::fs::read_to_string(log).unwrap();
    let numbers: Vec<usize> = text.lines().filter_map(|l| l.rsplit(' ').next()?.parse().ok()).collect();
    assert!(numbers.iter().enumerate().all(|(i, n)| *n == i + 1), "{numbers:?}");
    numbers.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_comes_back() {
    let bed = bed().await;
    let sandbox = bed.sandbox("agent").await;
    let id = bed.start(&sandbox, "main", COUNT).await;
    let waiting =
        bed.runtime.create_container(&sandbox, common::container_config("waiting", SLEEP)).await.unwrap();
    let short = bed.start(&sandbox, "short", "sleep 0.3; exit 6").await;
    let before = bed.runtime.container_status(&id).await.unwrap();
    let supervisor = bed.client.pid().await.unwrap();
    let bed = bed.reconnect().await;
    assert_eq!(bed.client.pid().await.unwrap(), supervisor);
    let after = bed.runtime.container_status(&id).await.unwrap();
    assert_eq!((after.state, after.pid, after.started_at), (before.state, before.pid, before.started_at));
    assert_eq!(bed.exited(&short).await.exit_code, Some(6));
    assert_eq!(bed.runtime.container_status(&waiting).await.unwrap().state, ContainerState::Created);
    bed.runtime.start_container(&waiting).await.unwrap();
    assert_eq!(bed.runtime.pod_sandbox_status(&sandbox).await.unwrap().state, SandboxState::Ready);
    let done = counted(&after.log_path);
    bed.until(|| async { (counted(&after.log_path) > done + 3).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn supervisor_replaces_itself() {
    let bed = bed().await;
    let sandbox = bed.sandbox("reexec").await;
    let id = bed.start(&sandbox, "main", COUNT).await;
    let tty = bed.start_with(&sandbox, "tty", "read x; exit 8", |c| (c.tty, c.stdin) = (true, true)).await;
    let piped = bed.start_with(&sandbox, "piped", "read x; exit 9", |c| c.stdin = true).await;
    let supervisor = bed.client.pid().await.unwrap();
    let other = bed.dir.path().join("other-build");
    // Copied by another process: children that tests beside this one fork would inherit the descriptor written to, and
    // until they are other programs no one can run the copy (ETXTBSY).
    let copied = std::process::Command::new("cp").arg(common::supervisor_exe()).arg(&other).status().unwrap();
    assert!(copied.success());
    bed.client.replace_program(other.clone()).await.unwrap();
    assert_eq!(bed.client.pid().await.unwrap(), supervisor);
    assert_eq!(std::fs::read_link(format!("/proc/{supervisor}/exe")).unwrap(), other);
    let status = bed.runtime.container_status(&id).await.unwrap();
    let done = counted(&status.log_path);
    bed.until(|| async { (counted(&status.log_path) > done + 3).then_some(()) }).await;
    for (id, code) in [(&tty, 8), (&piped, 9)] {
        let request = AttachRequest { container_id: id.clone(), stdin: true, stdout: true, stderr: false };
        let mut session = bed.runtime.attach(request).await.unwrap();
        session.stdin.as_mut().unwrap().write_all(b"x\n").await.unwrap();
        assert_eq!(session.exit.await.unwrap().unwrap().code, code);
    }
    // Our own binary is another build than the one that runs now: the next agent takes care.
    let bed = bed.reconnect().await;
    assert_eq!(bed.client.pid().await.unwrap(), supervisor);
    assert_eq!(std::fs::read_link(format!("/proc/{supervisor}/exe")).unwrap(), common::supervisor_exe());
    bed.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    assert_eq!(
        bed.runtime.container_status(&id).await.unwrap().exit_code,
        Some(137),
        "it was still our child"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn supervisor_is_killed() {
    let bed = bed().await;
    let sandbox = bed.sandbox("crash").await;
    let id = bed.start(&sandbox, "main", COUNT).await;
    let status = bed.runtime.container_status(&id).await.unwrap();
    bed.until(|| async { (counted(&status.log_path) > 3).then_some(()) }).await;
    let supervisor = bed.client.pid().await.unwrap();
    let pid = rustix::process::Pid::from_raw(supervisor).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    bed.until(|| async { bed.client.pid().await.ok().filter(|now| *now != supervisor) }).await;
    let after = bed.runtime.container_status(&id).await.unwrap();
    assert_eq!((after.state, after.pid), (ContainerState::Running, status.pid));
    let done = counted(&status.log_path);
    bed.until(|| async { (counted(&status.log_path) > done + 3).then_some(()) }).await;
    assert_eq!(text(&bed.exec(&id, "echo fine").await), "fine\n");
    bed.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    let end = bed.runtime.container_status(&id).await.unwrap();
    assert_eq!((end.exit_code, end.reason.as_str()), (Some(255), "Unknown"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_and_no_trace() {
    let bed = bed().await;
    let pods: Vec<String> = (0..5).map(|n| format!("many{n}")).collect();
    let sandboxes = futures::future::join_all(pods.iter().map(|name| bed.sandbox(name))).await;
    let begin = Instant::now();
    let names: Vec<String> = (0..10).map(|n| format!("c{n}")).collect();
    let starts = sandboxes.iter().flat_map(|s| names.iter().map(|n| bed.start(s, n, SLEEP)));
    let ids = futures::future::join_all(starts).await;
    eprintln!("50 containers started in {:?}", begin.elapsed());
    let running = ContainerFilter { state: Some(ContainerState::Running), ..ContainerFilter::default() };
    assert_eq!(bed.runtime.list_containers(&running).await.unwrap().len(), 50);
    let supervisor = bed.client.pid().await.unwrap();
    let memory = std::fs::read_to_string(format!("/proc/{supervisor}/status")).unwrap();
    eprintln!("supervisor: {}", memory.lines().find(|l| l.starts_with("VmRSS")).unwrap());
    let pids: Vec<u32> = futures::future::join_all(ids.iter().map(|id| bed.runtime.container_status(id)))
        .await
        .into_iter()
        .map(|s| s.unwrap().pid.unwrap())
        .collect();
    let begin = Instant::now();
    bed.runtime.uninstall().await.unwrap();
    eprintln!("uninstalled in {:?}", begin.elapsed());
    assert!(!bed.options.state_dir.exists());
    let state = bed.options.state_dir.to_string_lossy().into_owned();
    assert!(!std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(&state));
    for pid in pids.iter().copied().chain([supervisor as u32]) {
        // At most a zombie that the machine's init has not reaped yet.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
    }
    for entry in std::fs::read_dir("/sys/fs/cgroup").unwrap() {
        assert!(!entry.unwrap().path().join(&bed.options.cgroup_root).exists());
    }
}
