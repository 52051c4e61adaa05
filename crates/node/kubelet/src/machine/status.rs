//! The status of a pod, from what the runtime holds and the worker remembers.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState as ApiState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus as ApiStatus, HostIP, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use xebec_cri::{ContainerState, SandboxState};

use super::conditions::conditions;
use super::containers::{Due, due, ended_at, started};
use super::{Busy, Input, ObservedContainer, Stop};
use crate::spec::{self, Role};

/// Makes the status.
pub(super) fn status(input: &Input<'_>, stop: Option<&Stop>) -> PodStatus {
    let pod = input.pod;
    let previous = input.previous;
    let pod_spec = pod.spec.clone().unwrap_or_default();
    let init: Vec<_> = pod_spec
        .init_containers
        .iter()
        .flatten()
        .map(|c| container_status(input, spec::init_role(c), c, stop))
        .collect();
    let main: Vec<_> =
        pod_spec.containers.iter().map(|c| container_status(input, Role::Main, c, stop)).collect();
    let phase = settle_phase(input, stop, phase(input, &init, &main));
    let terminal = matches!(phase, "Succeeded" | "Failed");
    let ips = addresses(input, terminal);
    let host_ip = |ip: &std::net::IpAddr| HostIP { ip: ip.to_string() };
    let mut status = PodStatus {
        phase: Some(phase.to_owned()),
        qos_class: Some(spec::qos(&pod_spec).name().to_owned()),
        host_ip: input.node.ips.first().map(ToString::to_string),
        host_ips: Some(input.node.ips.iter().map(host_ip).collect()),
        pod_ip: ips.first().cloned(),
        pod_ips: Some(ips.into_iter().map(|ip| PodIP { ip }).collect()),
        start_time: previous.start_time.clone().or(Some(Time(whole(input.now)))),
        init_container_statuses: (!init.is_empty()).then_some(init),
        container_statuses: Some(main),
        observed_generation: pod.metadata.generation,
        // Fields of other owners (resize, claims, nomination) are not ours to change.
        ..Default::default()
    };
    match stop {
        Some(Stop::Failed(reason, message)) => {
            status.reason = Some(reason.clone());
            status.message = Some(message.clone()).filter(|m| !m.is_empty());
        }
        _ if terminal => {
            status.reason.clone_from(&previous.reason);
            status.message.clone_from(&previous.message);
        }
        _ => {}
    }
    status.conditions = Some(conditions(input, &status));
    status
}

/// The API keeps whole seconds; a finer time would differ from what is read back.
fn whole(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

fn time(at: Option<std::time::SystemTime>) -> Option<Time> {
    at.and_then(|at| Timestamp::try_from(at).ok()).map(|at| Time(whole(at)))
}

fn addresses(input: &Input<'_>, terminal: bool) -> Vec<String> {
    if spec::host_network(input.pod) {
        return input.node.ips.iter().map(ToString::to_string).collect();
    }
    match input.observed.sandboxes.first() {
        Some(sandbox) if sandbox.state == SandboxState::Ready => {
            sandbox.ips.iter().map(ToString::to_string).collect()
        }
        // An ended pod keeps showing the addresses it had.
        _ if terminal => input.previous.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect(),
        _ => Vec::new(),
    }
}

fn terminated(input: &Input<'_>, container: &ObservedContainer) -> ApiState {
    let status = &container.status;
    let code = status.exit_code.unwrap_or(if status.state == ContainerState::Unknown { 137 } else { 255 });
    let reason = match (status.reason.as_str(), code) {
        ("", _) if status.state == ContainerState::Unknown => "ContainerStatusUnknown",
        ("", 0) => "Completed",
        ("", _) => "Error",
        (reason, _) => reason,
    };
    let own = Some(status.message.clone()).filter(|m| !m.is_empty());
    ApiState {
        terminated: Some(ContainerStateTerminated {
            container_id: Some(container_id(input, &status.id)),
            exit_code: code,
            finished_at: Some(Time(whole(ended_at(container)))),
            message: container.message.clone().filter(|m| !m.is_empty()).or(own),
            reason: Some(reason.to_owned()),
            // The API shows signals only when the runtime reports one apart from the exit code; CRI has no such field.
            signal: None,
            started_at: time(status.started_at).or_else(|| time(Some(status.created_at))),
        }),
        ..ApiState::default()
    }
}

fn container_id(input: &Input<'_>, id: &str) -> String {
    format!("{}://{id}", input.node.runtime)
}

fn waiting(reason: &str, message: Option<String>) -> ApiState {
    ApiState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message }),
        ..ApiState::default()
    }
}

fn previous_of<'a>(input: &'a Input<'_>, name: &str) -> Option<&'a ApiStatus> {
    let status = input.previous;
    let mut all = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    all.find(|s| s.name == name)
}

/// Status of one container.
fn container_status(input: &Input<'_>, role: Role, container: &Container, stop: Option<&Stop>) -> ApiStatus {
    let mut attempts = input.observed.attempts(&container.name);
    let latest = attempts.next();
    let before =
        attempts.find(|c| matches!(c.status.state, ContainerState::Exited | ContainerState::Unknown));
    let previous = previous_of(input, &container.name);
    let mut status = ApiStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        started: Some(false),
        ..ApiStatus::default()
    };
    let (state, last) = states(input, role, container, latest, before, previous, stop);
    if let Some(latest) = latest {
        status.container_id = Some(container_id(input, &latest.status.id));
        status.image_id.clone_from(&latest.status.image_id);
        status.restart_count = i32::try_from(latest.status.metadata.attempt).unwrap_or(i32::MAX);
        status.image.clone_from(&latest.status.image);
    } else if let Some(previous) = previous {
        status.container_id.clone_from(&previous.container_id);
        status.image_id.clone_from(&previous.image_id);
        status.restart_count = previous.restart_count;
    }
    let running = state.running.is_some();
    let is_started = running && started(input, container);
    status.started = Some(is_started);
    status.ready = match role {
        Role::Init => state.terminated.as_ref().is_some_and(|t| t.exit_code == 0),
        _ => is_started && ready(input, container, latest),
    };
    status.state = Some(state);
    status.last_state = Some(last);
    status.resources = latest.and(container.resources.clone());
    status
}

fn ready(input: &Input<'_>, container: &Container, latest: Option<&ObservedContainer>) -> bool {
    if container.readiness_probe.is_none() {
        return true;
    }
    latest.and_then(|c| input.memory.probes.get(&c.status.id)).is_some_and(|p| p.ready)
}

/// `state` and `lastState`.
fn states(
    input: &Input<'_>,
    role: Role,
    container: &Container,
    latest: Option<&ObservedContainer>,
    before: Option<&ObservedContainer>,
    previous: Option<&ApiStatus>,
    stop: Option<&Stop>,
) -> (ApiState, ApiState) {
    let kept = || previous.and_then(|p| p.last_state.clone()).unwrap_or_default();
    let last = before.map_or_else(kept, |c| terminated(input, c));
    let Some(latest) = latest else {
        return absent(input, role, container, previous, stop);
    };
    match latest.status.state {
        ContainerState::Running => {
            let running = ContainerStateRunning { started_at: time(latest.status.started_at) };
            (ApiState { running: Some(running), ..ApiState::default() }, last)
        }
        ContainerState::Created if stop.is_none() => (waiting_state(input, container), last),
        ContainerState::Created => (terminated(input, latest), last),
        ContainerState::Exited | ContainerState::Unknown => {
            let ended = terminated(input, latest);
            if stop.is_some() {
                return (ended, last);
            }
            match restart_state(input, role, container, latest) {
                Some(waiting) => (waiting, ended),
                None => (ended, last),
            }
        }
    }
}

/// The waiting state of a container that ended and will run again; `None` if it stays ended (or will restart at once).
fn restart_state(
    input: &Input<'_>,
    role: Role,
    container: &Container,
    latest: &ObservedContainer,
) -> Option<ApiState> {
    let memory = input.memory.of(&container.name);
    if memory.failure.as_ref().is_some_and(|failure| failure.holds(input.now)) {
        return Some(waiting_state(input, container));
    }
    let sandbox = latest.status.sandbox_id.clone();
    match due(input, &sandbox, role, container) {
        Due::Wait(_) => {
            let delay = memory.restart.map_or(10, |r| r.delay.as_secs());
            let text = match delay {
                60.. if delay % 60 == 0 => format!("{}m0s", delay / 60),
                60.. => format!("{}m{}s", delay / 60, delay % 60),
                _ => format!("{delay}s"),
            };
            let message = format!(
                "back-off {text} restarting failed container={} pod={}",
                container.name,
                spec::display(input.pod)
            );
            Some(waiting("CrashLoopBackOff", Some(message)))
        }
        _ => None,
    }
}

/// The waiting state of a container that is about to start.
fn waiting_state(input: &Input<'_>, container: &Container) -> ApiState {
    let memory = input.memory.of(&container.name);
    if let Some(failure) = memory.failure {
        return match failure.backoff_reason {
            // While the pull is tried again, upstream keeps showing the back-off.
            Some(reason) => waiting(&reason, failure.backoff_message),
            None => waiting(&failure.reason, Some(failure.message)),
        };
    }
    let has_inits =
        input.pod.spec.as_ref().is_some_and(|s| s.init_containers.as_ref().is_some_and(|i| !i.is_empty()));
    let reason = if has_inits { "PodInitializing" } else { "ContainerCreating" };
    waiting(reason, None)
}

/// States of a container of which the runtime knows nothing.
fn absent(
    input: &Input<'_>,
    role: Role,
    container: &Container,
    previous: Option<&ApiStatus>,
    stop: Option<&Stop>,
) -> (ApiState, ApiState) {
    let kept = previous.and_then(|p| p.last_state.clone()).unwrap_or_default();
    let old = previous.and_then(|p| p.state.clone()).unwrap_or_default();
    if old.terminated.is_some() && (stop.is_some() || role == Role::Init) {
        return (old, kept);
    }
    let lost = |message: &str| ApiState {
        terminated: Some(ContainerStateTerminated {
            exit_code: 137,
            reason: Some("ContainerStatusUnknown".into()),
            message: Some(message.to_owned()),
            container_id: previous.and_then(|p| p.container_id.clone()),
            ..ContainerStateTerminated::default()
        }),
        ..ApiState::default()
    };
    let quiet = input.memory.of(&container.name).busy != Some(Busy::Starting);
    if old.running.is_some() {
        let message = "The container could not be located when the pod was terminated";
        return match stop {
            Some(_) => (lost(message), kept),
            None => (waiting_state(input, container), lost(message)),
        };
    }
    let ended_without = matches!(stop, Some(Stop::Deleted | Stop::Finished)) && quiet;
    if ended_without && !input.observed.anything_runs() && !input.observed.sandboxes.is_empty() {
        return (lost("The container could not be located when the pod was terminated"), kept);
    }
    (waiting_state(input, container), old_last(kept, old))
}

fn old_last(kept: ApiState, old: ApiState) -> ApiState {
    if old.terminated.is_some() { old } else { kept }
}

/// The phase by upstream's rules, from the container statuses.
fn phase(input: &Input<'_>, init: &[ApiStatus], main: &[ApiStatus]) -> &'static str {
    let policy = spec::restart_policy(input.pod);
    let pod_spec = input.pod.spec.clone().unwrap_or_default();
    let exit = |state: &Option<ApiState>| state.as_ref()?.terminated.as_ref().map(|t| t.exit_code);
    let (mut pending_init, mut failed_init) = (0, 0);
    for (status, container) in init.iter().zip(pod_spec.init_containers.iter().flatten()) {
        let sidecar = spec::init_role(container) == Role::Sidecar;
        match (exit(&status.state), exit(&status.last_state)) {
            (Some(0), _) => {}
            (Some(_), _) if !sidecar => failed_init += 1,
            (Some(_), _) => {}
            (None, Some(code)) if !sidecar && code != 0 => failed_init += 1,
            (None, _) if sidecar && status.started == Some(true) => {}
            (None, Some(_)) if sidecar => {}
            (None, _) => pending_init += 1,
        }
    }
    let (mut waiting, mut running, mut stopped, mut succeeded) = (0, 0, 0, 0);
    for status in main {
        let state = status.state.clone().unwrap_or_default();
        if state.running.is_some() {
            running += 1;
        } else if let Some(code) = exit(&status.state) {
            stopped += 1;
            succeeded += usize::from(code == 0);
        } else if exit(&status.last_state).is_some() {
            stopped += 1;
        } else {
            waiting += 1;
        }
    }
    let untouched = running == 0 && stopped == 0;
    match () {
        () if failed_init > 0 && policy == "Never" => "Failed",
        () if pending_init + failed_init > 0 && untouched => "Pending",
        () if waiting > 0 => "Pending",
        () if running > 0 => "Running",
        () if stopped > 0 && policy == "Always" => "Running",
        () if stopped > 0 && stopped == succeeded => "Succeeded",
        () if stopped > 0 && policy == "Never" => "Failed",
        () if stopped > 0 => "Running",
        () => "Pending",
    }
}

/// A terminal phase is reported only when nothing runs any more, and never left.
fn settle_phase(input: &Input<'_>, stop: Option<&Stop>, computed: &'static str) -> &'static str {
    match input.previous.phase.as_deref() {
        Some("Succeeded") => return "Succeeded",
        Some("Failed") => return "Failed",
        _ => {}
    }
    let alive = input.observed.anything_runs()
        || input.memory.containers.values().any(|c| c.busy == Some(Busy::Starting));
    match stop {
        Some(Stop::Failed(..)) if !alive => "Failed",
        Some(Stop::Deleted | Stop::Finished) if !alive => ended_phase(input, computed),
        _ if matches!(computed, "Succeeded" | "Failed") && alive => {
            if input.previous.phase.as_deref() == Some("Pending") { "Pending" } else { "Running" }
        }
        _ => computed,
    }
}

/// Phase of a pod whose containers have all ended and will not run again: Succeeded only if all of them did well.
fn ended_phase(input: &Input<'_>, computed: &'static str) -> &'static str {
    let Some(pod_spec) = &input.pod.spec else { return computed };
    let code = |c: &Container| input.observed.latest(&c.name).map(|o| o.status.exit_code.unwrap_or(137));
    let codes: Vec<_> = pod_spec.containers.iter().map(code).collect();
    match () {
        () if codes.iter().all(|c| *c == Some(0)) => "Succeeded",
        // A pod deleted before anything of it ran stays what it was.
        () if codes.iter().all(Option::is_none) && computed == "Pending" => "Pending",
        () => "Failed",
    }
}
