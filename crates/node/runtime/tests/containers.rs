//! Containers, one property each.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use common::bed;
use xebec_cri::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_to_the_end_with_log() {
    let bed = bed().await;
    let sandbox = bed.sandbox("basic").await;
    let begin = Instant::now();
    let id = bed
        .start(&sandbox, "main", "echo out; echo err >&2; echo $FROM_IMAGE $HOME $(hostname); exit 3")
        .await;
    eprintln!("create and start took {:?}", begin.elapsed());
    let status = bed.exited(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (Some(3), "Error"));
    assert_eq!(status.user, Some((0, 0, vec![0])));
    let log = std::fs::read_to_string(&status.log_path).unwrap();
    let mut lines: Vec<&str> = log.lines().map(|l| l.split_once(' ').unwrap().1).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["stderr F err", "stdout F out", "stdout F yes /root basic"]);
    let time = log.split(' ').next().unwrap();
    assert!(time.len() == "2016-10-06T00:17:09.669794202Z".len() && time.ends_with('Z'), "{time}");
    let (status, _) = bed.run_with(&sandbox, "ok", "true", |_| {}).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (Some(0), "Completed"));
    let (status, _) =
        bed.run_with(&sandbox, "killed", "kill -KILL $$", |c| c.command.insert(0, "busybox".into())).await;
    assert_eq!(status.exit_code, Some(0), "process 1 is protected from its own signals");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_lines_and_reopening() {
    let bed = bed().await;
    let sandbox = bed.sandbox("lines").await;
    let script = "head -c 20000 /dev/zero | tr '\\0' x; echo; echo -n end; read a; echo; echo after; read b";
    let id = bed.start_with(&sandbox, "main", script, |c| c.stdin = true).await;
    let path = bed.runtime.container_status(&id).await.unwrap().log_path;
    bed.until(|| async { std::fs::read_to_string(&path).unwrap().contains(" F x").then_some(()) }).await;
    let log = std::fs::read_to_string(&path).unwrap();
    let lengths: Vec<(char, usize)> = log
        .lines()
        .map(|l| {
            let text: Vec<&str> = l.splitn(4, ' ').collect();
            (text[2].chars().next().unwrap(), text[3].len())
        })
        .collect();
    assert_eq!(lengths, [('P', 16384), ('F', 20000 - 16384)]);
    std::fs::rename(&path, path.with_extension("old")).unwrap();
    bed.runtime.reopen_container_log(&id).await.unwrap();
    let request = AttachRequest { container_id: id.clone(), stdin: true, stdout: false, stderr: false };
    let mut session = bed.runtime.attach(request).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(session.stdin.as_mut().unwrap(), b"go\n").await.unwrap();
    bed.until(|| async { std::fs::read_to_string(&path).unwrap().contains("F after").then_some(()) }).await;
    assert!(std::fs::read_to_string(&path).unwrap().contains("stdout F end"));
    bed.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_hold() {
    let bed = bed().await;
    let sandbox = bed.sandbox("limits").await;
    let (status, _) = bed
        .run_with(&sandbox, "memory", "exec tail /dev/zero", |c| {
            c.resources.memory_limit_bytes = Some(32 << 20);
            c.resources.memory_swap_limit_bytes = Some(32 << 20);
        })
        .await;
    assert_eq!((status.exit_code, status.reason.as_str()), (Some(137), "OOMKilled"));
    let script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 100 & done; wait";
    let (status, log) = bed.run_with(&sandbox, "pids", script, |c| c.resources.pids_limit = Some(5)).await;
    assert!(status.exit_code != Some(0) && log.contains("fork"), "{status:?} {log}");
    let id = bed
        .start_with(&sandbox, "cpu", "exec sleep 1000", |c| {
            c.resources.cpu_quota_us = Some(25_000);
            c.resources.cpu_period_us = Some(100_000);
            c.resources.cpu_shares = Some(512);
        })
        .await;
    let show = "cat /sys/fs/cgroup/cpu*/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max 2>/dev/null";
    let out = bed.exec(&id, show).await;
    assert!(String::from_utf8_lossy(&out.stdout).starts_with("25000"), "{out:?}");
    let more = LinuxResources { cpu_quota_us: Some(50_000), ..LinuxResources::default() };
    bed.runtime.update_container_resources(&id, &more).await.unwrap();
    let out = bed.exec(&id, show).await;
    assert!(String::from_utf8_lossy(&out.stdout).starts_with("50000"), "{out:?}");
    let stats = bed.runtime.container_stats(&id).await.unwrap();
    assert!(stats.pids == 1 && stats.memory_usage_bytes > 0 && stats.cpu_nanoseconds > 0, "{stats:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_and_privileges() {
    let bed = bed().await;
    let sandbox = bed.sandbox("users").await;
    let show =
        "id -u; id -g; id -G; grep -E 'CapEff|CapBnd|NoNewPrivs|Seccomp:' /proc/self/status | tr -d '\\t'";
    let (status, log) = bed
        .run_with(&sandbox, "named", show, |c| {
            c.security.run_as_username = "web".into();
            c.security.supplemental_groups = vec![77];
            c.security.no_new_privs = true;
            c.security.capabilities.drop = vec!["NET_RAW".into()];
        })
        .await;
    assert_eq!(status.user, Some((33, 34, vec![34, 40, 77])));
    assert_eq!(
        log,
        "33\n34\n34 40 77\nCapEff:0000000000000000\nCapBnd:00000000a80405fb\nNoNewPrivs:1\nSeccomp:2\n"
    );
    let (_, log) =
        bed.run_with(&sandbox, "dropped", show, |c| c.security.capabilities.drop = vec!["ALL".into()]).await;
    assert!(log.contains("CapEff:0000000000000000\nCapBnd:0000000000000000"), "{log}");
    let script = "unshare -U true 2>&1; mkdir /m; mount -t tmpfs x /m 2>&1; hostname other 2>&1; \
                  chmod 600 /etc/group && echo works";
    let (_, log) = bed
        .run_with(&sandbox, "seccomp", script, |c| c.security.capabilities.add = vec!["NET_ADMIN".into()])
        .await;
    assert_eq!(log.matches("not permitted").count() + log.matches("denied").count(), 3, "{log}");
    assert!(log.ends_with("works\n"), "{log}");
    let (_, log) = bed
        .run_with(&sandbox, "privileged", "mkdir /m; mount -t tmpfs x /m && echo mounted", |c| {
            c.security.privileged = true;
        })
        .await;
    assert_eq!(log, "mounted\n");
    let profile = bed.dir.path().join("profile.json");
    std::fs::write(
        &profile,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}"#,
    )
    .unwrap();
    let (_, log) = bed
        .run_with(&sandbox, "localhost", "mkdir /x 2>&1; echo $?", |c| {
            c.security.seccomp = SecurityProfile::Localhost(profile.to_string_lossy().into_owned());
        })
        .await;
    assert!(log.contains("not permitted") && log.ends_with("1\n"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn root_mounts_and_devices() {
    let bed = bed().await;
    let sandbox = bed.sandbox("mounts").await;
    let host = bed.dir.path().join("volume");
    std::fs::create_dir_all(host.join("sub")).unwrap();
    std::fs::write(host.join("file"), "content").unwrap();
    let script = "touch /x 2>&1; echo made > /data/sub/new; cat /data/file; echo; touch /ro/y 2>&1; cat /etc/config; \
                  echo; cat /proc/version | wc -c; sh -c 'echo 1 > /proc/sys/kernel/domainname' 2>&1; \
                  ls /dev | tr '\\n' ' '; pwd; \
                  cat /etc/hostname; head -c 2 /dev/zero | wc -c; cat /proc/mounts | grep -c mounts-of-host";
    let mount = |container: &str, host: std::path::PathBuf, readonly| Mount {
        container_path: container.into(),
        host_path: host,
        readonly,
        recursive_readonly: readonly && container == "/ro",
        propagation: MountPropagation::Private,
    };
    let (status, log) = bed
        .run_with(&sandbox, "main", script, |c| {
            c.security.readonly_rootfs = true;
            c.security.masked_paths =
                vec!["/proc/version".into(), "/proc/nothing".into(), "/sys/firmware".into()];
            c.security.readonly_paths = vec!["/proc/sys".into()];
            c.working_dir = "/made/here".into();
            c.mounts = vec![
                mount("/data", host.clone(), false),
                mount("/ro", host.clone(), true),
                mount("/etc/config", host.join("file"), true),
            ];
        })
        .await;
    assert_eq!(log.matches("Read-only file system").count(), 3, "{log}");
    assert!(log.contains("content\n") && log.contains("/made/here\nmounts\n2\n"), "{log}");
    assert!(log.contains("content\n0\n"), "{log}");
    assert!(
        log.contains("fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"),
        "{log}"
    );
    assert_eq!(std::fs::read_to_string(host.join("sub/new")).unwrap(), "made\n");
    assert_eq!(status.exit_code, Some(1));
    let mut wrong = common::container_config("wrong", "true");
    wrong.mounts = vec![mount("/x", "/does/not/exist".into(), false)];
    let id = bed.runtime.create_container(&sandbox, wrong).await.unwrap();
    let error = bed.runtime.start_container(&id).await.unwrap_err();
    assert!(error.to_string().contains("/does/not/exist"), "{error}");
}

/// By the v1 controller or by the filter of v2, whichever this machine has: in the first process, in an exec, and
/// again in the next attempt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_are_filtered() {
    let bed = bed().await;
    let sandbox = bed.sandbox("devices").await;
    // Writing, as reading the kernel's log takes a capability too.
    let open = "for d in null zero kmsg; do \
                if [ -c /dev/$d ]; then (true >/dev/$d) 2>&1 && echo open $d; fi; done";
    let script = format!("mknod /dev/kmsg c 1 11; {open}; echo end; exec sleep 1000");
    for attempt in 0..2 {
        let id = bed.start_with(&sandbox, "plain", &script, |c| c.metadata.attempt = attempt).await;
        let path = bed.runtime.container_status(&id).await.unwrap().log_path;
        bed.until(|| async { std::fs::read_to_string(&path).unwrap().contains("F end").then_some(()) }).await;
        let log = std::fs::read_to_string(&path).unwrap();
        assert!(log.contains("F open null") && log.contains("F open zero"), "{log}");
        assert!(log.contains("/dev/kmsg: Operation not permitted"), "{log}");
        let exec = bed.exec(&id, open).await;
        let exec = String::from_utf8_lossy(&exec.stdout);
        assert!(exec.contains("open null") && exec.contains("/dev/kmsg: Operation not permitted"), "{exec}");
        bed.runtime.remove_container(&id).await.unwrap();
        drop(std::fs::remove_file(&path));
    }
    let script = "(true </dev/log) && echo read; (true >/dev/log) 2>&1";
    let (_, log) = bed
        .run_with(&sandbox, "given", script, |c| {
            let (container_path, host_path) = ("/dev/log".into(), "/dev/kmsg".into());
            c.security.capabilities.add = vec!["SYSLOG".into()];
            c.devices = vec![Device { container_path, host_path, permissions: "r".into() }];
        })
        .await;
    assert!(
        log.starts_with("read\n") && log.contains("can't create /dev/log: Operation not permitted"),
        "{log}"
    );
    let (_, log) = bed.run_with(&sandbox, "privileged", open, |c| c.security.privileged = true).await;
    assert!(log.contains("open kmsg"), "{log}");
    let mut wrong = common::container_config("wrong", "true");
    let null = std::path::PathBuf::from("/dev/null");
    wrong.devices = vec![Device { container_path: null.clone(), host_path: null, permissions: "rx".into() }];
    let error = bed.runtime.create_container(&sandbox, wrong).await.unwrap_err();
    assert!(error.to_string().contains("\"rx\""), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_before_execve() {
    let bed = bed().await;
    let sandbox = bed.sandbox("errors").await;
    for (name, command, text) in [
        ("a", "nosuch", "exec: \"nosuch\": executable file not found in $PATH"),
        ("b", "/nosuch", "exec: \"/nosuch\": stat /nosuch: no such file or directory"),
        ("c", "/etc/passwd", "exec: \"/etc/passwd\": permission denied"),
        ("d", "/proc/self/exe", "exec: \"/proc/self/exe\": is the container runtime itself"),
    ] {
        let mut config = common::container_config(name, "");
        config.command = vec![command.into()];
        let id = bed.runtime.create_container(&sandbox, config).await.unwrap();
        let error = bed.runtime.start_container(&id).await.unwrap_err();
        assert!(matches!(error, CriError::Start(_)) && error.to_string().contains(text), "{error}");
        let status = bed.runtime.container_status(&id).await.unwrap();
        assert_eq!((status.exit_code, status.reason.as_str()), (Some(128), "StartError"));
        assert!(status.message.contains(text) && status.started_at.is_none());
        bed.runtime.remove_container(&id).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stop_with_grace() {
    let bed = bed().await;
    let sandbox = bed.sandbox("stop").await;
    let polite =
        bed.start(&sandbox, "polite", "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done").await;
    let path = bed.runtime.container_status(&polite).await.unwrap().log_path;
    bed.until(|| async { std::fs::read_to_string(&path).unwrap().contains("up").then_some(()) }).await;
    bed.runtime.stop_container(&polite, Duration::from_secs(20)).await.unwrap();
    assert_eq!(bed.runtime.container_status(&polite).await.unwrap().exit_code, Some(7));
    let deaf = bed.start(&sandbox, "deaf", "trap '' TERM; while :; do sleep 0.05; done").await;
    bed.runtime.stop_container(&deaf, Duration::from_millis(200)).await.unwrap();
    let status = bed.runtime.container_status(&deaf).await.unwrap();
    assert_eq!((status.exit_code, status.signal), (Some(137), Some(9)));
    bed.runtime.stop_container(&deaf, Duration::ZERO).await.unwrap();
}
