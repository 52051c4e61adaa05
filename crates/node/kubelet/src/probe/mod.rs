//! Probes: one task per container, one timer per probe; nothing polls for all of them.

pub mod check;
mod grpc;
pub mod http;
mod redirect;
mod tls;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use xebec_cri::RuntimeService;

use crate::events::Recorder;
use crate::spec;
use check::{Target, Verdict, check};

/// Which probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `startupProbe`.
    Startup,
    /// `livenessProbe`.
    Liveness,
    /// `readinessProbe`.
    Readiness,
}

impl Kind {
    /// Name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Liveness => "liveness",
            Self::Readiness => "readiness",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// A probe's result has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Container id.
    pub container_id: String,
    /// Which probe.
    pub kind: Kind,
    /// Its verdict, thresholds applied.
    pub healthy: bool,
    /// Grace period that the probe asks for, in seconds.
    pub grace: Option<i64>,
}

/// A container under probes; dropping it stops them.
#[derive(Debug)]
pub struct Watchdog(AbortHandle);

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a container's probes need.
pub struct Subject {
    /// The pod.
    pub pod: Arc<Pod>,
    /// The container.
    pub container: Container,
    /// Its id.
    pub id: String,
    /// When it started.
    pub started_at: SystemTime,
    /// Address that probes go to.
    pub ip: IpAddr,
}

/// Whether a container has any probe.
pub fn has_probes(container: &Container) -> bool {
    container.startup_probe.is_some()
        || container.liveness_probe.is_some()
        || container.readiness_probe.is_some()
}

/// Starts the probes of a container. Liveness and readiness begin when the startup probe has succeeded.
pub fn start(
    subject: Subject,
    runtime: Arc<dyn RuntimeService>,
    events: Recorder,
    changes: mpsc::Sender<Change>,
) -> Watchdog {
    let prober = Prober { subject, runtime, events, changes };
    Watchdog(tokio::spawn(prober.run()).abort_handle())
}

struct Prober {
    subject: Subject,
    runtime: Arc<dyn RuntimeService>,
    events: Recorder,
    changes: mpsc::Sender<Change>,
}

impl Prober {
    async fn run(self) {
        let container = &self.subject.container;
        if let Some(probe) = &container.startup_probe {
            let healthy = self.until_decided(probe).await;
            self.tell(Kind::Startup, healthy, probe).await;
            if !healthy {
                return;
            }
        }
        let liveness = async {
            if let Some(probe) = &container.liveness_probe {
                self.repeat(Kind::Liveness, probe, true).await;
            }
        };
        let readiness = async {
            if let Some(probe) = &container.readiness_probe {
                self.repeat(Kind::Readiness, probe, false).await;
            }
        };
        tokio::join!(liveness, readiness);
    }

    async fn tell(&self, kind: Kind, healthy: bool, probe: &Probe) {
        let change = Change {
            container_id: self.subject.id.clone(),
            kind,
            healthy,
            grace: probe.termination_grace_period_seconds,
        };
        // The pod's worker may be gone already.
        let _ = self.changes.send(change).await;
    }

    /// Runs the startup probe until a threshold is reached.
    async fn until_decided(&self, probe: &Probe) -> bool {
        let (mut good, mut bad) = (0, 0);
        let mut timer = self.timer(probe).await;
        loop {
            timer.tick().await;
            match self.once(Kind::Startup, probe).await {
                true => (good, bad) = (good + 1, 0),
                false => (good, bad) = (0, bad + 1),
            }
            if good >= probe.success_threshold.unwrap_or(1).max(1) {
                return true;
            }
            if bad >= probe.failure_threshold.unwrap_or(3).max(1) {
                return false;
            }
        }
    }

    /// Runs a probe for as long as the container lives, telling every change of its verdict. A liveness probe that has
    /// failed is done: the container will be killed.
    async fn repeat(&self, kind: Kind, probe: &Probe, mut healthy: bool) {
        let (mut good, mut bad) = (0, 0);
        let mut timer = self.timer(probe).await;
        loop {
            timer.tick().await;
            match self.once(kind, probe).await {
                true => (good, bad) = (good + 1, 0),
                false => (good, bad) = (0, bad + 1),
            }
            let flips = match healthy {
                true => bad >= probe.failure_threshold.unwrap_or(3).max(1),
                false => good >= probe.success_threshold.unwrap_or(1).max(1),
            };
            if flips {
                healthy = !healthy;
                self.tell(kind, healthy, probe).await;
                if kind == Kind::Liveness {
                    return;
                }
            }
        }
    }

    async fn timer(&self, probe: &Probe) -> tokio::time::Interval {
        let delay = seconds(probe.initial_delay_seconds, 0);
        let since = self.subject.started_at.elapsed().unwrap_or_default();
        tokio::time::sleep(delay.saturating_sub(since)).await;
        let mut timer = tokio::time::interval(seconds(probe.period_seconds, 10).max(Duration::from_secs(1)));
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        timer
    }

    async fn once(&self, kind: Kind, probe: &Probe) -> bool {
        let subject = &self.subject;
        let target = Target { container: &subject.container, id: &subject.id, ip: subject.ip };
        let limit = seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1));
        let verdict = check(probe, &target, self.runtime.as_ref(), limit).await;
        let (message, healthy) = match verdict {
            Verdict::Healthy => return true,
            Verdict::Warning(text) => (format!("{} probe warning: {text}", kind.title()), true),
            Verdict::Unhealthy(text) => (format!("{} probe failed: {text}", kind.title()), false),
            Verdict::Broken(text) => (format!("{} probe errored: {text}", kind.title()), false),
        };
        let reason = if healthy { "ProbeWarning" } else { "Unhealthy" };
        tracing::debug!(pod = spec::name(&subject.pod), message, "probe");
        self.events.pod(&subject.pod, Some(&subject.container.name), true, reason, message);
        healthy
    }
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(value.and_then(|v| u64::try_from(v).ok()).unwrap_or(default))
}
