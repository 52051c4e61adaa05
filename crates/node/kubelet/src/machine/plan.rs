//! The plan of a pod.

use jiff::{SignedDuration, Timestamp};
use xebec_cri::{ContainerState, SandboxState};

use super::containers::{Due, due, ending, started, stays_ended};
use super::status::status;
use super::{Action, Input, Plan, Stop};
use crate::spec::{self, Role};

/// Decides what to do next for a pod and what its status is.
pub fn plan(input: &Input<'_>) -> Plan {
    let mut draft = Draft { input, actions: Vec::new(), wake_at: None };
    let stop = stop(input);
    match &stop {
        Some(stop) => draft.end(stop),
        None => draft.run(),
    }
    if stop.is_none()
        && let Some(deadline) = deadline(input)
    {
        draft.wake(deadline);
    }
    Plan { status: status(input, stop.as_ref()), actions: draft.actions, wake_at: draft.wake_at }
}

struct Draft<'a> {
    input: &'a Input<'a>,
    actions: Vec<Action>,
    wake_at: Option<Timestamp>,
}

/// Why the pod must not run, if it must not.
fn stop(input: &Input<'_>) -> Option<Stop> {
    if input.pod.metadata.deletion_timestamp.is_some() {
        return Some(Stop::Deleted);
    }
    let previous = input.previous;
    match previous.phase.as_deref() {
        Some("Succeeded") => return Some(Stop::Finished),
        Some("Failed") => {
            return Some(match (&previous.reason, &previous.message) {
                (Some(reason), message) => Stop::Failed(reason.clone(), message.clone().unwrap_or_default()),
                _ => Stop::Finished,
            });
        }
        _ => {}
    }
    if let Some((reason, message)) = &input.memory.rejected {
        return Some(Stop::Failed(reason.clone(), message.clone()));
    }
    if deadline(input).is_some_and(|at| at <= input.now) {
        let message = "Pod was active on the node longer than the specified deadline";
        return Some(Stop::Failed("DeadlineExceeded".into(), message.into()));
    }
    finished(input).then_some(Stop::Finished)
}

/// When `activeDeadlineSeconds` ends.
fn deadline(input: &Input<'_>) -> Option<Timestamp> {
    let seconds = input.pod.spec.as_ref()?.active_deadline_seconds?;
    let start = input.previous.start_time.as_ref()?.0;
    Some(start + SignedDuration::from_secs(seconds))
}

/// Whether every main container has ended for good, or an init container failed for good.
fn finished(input: &Input<'_>) -> bool {
    let Some(pod_spec) = &input.pod.spec else { return false };
    let init_failed = spec::containers(pod_spec)
        .any(|(role, c)| role == Role::Init && stays_ended(input, role, c) == Some(false));
    let mains_ended = !pod_spec.containers.is_empty()
        && pod_spec.containers.iter().all(|c| stays_ended(input, Role::Main, c).is_some());
    init_failed || mains_ended
}

impl Draft<'_> {
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |w| w.min(at)));
    }

    /// Ends the pod: containers, then sandbox and volumes, then (if deleted) the API object.
    fn end(&mut self, stop: &Stop) {
        let memory = self.input.memory;
        let grace = spec::grace_seconds(self.input.pod);
        self.actions = ending(self.input, grace);
        let quiet = !self.input.observed.anything_runs() && !memory.anything_busy();
        if !quiet || !self.actions.is_empty() {
            return;
        }
        let deleted = *stop == Stop::Deleted;
        let left = !self.input.observed.sandboxes.is_empty() || !self.input.observed.containers.is_empty();
        if !memory.cleaned || (deleted && left) {
            self.actions.push(Action::CleanUp { remove: deleted });
        } else if deleted && memory.final_status_stored {
            self.actions.push(Action::Delete);
        }
    }

    /// Brings the pod forward: volumes, sandbox, init containers, main containers.
    fn run(&mut self) {
        let memory = self.input.memory;
        if memory.pod_busy {
            return;
        }
        if !memory.volumes_ready {
            match memory.volumes_retry.filter(|at| *at > self.input.now) {
                Some(at) => self.wake(at),
                None => self.actions.push(Action::SetupVolumes),
            }
            return;
        }
        let Some(sandbox) = self.sandbox() else { return };
        self.containers(&sandbox);
    }

    /// The usable sandbox, or the actions that lead to one.
    fn sandbox(&mut self) -> Option<String> {
        let observed = self.input.observed;
        let needs_ip = !spec::host_network(self.input.pod);
        let current = observed.sandboxes.first();
        let usable =
            |s: &xebec_cri::SandboxStatus| s.state == SandboxState::Ready && !(needs_ip && s.ips.is_empty());
        if let Some(current) = current
            && usable(current)
        {
            return Some(current.id.clone());
        }
        let stale: Vec<_> = observed
            .sandboxes
            .iter()
            .filter(|s| {
                let runs = |c: &super::ObservedContainer| c.status.state == ContainerState::Running;
                let inside = observed.containers.iter().any(|c| c.status.sandbox_id == s.id && runs(c));
                s.state == SandboxState::Ready || inside
            })
            .collect();
        if !stale.is_empty() {
            self.actions.extend(stale.iter().map(|s| Action::StopSandbox { id: s.id.clone() }));
            return None;
        }
        match self.input.memory.sandbox_retry.filter(|at| *at > self.input.now) {
            Some(at) => self.wake(at),
            None => {
                let attempt = current.map_or(0, |s| s.metadata.attempt + 1);
                self.actions.push(Action::CreateSandbox { attempt });
            }
        }
        None
    }

    fn containers(&mut self, sandbox: &str) {
        let Some(pod_spec) = &self.input.pod.spec else { return };
        let starting = |name: &str| self.input.memory.of(name).busy == Some(super::Busy::Starting);
        // Containers start one after another, so that a postStart hook holds back those that follow it.
        let mut free = !spec::containers(pod_spec).any(|(_, c)| starting(&c.name));
        let initialized = pod_spec.containers.iter().any(|c| {
            let mut all = self.input.observed.attempts(&c.name);
            all.any(|o| o.status.sandbox_id == sandbox)
        });
        for container in pod_spec.init_containers.iter().flatten() {
            let role = spec::init_role(container);
            if initialized && role == Role::Init {
                continue;
            }
            let due = due(self.input, sandbox, role, container);
            let passed = match role {
                Role::Sidecar => started(self.input, container),
                _ => due == Due::Done(true),
            };
            self.carry(due, container, sandbox, &mut free);
            if !passed && !initialized {
                return;
            }
        }
        for container in &pod_spec.containers {
            let due = due(self.input, sandbox, Role::Main, container);
            self.carry(due, container, sandbox, &mut free);
        }
    }

    fn carry(
        &mut self,
        due: Due,
        container: &k8s_openapi::api::core::v1::Container,
        sandbox: &str,
        free: &mut bool,
    ) {
        let name = container.name.clone();
        match due {
            Due::Runs | Due::Done(_) => {}
            Due::Wait(at) => {
                self.wake(at);
                self.actions.push(Action::BackOff { name });
            }
            Due::Kill(id, why, grace) => self.actions.push(Action::Kill { id, name, grace, why }),
            Due::Start(attempt) => {
                if std::mem::take(free) {
                    self.actions.push(Action::Start { name, attempt, sandbox: sandbox.to_owned() });
                }
            }
        }
    }
}
