#![allow(clippy::unwrap_used)]
//! Tables for the pod machine.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::{Value, json};
use xebec_cri::{
    ContainerMetadata, ContainerState, ContainerStatus, NamespaceOptions, SandboxMetadata, SandboxState,
    SandboxStatus,
};

use super::*;

const NOW: i64 = 1_800_000_000;

struct Case {
    pod: Pod,
    previous: PodStatus,
    observed: Observed,
    memory: Memory,
}

impl Case {
    fn new(spec: Value) -> Self {
        let pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec});
        let memory = Memory { volumes_ready: true, ..Memory::default() };
        let pod = serde_json::from_value(pod).unwrap();
        Self { pod, previous: PodStatus::default(), observed: Observed::default(), memory }
    }

    fn sandbox(mut self) -> Self {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW as u64 - 100);
        self.observed.sandboxes.push(SandboxStatus {
            id: "s".into(),
            metadata: SandboxMetadata {
                name: "p".into(),
                uid: "u".into(),
                namespace: "n".into(),
                attempt: 0,
            },
            state: SandboxState::Ready,
            created_at: at,
            ips: vec!["10.0.0.1".parse().unwrap()],
            netns: None,
            namespaces: NamespaceOptions::default(),
            labels: Default::default(),
            annotations: Default::default(),
        });
        self
    }

    /// A container; `code` is its exit code `ago` seconds back, or it runs.
    fn with(mut self, name: &str, attempt: u32, code: Option<i32>, ago: u64) -> Self {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW as u64 - ago);
        let state = if code.is_some() { ContainerState::Exited } else { ContainerState::Running };
        let status = ContainerStatus {
            id: format!("{name}{attempt}"),
            sandbox_id: "s".into(),
            metadata: ContainerMetadata { name: name.into(), attempt },
            state,
            created_at: at,
            started_at: Some(at),
            finished_at: code.map(|_| at),
            exit_code: code,
            signal: None,
            reason: String::new(),
            message: String::new(),
            pid: None,
            image: "i".into(),
            image_id: "sha256:i".into(),
            labels: Default::default(),
            annotations: Default::default(),
            log_path: Default::default(),
            resources: Default::default(),
            user: None,
        };
        self.observed.containers.insert(0, ObservedContainer { status, message: None });
        self
    }

    fn deleted(mut self) -> Self {
        let at = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::from_second(NOW).unwrap());
        self.pod.metadata.deletion_timestamp = Some(at);
        self.pod.metadata.deletion_grace_period_seconds = Some(7);
        self
    }

    fn plan(&self) -> Plan {
        let node = NodeView { ips: vec!["192.0.2.1".parse().unwrap()], runtime: "xebec".into() };
        plan(&Input {
            pod: &self.pod,
            previous: &self.previous,
            observed: &self.observed,
            memory: &self.memory,
            node: &node,
            now: Timestamp::from_second(NOW).unwrap(),
        })
    }

    /// Actions in short, phase, and each container's state.
    fn short(&self) -> String {
        let plan = self.plan();
        let actions: Vec<_> = plan
            .actions
            .iter()
            .map(|a| match a {
                Action::SetupVolumes => "volumes".to_owned(),
                Action::CreateSandbox { attempt } => format!("sandbox{attempt}"),
                Action::StopSandbox { id } => format!("stop-{id}"),
                Action::Start { name, attempt, .. } => format!("start-{name}{attempt}"),
                Action::BackOff { name } => format!("backoff-{name}"),
                Action::Kill { id, grace, .. } => format!("kill-{id}/{grace}"),
                Action::CleanUp { remove } => format!("clean-{remove}"),
                Action::Delete => "delete".to_owned(),
            })
            .collect();
        let state = |s: &k8s_openapi::api::core::v1::ContainerStatus| {
            let state = s.state.clone().unwrap_or_default();
            let text = match (state.running, state.waiting, state.terminated) {
                (Some(_), _, _) => "Running".to_owned(),
                (_, Some(w), _) => w.reason.unwrap_or_default(),
                (_, _, Some(t)) => format!("{}({})", t.reason.unwrap_or_default(), t.exit_code),
                _ => "?".to_owned(),
            };
            format!("{}:{text}{}", s.name, if s.ready { "+" } else { "" })
        };
        let status = &plan.status;
        let all = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
        let states: Vec<_> = all.map(state).collect();
        format!("{} | {} | {}", actions.join(" "), status.phase.clone().unwrap_or_default(), states.join(" "))
    }
}

fn one(policy: &str) -> Value {
    json!({"restartPolicy": policy, "containers": [{"name": "a", "image": "i"}]})
}

#[test]
fn from_nothing_to_running() {
    let mut case = Case::new(one("Always"));
    case.memory.volumes_ready = false;
    assert_eq!(case.short(), "volumes | Pending | a:ContainerCreating");
    case.memory.volumes_ready = true;
    assert_eq!(case.short(), "sandbox0 | Pending | a:ContainerCreating");
    let case = case.sandbox();
    assert_eq!(case.short(), "start-a0 | Pending | a:ContainerCreating");
    let case = case.with("a", 0, None, 1);
    assert_eq!(case.short(), " | Running | a:Running+");
    let status = case.plan().status;
    assert_eq!(status.pod_ip.as_deref(), Some("10.0.0.1"));
    assert_eq!(status.container_statuses.unwrap()[0].container_id.as_deref(), Some("xebec://a0"));
    assert!(status.conditions.unwrap().iter().all(|c| c.status == "True"));
}

#[test]
fn restart_policies() {
    for (policy, code, want) in [
        ("Always", 0, "start-a1 | Running | a:Completed(0)"),
        ("OnFailure", 1, "start-a1 | Running | a:Error(1)"),
        ("OnFailure", 0, "clean-false | Succeeded | a:Completed(0)"),
        ("Never", 1, "clean-false | Failed | a:Error(1)"),
    ] {
        let case = Case::new(one(policy)).sandbox().with("a", 0, Some(code), 5);
        assert_eq!(case.short(), want, "{policy} {code}");
    }
}

#[test]
fn crash_loop_waits_and_says_so() {
    let mut case = Case::new(one("Always")).sandbox().with("a", 0, Some(1), 20).with("a", 1, Some(1), 4);
    let at = |ago| Timestamp::from_second(NOW - ago).unwrap();
    let backoff = RestartBackoff::next(None, at(20), at(20));
    assert_eq!(backoff.delay.as_secs(), 10);
    case.memory.of_mut("a").restart = Some(backoff);
    assert_eq!(case.short(), "backoff-a | Running | a:CrashLoopBackOff");
    let plan = case.plan();
    assert_eq!(plan.wake_at, Some(at(-6)));
    let status = plan.status.container_statuses.unwrap().remove(0);
    assert_eq!(status.restart_count, 1);
    assert_eq!(
        status.state.unwrap().waiting.unwrap().message.unwrap(),
        "back-off 10s restarting failed container=a pod=p_n(u)"
    );
    assert_eq!(status.last_state.unwrap().terminated.unwrap().exit_code, 1);
    let mut delays = vec![];
    let mut backoff = None;
    for _ in 0..7 {
        backoff = Some(RestartBackoff::next(backoff, at(0), at(0)));
        delays.push(backoff.unwrap().delay.as_secs());
    }
    assert_eq!(delays, [10, 20, 40, 80, 160, 300, 300]);
    assert_eq!(RestartBackoff::next(backoff, at(-601), at(-601)).delay.as_secs(), 10);
}

#[test]
fn a_container_that_cannot_be_run_says_why_and_then_crashes() {
    let at = |ago| Timestamp::from_second(NOW - ago).unwrap();
    let mut case = Case::new(one("Always")).sandbox().with("a", 0, Some(128), 20).with("a", 1, Some(128), 0);
    let memory = case.memory.of_mut("a");
    memory.restart = Some(RestartBackoff::next(None, at(20), at(0)));
    let failed =
        |ago| Failure::new(None, "RunContainerError", "no such file".into(), Retry::Crash, 1, at(ago));
    memory.failure = Some(failed(0));
    assert_eq!(case.short(), "backoff-a | Running | a:RunContainerError");
    assert_eq!(case.plan().wake_at, Some(at(-1)));
    case.memory.of_mut("a").failure = Some(failed(1));
    assert_eq!(case.short(), "backoff-a | Running | a:CrashLoopBackOff");
    assert_eq!(case.plan().wake_at, Some(at(-10)));
    case.memory.of_mut("a").restart = None;
    assert_eq!(case.short(), "start-a2 | Running | a:Error(128)");
    let mut never = Case::new(one("Never")).sandbox().with("a", 0, Some(128), 0);
    never.memory.of_mut("a").failure = Some(failed(0));
    assert_eq!(never.short(), "clean-false | Failed | a:Error(128)");
}

#[test]
fn init_containers_and_sidecars_in_order() {
    let spec = json!({
        "initContainers": [{"name": "x", "image": "i"},
            {"name": "s", "image": "i", "restartPolicy": "Always", "startupProbe": {"exec": {"command": ["t"]}}}],
        "containers": [{"name": "a", "image": "i"}]
    });
    let case = Case::new(spec).sandbox();
    assert_eq!(case.short(), "start-x0 | Pending | x:PodInitializing s:PodInitializing a:PodInitializing");
    let case = case.with("x", 0, None, 3);
    assert_eq!(case.short(), " | Pending | x:Running s:PodInitializing a:PodInitializing");
    let mut case = case;
    case.observed.containers.clear();
    let case = case.with("x", 0, Some(0), 2);
    assert_eq!(case.short(), "start-s0 | Pending | x:Completed(0)+ s:PodInitializing a:PodInitializing");
    let mut case = case.with("s", 0, None, 1);
    assert_eq!(case.short(), " | Pending | x:Completed(0)+ s:Running a:PodInitializing");
    let results = ProbeResults { started: true, ready: true, failed: None };
    case.memory.probes.insert("s0".into(), results);
    assert_eq!(case.short(), "start-a0 | Pending | x:Completed(0)+ s:Running+ a:PodInitializing");
    let case = case.with("a", 0, None, 1).deleted();
    assert_eq!(case.short(), "kill-a0/7 | Running | x:Completed(0)+ s:Running+ a:Running+");
    let mut case = case;
    case.observed.containers.remove(0);
    let case = case.with("a", 0, Some(0), 0);
    assert!(case.short().starts_with("kill-s0/7 | Running"), "{}", case.short());
}

#[test]
fn a_failed_init_container_fails_a_never_pod() {
    let spec = json!({"restartPolicy": "Never",
        "initContainers": [{"name": "x", "image": "i"}], "containers": [{"name": "a", "image": "i"}]});
    let case = Case::new(spec).sandbox().with("x", 0, Some(3), 1);
    assert!(case.short().starts_with("clean-false | Failed | x:Error(3)"), "{}", case.short());
}

#[test]
fn deletion_ends_in_order() {
    let mut case = Case::new(one("Always")).sandbox().with("a", 0, None, 9).deleted();
    assert_eq!(case.short(), "kill-a0/7 | Running | a:Running+");
    case.memory.of_mut("a").busy = Some(Busy::Killing(7));
    assert_eq!(case.short(), " | Running | a:Running+");
    case.pod.metadata.deletion_grace_period_seconds = Some(0);
    assert_eq!(case.short(), "kill-a0/0 | Running | a:Running+");
    case.memory.of_mut("a").busy = None;
    case.observed.containers.clear();
    let mut case = case.with("a", 0, Some(143), 0);
    assert_eq!(case.short(), "clean-true | Failed | a:Error(143)");
    case.memory.cleaned = true;
    case.observed = Observed::default();
    case.memory.final_status_stored = true;
    assert!(case.short().starts_with("delete | "), "{}", case.short());
}

#[test]
fn probes_decide_readiness_and_restarts() {
    let spec =
        json!({"containers": [{"name": "a", "image": "i", "readinessProbe": {"tcpSocket": {"port": 1}}}]});
    let mut case = Case::new(spec).sandbox().with("a", 0, None, 9);
    assert_eq!(case.short(), " | Running | a:Running");
    let ready = ProbeResults { started: true, ready: true, failed: None };
    case.memory.probes.insert("a0".into(), ready.clone());
    assert_eq!(case.short(), " | Running | a:Running+");
    let failed = ProbeResults { failed: Some(("liveness", Some(3))), ..ready };
    case.memory.probes.insert("a0".into(), failed);
    assert!(case.short().starts_with("kill-a0/3 |"), "{}", case.short());
}

#[test]
fn deadline_and_gates() {
    let mut spec = one("Always");
    spec["activeDeadlineSeconds"] = json!(10);
    let mut case = Case::new(spec).sandbox().with("a", 0, None, 9);
    case.previous = serde_json::from_value(json!({"startTime": "2020-01-01T00:00:00Z"})).unwrap();
    assert_eq!(case.short(), "kill-a0/30 | Running | a:Running+");
    assert_eq!(case.plan().status.reason.as_deref(), Some("DeadlineExceeded"));
    let mut spec = one("Always");
    spec["readinessGates"] = json!([{"conditionType": "x/y"}]);
    let case = Case::new(spec).sandbox().with("a", 0, None, 9);
    let conditions = case.plan().status.conditions.unwrap();
    let ready = conditions.iter().find(|c| c.type_ == "Ready").unwrap();
    assert_eq!(ready.reason.as_deref(), Some("ReadinessGatesNotReady"));
}

#[test]
fn a_dead_sandbox_is_replaced_and_counts_go_on() {
    let mut case = Case::new(one("Always")).sandbox().with("a", 4, None, 9);
    case.observed.sandboxes[0].state = SandboxState::NotReady;
    assert!(case.short().starts_with("stop-s |"), "{}", case.short());
    case.observed.containers.clear();
    let case = case.with("a", 4, Some(137), 1);
    assert!(case.short().starts_with("sandbox1 |"), "{}", case.short());
}
