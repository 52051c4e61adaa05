//! Which containers to start, restart or kill.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Container;
use xebec_cri::ContainerState;

use super::{Action, Busy, Input, KillReason, ObservedContainer};
use crate::spec::{self, Role};

/// What is due for one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing: it runs, or work is in progress.
    Runs,
    /// Nothing: it has ended and stays so; whether well.
    Done(bool),
    /// Start this attempt.
    Start(u32),
    /// Wait until then.
    Wait(Timestamp),
    /// Kill it first.
    Kill(String, KillReason, i64),
}

/// Restart policy that holds for a container (KEP-753 and KEP-5307).
fn restarts(input: &Input<'_>, role: Role, container: &Container, code: i32) -> bool {
    for rule in container.restart_policy_rules.iter().flatten() {
        let Some(codes) = &rule.exit_codes else { continue };
        let listed = codes.values.iter().flatten().any(|v| *v == code);
        if listed == (codes.operator == "In") && rule.action == "Restart" {
            return true;
        }
    }
    let pod_policy = spec::restart_policy(input.pod);
    let policy = match (role, container.restart_policy.as_deref()) {
        (Role::Sidecar, _) => "Always",
        (_, Some(own)) => own,
        // An init container that has done its work is not run again.
        (Role::Init, None) if pod_policy == "Always" => "OnFailure",
        (_, None) => pod_policy,
    };
    match policy {
        "Always" => true,
        "OnFailure" => code != 0,
        _ => false,
    }
}

/// Whether a container of the current sandbox has ended and stays so.
pub(super) fn stays_ended(input: &Input<'_>, role: Role, container: &Container) -> Option<bool> {
    let latest = input.observed.latest(&container.name)?;
    let code = exit_code(latest)?;
    (!restarts(input, role, container, code)).then_some(code == 0)
}

fn exit_code(container: &ObservedContainer) -> Option<i32> {
    match container.status.state {
        ContainerState::Exited => Some(container.status.exit_code.unwrap_or(255)),
        ContainerState::Unknown => Some(137),
        _ => None,
    }
}

/// When a container ended.
pub(super) fn ended_at(container: &ObservedContainer) -> Timestamp {
    let at = container.status.finished_at.unwrap_or(container.status.created_at);
    Timestamp::try_from(at).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The attempt that a new container gets: one more than any seen by the runtime or reported before.
fn next_attempt(input: &Input<'_>, container: &Container) -> u32 {
    if let Some(latest) = input.observed.latest(&container.name) {
        return latest.status.metadata.attempt + 1;
    }
    let status = input.previous;
    let reported = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let mut reported = reported.filter(|s| s.name == container.name && s.container_id.is_some());
    reported.next().map_or(0, |s| u32::try_from(s.restart_count).unwrap_or(0) + 1)
}

/// What is due for a container in the sandbox.
pub(super) fn due(input: &Input<'_>, sandbox: &str, role: Role, container: &Container) -> Due {
    let memory = input.memory.of(&container.name);
    if memory.busy.is_some() {
        return Due::Runs;
    }
    let latest = input.observed.latest(&container.name).filter(|c| c.status.sandbox_id == sandbox);
    let Some(latest) = latest else {
        return start_or_wait(input, container, None);
    };
    match latest.status.state {
        ContainerState::Running => running(input, container, latest),
        // A container that was made but never started: its start failed, or the agent died in between.
        ContainerState::Created => start_or_wait(input, container, Some(latest)),
        ContainerState::Exited | ContainerState::Unknown => {
            let code = exit_code(latest).unwrap_or(255);
            if restarts(input, role, container, code) {
                start_or_wait(input, container, Some(latest))
            } else {
                Due::Done(code == 0)
            }
        }
    }
}

fn running(input: &Input<'_>, container: &Container, latest: &ObservedContainer) -> Due {
    let id = latest.status.id.clone();
    if let Some((probe, grace)) = input.memory.probes.get(&id).and_then(|p| p.failed) {
        let grace = grace.unwrap_or_else(|| spec::grace_seconds(input.pod));
        return Due::Kill(id, KillReason::Probe(probe), grace);
    }
    if container.image.as_deref().is_some_and(|image| image != latest.status.image) {
        return Due::Kill(id, KillReason::Changed, spec::grace_seconds(input.pod));
    }
    Due::Runs
}

fn start_or_wait(input: &Input<'_>, container: &Container, dead: Option<&ObservedContainer>) -> Due {
    let memory = input.memory.of(&container.name);
    let failed = memory.failure.as_ref().map(|f| f.retry_at);
    let crashed = match (dead, memory.restart) {
        (Some(dead), Some(backoff)) => backoff.holds(ended_at(dead), input.now),
        _ => None,
    };
    // The first of the two: what the container shows changes then.
    match failed.into_iter().chain(crashed).filter(|until| *until > input.now).min() {
        Some(until) => Due::Wait(until),
        None => Due::Start(next_attempt(input, container)),
    }
}

/// Whether the container counts as started: it runs, and its startup probe (if any) has succeeded.
pub(super) fn started(input: &Input<'_>, container: &Container) -> bool {
    let Some(latest) = input.observed.latest(&container.name) else { return false };
    if latest.status.state != ContainerState::Running {
        return false;
    }
    if input.memory.of(&container.name).busy == Some(Busy::Starting) {
        return false;
    }
    container.startup_probe.is_none() || input.memory.probes.get(&latest.status.id).is_some_and(|p| p.started)
}

/// Kills that end the pod: main and init containers at once, sidecars afterwards in reverse order (KEP-753). A kill in
/// progress is repeated only with a shorter grace.
pub(super) fn ending(input: &Input<'_>, grace: i64) -> Vec<Action> {
    let Some(pod_spec) = &input.pod.spec else { return Vec::new() };
    let runs = |name: &str| {
        let mut all = input.observed.attempts(name);
        all.find(|c| c.status.state == ContainerState::Running).map(|c| c.status.id.clone())
    };
    let kill = |container: &Container| -> Option<Action> {
        let id = runs(&container.name)?;
        match input.memory.of(&container.name).busy {
            Some(Busy::Killing(current)) if current <= grace => None,
            _ => Some(Action::Kill { id, name: container.name.clone(), grace, why: KillReason::PodEnds }),
        }
    };
    let alive = |name: &str| runs(name).is_some() || input.memory.of(name).busy.is_some();
    let (mut kills, mut mains_alive) = (Vec::new(), false);
    for (role, container) in spec::containers(pod_spec) {
        if role != Role::Sidecar && alive(&container.name) {
            mains_alive = true;
            kills.extend(kill(container));
        }
    }
    if mains_alive {
        return kills;
    }
    let sidecars: Vec<_> = spec::containers(pod_spec).filter(|(r, _)| *r == Role::Sidecar).collect();
    let last = sidecars.into_iter().rev().find(|(_, c)| alive(&c.name));
    last.and_then(|(_, c)| kill(c)).into_iter().collect()
}
