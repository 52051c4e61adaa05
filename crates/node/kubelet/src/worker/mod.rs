//! One task per pod: observes, plans, carries out, reports. Driven by changes only: the pod's watch, runtime events,
//! probe results, changed objects, finished work and the times the plan asked for.

mod apply;
mod hooks;
mod image;
pub mod observe;
mod report;
mod start;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use xebec_cri::{ContainerState, CriError, DnsConfig, Runtime};
use xebec_volumes::{Facts, Mounted, PodVolumes, VolumeError};

use crate::config::Config;
use crate::events::Recorder;
use crate::machine::{self, Input, KillReason, Memory, NodeView, Observed, ProbeResults};
use crate::probe::{self, Watchdog};
use crate::sources::Objects;
use crate::spec;

/// Wait before an operation of the runtime or the API is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Probe results that may wait for the worker.
const PROBE_QUEUE: usize = 64;

/// What all workers of a node share.
pub struct Shared {
    /// Configuration.
    pub config: Config,
    /// The API.
    pub client: kube::Client,
    /// The runtime.
    pub runtime: Runtime,
    /// Volumes.
    pub volumes: PodVolumes,
    /// Referenced objects.
    pub objects: Arc<Objects>,
    /// Events.
    pub events: Recorder,
    /// What volumes show of the node.
    pub facts: Facts,
    /// Memory of the node in bytes.
    pub memory_bytes: u64,
    /// The node's resolver configuration.
    pub host_dns: DnsConfig,
    /// What pod status shows of the node.
    pub view: NodeView,
    /// Poked when a container died, for collection of garbage.
    pub died: Notify,
}

impl Shared {
    /// Directory of a pod's termination messages.
    pub fn message_dir(&self, uid: &str) -> PathBuf {
        self.volumes.pod_dir(uid).join("containers")
    }
}

/// Wakes a worker.
#[derive(Debug, Default)]
pub struct Poke {
    notify: Notify,
    stale: std::sync::atomic::AtomicBool,
}

impl Poke {
    /// Something happened in the runtime.
    pub fn changed(&self) {
        self.notify.notify_one();
    }

    /// A referenced object changed: volumes are rendered again and failed starts tried again.
    pub fn stale(&self) {
        self.stale.store(true, std::sync::atomic::Ordering::Release);
        self.notify.notify_one();
    }
}

/// What a worker is told about its pod.
#[derive(Debug, Clone)]
pub struct Order {
    /// The pod.
    pub pod: Arc<Pod>,
    /// The API has forgotten the pod: end it without reporting.
    pub gone: bool,
}

/// Work that has ended.
enum Done {
    Volumes(Result<Mounted, (String, VolumeError)>),
    Sandbox(Result<(), CriError>),
    SandboxStopped(Result<(), CriError>),
    Started { name: String, attempt: u32, result: Result<(), start::StartError> },
    Killed { name: String, grace: i64, result: Result<(), CriError> },
    Cleaned(Result<(), String>),
    Reported { status: Box<PodStatus>, result: Result<(), kube::Error> },
    Deleted(Result<(), kube::Error>),
    Housekeeping,
}

/// The task of a pod.
pub struct Worker {
    shared: Arc<Shared>,
    orders: watch::Receiver<Order>,
    poke: Arc<Poke>,
    memory: Memory,
    /// What the last plan said.
    status: PodStatus,
    /// What the API has, as far as we wrote it.
    reported: PodStatus,
    reporting: bool,
    report_retry: Option<Timestamp>,
    mounted: Mounted,
    messages: BTreeMap<String, Option<String>>,
    backing_off: BTreeMap<String, Timestamp>,
    watchdogs: BTreeMap<String, Watchdog>,
    changes: (mpsc::Sender<probe::Change>, mpsc::Receiver<probe::Change>),
    tasks: JoinSet<Done>,
    deleting: bool,
    finished: bool,
}

impl Worker {
    /// A worker. `rejected` is the reason and message with which the node refuses the pod.
    pub fn new(
        shared: Arc<Shared>,
        orders: watch::Receiver<Order>,
        poke: Arc<Poke>,
        rejected: Option<(String, String)>,
    ) -> Self {
        let status = orders.borrow().pod.status.clone().unwrap_or_default();
        Self {
            shared,
            orders,
            poke,
            memory: Memory { rejected, ..Memory::default() },
            reported: status.clone(),
            status,
            reporting: false,
            report_retry: None,
            mounted: Mounted::default(),
            messages: BTreeMap::new(),
            backing_off: BTreeMap::new(),
            watchdogs: BTreeMap::new(),
            changes: mpsc::channel(PROBE_QUEUE),
            tasks: JoinSet::new(),
            deleting: false,
            finished: false,
        }
    }

    /// Works until the pod is gone or the agent stops. Stopping leaves the pod as it is.
    pub async fn run(mut self, cancel: CancellationToken) {
        while !self.finished {
            let wake = self.step().await;
            if self.finished {
                return;
            }
            let nap =
                wake.map(|at| Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default());
            let timer = async {
                match nap {
                    Some(nap) => tokio::time::sleep(nap).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = cancel.cancelled() => return,
                changed = self.orders.changed() => if changed.is_err() { return },
                () = self.poke.notify.notified() => {}
                Some(change) = self.changes.1.recv() => self.probed(&change),
                Some(done) = self.tasks.join_next() => match done {
                    Ok(done) => self.done(done),
                    Err(error) => tracing::error!(%error, "pod work failed"),
                },
                () = timer => {}
            }
            while let Ok(change) = self.changes.1.try_recv() {
                self.probed(&change);
            }
            while let Some(Ok(done)) = self.tasks.try_join_next() {
                self.done(done);
            }
        }
    }

    /// Observes, plans and begins what is due. Answers when to do so again at the latest.
    async fn step(&mut self) -> Option<Timestamp> {
        let order = self.orders.borrow_and_update().clone();
        let pod = order.pod;
        if self.poke.stale.swap(false, std::sync::atomic::Ordering::AcqRel) {
            self.refresh();
        }
        let dir = self.shared.message_dir(spec::uid(&pod));
        let runtime = self.shared.runtime.runtime.as_ref();
        let observed = observe::observe(runtime, spec::uid(&pod), &dir, &mut self.messages).await;
        let observed = match observed {
            Ok(observed) => observed,
            Err(error) => {
                tracing::warn!(pod = spec::name(&pod), %error, "the runtime does not answer");
                return Some(Timestamp::now() + SignedDuration::try_from(RETRY).unwrap_or_default());
            }
        };
        let now = Timestamp::now();
        let token_due = self.mounted.refresh_at.and_then(|at| Timestamp::try_from(at).ok());
        if token_due.is_some_and(|at| at <= now) && !self.memory.pod_busy {
            self.refresh();
        }
        if order.gone {
            self.memory.final_status_stored = true;
        }
        let plan = machine::plan(&Input {
            pod: &pod,
            previous: &self.status,
            observed: &observed,
            memory: &self.memory,
            node: &self.shared.view,
            now,
        });
        self.status = plan.status;
        self.watch_over(&pod, &observed);
        self.collect(&observed);
        for action in plan.actions {
            self.begin(&pod, &observed, action, order.gone);
        }
        if !order.gone {
            self.report(&pod);
        }
        [plan.wake_at, self.report_retry, token_due.filter(|at| *at > now)].into_iter().flatten().min()
    }

    /// Renders volumes again and forgets what a missing object may have caused.
    fn refresh(&mut self) {
        self.memory.volumes_retry = None;
        self.mounted.refresh_at = None;
        if !self.memory.cleaned && !self.deleting {
            self.memory.volumes_ready = false;
        }
        let now = Timestamp::now();
        for container in self.memory.containers.values_mut() {
            if let Some(failure) = &mut container.failure
                && failure.reason == "CreateContainerConfigError"
            {
                failure.retry_at = now;
            }
        }
    }

    fn probed(&mut self, change: &probe::Change) {
        let results = self.memory.probes.entry(change.container_id.clone()).or_default();
        match (change.kind, change.healthy) {
            (probe::Kind::Startup, true) => results.started = true,
            (probe::Kind::Readiness, ready) => results.ready = ready,
            (_, false) => results.failed = Some((change.kind.name(), change.grace)),
            (_, true) => {}
        }
    }

    /// Starts probes of containers that run and stops those of containers that do not.
    fn watch_over(&mut self, pod: &Arc<Pod>, observed: &Observed) {
        let running = |c: &&machine::ObservedContainer| c.status.state == ContainerState::Running;
        let ids: Vec<_> = observed.containers.iter().filter(running).map(|c| c.status.id.clone()).collect();
        self.watchdogs.retain(|id, _| ids.contains(id));
        self.memory.probes.retain(|id, _| ids.contains(id));
        let ip = self.pod_ip(pod, observed);
        for container in observed.containers.iter().filter(running) {
            let status = &container.status;
            let name = &status.metadata.name;
            let busy = self.memory.of(name).busy.is_some();
            if busy || self.watchdogs.contains_key(&status.id) {
                continue;
            }
            let Some((_, container)) = spec::container(pod, name) else { continue };
            let (true, Some(ip)) = (probe::has_probes(container), ip) else { continue };
            let adopted = self.was_ready(name, &status.id);
            let results = ProbeResults {
                started: container.startup_probe.is_none() || adopted.0,
                ready: adopted.1,
                failed: None,
            };
            self.memory.probes.entry(status.id.clone()).or_insert(results);
            let subject = probe::Subject {
                pod: pod.clone(),
                container: container.clone(),
                id: status.id.clone(),
                started_at: status.started_at.unwrap_or_else(SystemTime::now),
                ip,
            };
            let runtime = self.shared.runtime.runtime.clone();
            let watchdog = probe::start(subject, runtime, self.shared.events.clone(), self.changes.0.clone());
            self.watchdogs.insert(status.id.clone(), watchdog);
        }
    }

    /// What was reported of this very container before: started and ready. An adopted container keeps them until its
    /// probes say otherwise, so that a restart of the agent takes no pod out of its Services.
    fn was_ready(&self, name: &str, id: &str) -> (bool, bool) {
        let status = &self.reported;
        let mut all = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
        let same = all.find(|s| s.name == name && s.container_id.as_deref().is_some_and(|c| c.ends_with(id)));
        same.map_or((false, false), |s| (s.started == Some(true), s.ready))
    }

    fn pod_ip(&self, pod: &Pod, observed: &Observed) -> Option<IpAddr> {
        if spec::host_network(pod) {
            return self.shared.view.ips.first().copied();
        }
        observed.ready_sandbox().and_then(|s| s.ips.first().copied())
    }

    /// Removes dead containers beyond the newest two of each name (one for `logs --previous`).
    fn collect(&mut self, observed: &Observed) {
        let mut dead: BTreeMap<&str, usize> = BTreeMap::new();
        for container in &observed.containers {
            let status = &container.status;
            if status.state == ContainerState::Running {
                continue;
            }
            let count = dead.entry(&status.metadata.name).or_default();
            *count += 1;
            if *count <= 2 || self.memory.of(&status.metadata.name).busy.is_some() {
                continue;
            }
            let (runtime, id, log) =
                (self.shared.runtime.runtime.clone(), status.id.clone(), status.log_path.clone());
            self.tasks.spawn(async move {
                match runtime.remove_container(&id).await {
                    Ok(()) => crate::logs::rotate::remove_all(&log),
                    Err(error) => tracing::debug!(%error, id, "dead container stays"),
                }
                Done::Housekeeping
            });
        }
    }
}

/// Message of a `Killing` event.
fn killing(name: &str, why: &KillReason) -> String {
    match why {
        KillReason::PodEnds => format!("Stopping container {name}"),
        KillReason::Probe(probe) => format!("Container {name} failed {probe} probe, will be restarted"),
        KillReason::Changed => format!("Container {name} definition changed, will be restarted"),
        KillReason::Sandbox => format!("Container {name} lost its sandbox, will be restarted"),
    }
}

/// Ends what is left of a pod that nobody knows.
pub(crate) async fn apply_clean_up(
    shared: &Shared,
    uid: &str,
    cgroup: &str,
    sandboxes: &[String],
    containers: &[String],
) -> Result<(), String> {
    apply::clean_up(shared, uid, cgroup, sandboxes, containers, true).await
}
