//! Conditions of a pod.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::Input;
use crate::spec::{self, Role};

/// A condition before it is compared with the last one: type, status, reason, message.
type Verdict = (&'static str, bool, Option<&'static str>, Option<String>);

/// The kubelet's own conditions, and everyone else's as they are.
pub(super) fn conditions(input: &Input<'_>, status: &PodStatus) -> Vec<PodCondition> {
    let phase = status.phase.as_deref().unwrap_or_default();
    let mut verdicts = vec![
        ("PodReadyToStartContainers", has_sandbox(input, phase), None, None),
        initialized(input, status, phase),
    ];
    let containers = containers_ready(status, phase, input);
    verdicts.push(pod_ready(input, &containers));
    verdicts.push(containers);
    verdicts.push(("PodScheduled", true, None, None));
    let old = input.previous.conditions.as_deref().unwrap_or_default();
    let mut out: Vec<_> = verdicts.into_iter().map(|v| condition(input, old, v)).collect();
    let foreign = old.iter().filter(|c| !out.iter().any(|own| own.type_ == c.type_));
    let foreign: Vec<_> = foreign.cloned().collect();
    out.extend(foreign);
    out
}

fn condition(input: &Input<'_>, old: &[PodCondition], verdict: Verdict) -> PodCondition {
    let (type_, holds, reason, message) = verdict;
    let status = if holds { "True" } else { "False" };
    let same = old.iter().find(|c| c.type_ == type_ && c.status == status);
    let now = Timestamp::from_second(input.now.as_second()).unwrap_or(input.now);
    PodCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.map(str::to_owned),
        message,
        last_probe_time: None,
        last_transition_time: same.and_then(|c| c.last_transition_time.clone()).or(Some(Time(now))),
        observed_generation: input.pod.metadata.generation,
    }
}

fn has_sandbox(input: &Input<'_>, phase: &str) -> bool {
    let ended = matches!(phase, "Succeeded" | "Failed");
    let ready = |s: &xebec_cri::SandboxStatus| spec::host_network(input.pod) || !s.ips.is_empty();
    !ended && input.observed.ready_sandbox().is_some_and(ready)
}

fn initialized(input: &Input<'_>, status: &PodStatus, phase: &str) -> Verdict {
    let name = "Initialized";
    if phase == "Succeeded" {
        return (name, true, Some("PodCompleted"), None);
    }
    let touched = |s: &ContainerStatus| {
        s.state.as_ref().is_some_and(|s| s.running.is_some() || s.terminated.is_some())
            || s.last_state.as_ref().is_some_and(|s| s.terminated.is_some())
    };
    if phase != "Failed" && status.container_statuses.iter().flatten().any(touched) {
        return (name, true, None, None);
    }
    let inits = input.pod.spec.as_ref().and_then(|s| s.init_containers.as_deref()).unwrap_or_default();
    let incomplete: Vec<_> = status
        .init_container_statuses
        .iter()
        .flatten()
        .zip(inits)
        .filter(|(s, c)| match spec::init_role(c) {
            Role::Sidecar => s.started != Some(true),
            _ => !s.ready,
        })
        .map(|(s, _)| s.name.as_str())
        .collect();
    if incomplete.is_empty() {
        return (name, true, None, None);
    }
    let message = format!("containers with incomplete status: [{}]", incomplete.join(" "));
    (name, false, Some("ContainersNotInitialized"), Some(message))
}

fn containers_ready(status: &PodStatus, phase: &str, input: &Input<'_>) -> Verdict {
    let name = "ContainersReady";
    match phase {
        "Succeeded" => return (name, false, Some("PodCompleted"), None),
        "Failed" => return (name, false, Some("PodFailed"), None),
        _ => {}
    }
    let inits = input.pod.spec.as_ref().and_then(|s| s.init_containers.as_deref()).unwrap_or_default();
    let init_statuses = status.init_container_statuses.iter().flatten();
    let sidecars = init_statuses.zip(inits).filter(|(_, c)| spec::init_role(c) == Role::Sidecar);
    let all = sidecars.map(|(s, _)| s).chain(status.container_statuses.iter().flatten());
    let unready: Vec<_> = all.filter(|s| !s.ready).map(|s| s.name.as_str()).collect();
    if unready.is_empty() {
        return (name, true, None, None);
    }
    let message = format!("containers with unready status: [{}]", unready.join(" "));
    (name, false, Some("ContainersNotReady"), Some(message))
}

/// Ready is ContainersReady and every readiness gate (KEP-580).
fn pod_ready(input: &Input<'_>, containers: &Verdict) -> Verdict {
    let name = "Ready";
    if !containers.1 {
        return (name, false, containers.2, containers.3.clone());
    }
    let gates = input.pod.spec.as_ref().and_then(|s| s.readiness_gates.as_deref()).unwrap_or_default();
    // Gates are set by others: what the API holds now counts, not what was reported last.
    let current = input.pod.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let mut messages = Vec::new();
    for gate in gates {
        let type_ = &gate.condition_type;
        match current.iter().find(|c| c.type_ == *type_) {
            None => messages
                .push(format!("corresponding condition of pod readiness gate \"{type_}\" does not exist.")),
            Some(c) if c.status != "True" => messages.push(format!(
                "the status of pod readiness gate \"{type_}\" is not \"True\", but {}",
                c.status
            )),
            Some(_) => {}
        }
    }
    if messages.is_empty() {
        (name, true, None, None)
    } else {
        (name, false, Some("ReadinessGatesNotReady"), Some(messages.join(", ")))
    }
}
