//! What the machine looks at and what it answers.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use xebec_cri::{ContainerState, ContainerStatus, SandboxState, SandboxStatus};

/// First delay of every back-off.
const FIRST_DELAY: SignedDuration = SignedDuration::from_secs(10);
/// How long a container that could not be run shows why, before it counts as crashed.
const TOLD_FOR: SignedDuration = SignedDuration::from_secs(1);
/// Longest delay of every back-off.
const LONGEST_DELAY: SignedDuration = SignedDuration::from_secs(300);
/// A container that ran this long starts from the first delay again.
const RESET_AFTER: SignedDuration = SignedDuration::from_secs(600);

/// Facts of the node that show in a pod's status.
#[derive(Debug, Clone, Default)]
pub struct NodeView {
    /// Addresses of the node, the primary first.
    pub ips: Vec<IpAddr>,
    /// Name of the runtime, the scheme of container ids.
    pub runtime: String,
}

/// A container with the last words it left.
#[derive(Debug, Clone, PartialEq)]
pub struct ObservedContainer {
    /// What the runtime says.
    pub status: ContainerStatus,
    /// Termination message.
    pub message: Option<String>,
}

/// What the runtime holds for a pod.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    /// Sandboxes, the newest first.
    pub sandboxes: Vec<SandboxStatus>,
    /// Containers, the highest attempt first.
    pub containers: Vec<ObservedContainer>,
}

impl Observed {
    /// The newest sandbox, if it is ready.
    pub fn ready_sandbox(&self) -> Option<&SandboxStatus> {
        self.sandboxes.first().filter(|s| s.state == SandboxState::Ready)
    }

    /// All attempts of a container, the latest first.
    pub fn attempts<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a ObservedContainer> {
        self.containers.iter().filter(move |c| c.status.metadata.name == name)
    }

    /// The latest attempt of a container.
    pub fn latest(&self, name: &str) -> Option<&ObservedContainer> {
        self.containers.iter().find(|c| c.status.metadata.name == name)
    }

    /// Whether any container's process may run.
    pub fn anything_runs(&self) -> bool {
        self.containers.iter().any(|c| c.status.state == ContainerState::Running)
    }
}

/// Probe results of a running container, by container id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProbeResults {
    /// Startup probe has succeeded.
    pub started: bool,
    /// Readiness probe's last verdict.
    pub ready: bool,
    /// Liveness or startup probe has failed for good: which, and the grace period it asks for, in seconds.
    pub failed: Option<(&'static str, Option<i64>)>,
}

/// Back-off before the next restart of a crashing container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartBackoff {
    /// Delay after the last end.
    pub delay: SignedDuration,
    /// When it was last raised.
    pub at: Timestamp,
}

impl RestartBackoff {
    /// The back-off after one more restart at `now` of a container that ended at `ended`.
    pub fn next(previous: Option<Self>, ended: Timestamp, now: Timestamp) -> Self {
        let delay = match previous {
            Some(p) if ended.duration_since(p.at) <= RESET_AFTER => (p.delay * 2).min(LONGEST_DELAY),
            _ => FIRST_DELAY,
        };
        Self { delay, at: now }
    }

    /// When the container may restart, if that is after `now`.
    pub fn holds(&self, ended: Timestamp, now: Timestamp) -> Option<Timestamp> {
        if ended.duration_since(self.at) > RESET_AFTER {
            return None;
        }
        Some(ended + self.delay).filter(|until| *until > now)
    }
}

/// A start that failed: the container's waiting reason until the next try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// CamelCase reason.
    pub reason: String,
    /// For a person.
    pub message: String,
    /// Reason once the failure is being waited out (`ImagePullBackOff`).
    pub backoff_reason: Option<String>,
    /// Message that goes with it.
    pub backoff_message: Option<String>,
    /// The container died of it, so that the back-off of crashes decides when it is tried again.
    pub crashed: bool,
    /// Delay before the next try.
    pub delay: SignedDuration,
    /// When to try again.
    pub retry_at: Timestamp,
    /// Attempt that failed.
    pub attempt: u32,
}

impl Failure {
    /// A failure at `now`.
    pub fn new(
        previous: Option<&Self>,
        reason: &str,
        message: String,
        retry: Retry,
        attempt: u32,
        now: Timestamp,
    ) -> Self {
        let delay = match (retry, previous) {
            (Retry::Doubling, Some(p)) if p.backoff_reason.is_some() => (p.delay * 2).min(LONGEST_DELAY),
            (Retry::Doubling | Retry::Steady, _) => FIRST_DELAY,
            (Retry::Crash, _) => TOLD_FOR,
        };
        Self {
            reason: reason.to_owned(),
            message,
            backoff_reason: None,
            backoff_message: None,
            crashed: retry == Retry::Crash,
            delay,
            retry_at: now + delay,
            attempt,
        }
    }

    /// Whether it is the failure that the container waits for, and not the back-off of a crash.
    pub fn holds(&self, now: Timestamp) -> bool {
        !self.crashed || self.retry_at > now
    }
}

/// How a failed start is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Every ten seconds.
    Steady,
    /// With a delay that doubles, as images are pulled.
    Doubling,
    /// As a container that ran and crashed: it was made, and is dead.
    Crash,
}

/// What is being done to a container right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Busy {
    /// Being pulled, made, started or run through its postStart hook.
    Starting,
    /// Being stopped, with this grace in seconds.
    Killing(i64),
}

/// What the worker remembers of a container between plans.
#[derive(Debug, Clone, Default)]
pub struct ContainerMemory {
    /// Crash back-off.
    pub restart: Option<RestartBackoff>,
    /// Last failed start.
    pub failure: Option<Failure>,
    /// Work in progress.
    pub busy: Option<Busy>,
}

/// What the worker remembers of a pod between plans. Losing it (a restart of the agent) costs back-off delays only.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// By container name.
    pub containers: BTreeMap<String, ContainerMemory>,
    /// By container id.
    pub probes: BTreeMap<String, ProbeResults>,
    /// Volumes are set up.
    pub volumes_ready: bool,
    /// Volumes failed; try again then.
    pub volumes_retry: Option<Timestamp>,
    /// Sandbox failed; try again then.
    pub sandbox_retry: Option<Timestamp>,
    /// Volumes or sandbox work is in progress.
    pub pod_busy: bool,
    /// Volumes, cgroup and sandbox have been cleaned up.
    pub cleaned: bool,
    /// The pod was refused at admission: reason and message.
    pub rejected: Option<(String, String)>,
    /// The final status of a deleted pod is stored.
    pub final_status_stored: bool,
}

impl Memory {
    /// Memory of a container.
    pub fn of(&self, name: &str) -> ContainerMemory {
        self.containers.get(name).cloned().unwrap_or_default()
    }

    /// Memory of a container, to change.
    pub fn of_mut(&mut self, name: &str) -> &mut ContainerMemory {
        self.containers.entry(name.to_owned()).or_default()
    }

    /// Whether any work is in progress.
    pub fn anything_busy(&self) -> bool {
        self.pod_busy || self.containers.values().any(|c| c.busy.is_some())
    }
}

/// Everything the plan depends on.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The pod as the API has it.
    pub pod: &'a Pod,
    /// The status that was reported last.
    pub previous: &'a PodStatus,
    /// What the runtime holds.
    pub observed: &'a Observed,
    /// What the worker remembers.
    pub memory: &'a Memory,
    /// The node.
    pub node: &'a NodeView,
    /// Now.
    pub now: Timestamp,
}

/// Why a container is killed; it decides the event's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KillReason {
    /// The pod ends.
    PodEnds,
    /// A probe failed: its name.
    Probe(&'static str),
    /// Its image changed.
    Changed,
    /// Its sandbox is gone.
    Sandbox,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Bring up the volumes.
    SetupVolumes,
    /// Make a sandbox.
    CreateSandbox {
        /// Attempt.
        attempt: u32,
    },
    /// Stop a sandbox that cannot be used any more, with what runs in it.
    StopSandbox {
        /// Its id.
        id: String,
    },
    /// Start a container.
    Start {
        /// Its name.
        name: String,
        /// Attempt.
        attempt: u32,
        /// Sandbox to start it in.
        sandbox: String,
    },
    /// Say that a container waits out its back-off (an event, once per plan that begins the wait).
    BackOff {
        /// Its name.
        name: String,
    },
    /// Stop a container.
    Kill {
        /// Its id.
        id: String,
        /// Its name.
        name: String,
        /// Grace in seconds.
        grace: i64,
        /// Why.
        why: KillReason,
    },
    /// Stop sandboxes, unmount volumes, remove the cgroup. With `remove`, also remove sandboxes and containers.
    CleanUp {
        /// Remove sandboxes and containers too.
        remove: bool,
    },
    /// Delete the pod from the API: its end.
    Delete,
}

/// Why a pod must not run (any more).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// It is being deleted.
    Deleted,
    /// It has reached its end by itself.
    Finished,
    /// It failed for a reason of the node's: reason and message of the status.
    Failed(String, String),
}

/// What to do and what to say.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// To do now; all of them may run at once.
    pub actions: Vec<Action>,
    /// The status to report.
    pub status: PodStatus,
    /// Plan again at this time even if nothing happens.
    pub wake_at: Option<Timestamp>,
}
