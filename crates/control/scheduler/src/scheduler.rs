//! The loop: decide, and let small tasks carry the decisions out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Binding, Namespace, Node, ObjectReference, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Status};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use xebec_lifecycle::{Readiness, ReadyHandle};
use xebec_reconcile::{Change, Informer, Key, Recorder};

use crate::pod::PodInfo;
use crate::state::{SCHEDULER_NAME, State, Step};

/// Bindings written at the same time.
const IN_FLIGHT: usize = 64;

/// What the scheduler follows. The process runs them; they may be shared with others.
#[derive(Clone)]
pub struct Informers {
    /// Pods.
    pub pods: Informer<Pod>,
    /// Nodes.
    pub nodes: Informer<Node>,
    /// Namespaces, whose labels affinity may select.
    pub namespaces: Informer<Namespace>,
    /// Services, whose pods are spread.
    pub services: Informer<Service>,
    /// ReplicaSets, whose pods are spread.
    pub replica_sets: Informer<ReplicaSet>,
}

impl Informers {
    async fn synced(&self) -> bool {
        self.pods.synced().await
            && self.nodes.synced().await
            && self.namespaces.synced().await
            && self.services.synced().await
            && self.replica_sets.synced().await
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Notify,
    untold: Untold,
}

/// Pods that fit nowhere, and why. Of each pod only the newest word waits to be told, however often it is tried.
#[derive(Default)]
struct Untold(Mutex<HashMap<Key, (Arc<PodInfo>, String)>>);

impl Untold {
    fn pods(&self) -> MutexGuard<'_, HashMap<Key, (Arc<PodInfo>, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the pod was not waiting yet.
    fn put(&self, pod: Arc<PodInfo>, message: String) -> bool {
        self.pods().insert(pod.key.clone(), (pod, message)).is_none()
    }

    fn take(&self, key: &Key) -> Option<(Arc<PodInfo>, String)> {
        self.pods().remove(key)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn follow<K>(self: &Arc<Self>, informer: &Informer<K>, take: fn(&mut State, &Change<'_, K>))
    where
        K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
    {
        let shared = Arc::clone(self);
        informer.on_change(move |change| {
            take(&mut shared.state(), change);
            shared.wake.notify_one();
        });
    }
}

/// Gives every pod a node.
pub struct Scheduler {
    client: Client,
    informers: Informers,
    shared: Arc<Shared>,
    ready: ReadyHandle,
    readiness: Readiness,
}

impl Scheduler {
    /// A scheduler on these informers, which must not be running yet: it adds its handlers to them. `client`
    /// acts as `system:kube-scheduler`.
    pub fn new(client: Client, informers: Informers) -> Self {
        let shared = Arc::<Shared>::default();
        shared.follow(&informers.namespaces, State::namespace);
        shared.follow(&informers.services, State::service);
        shared.follow(&informers.replica_sets, State::replica_set);
        shared.follow(&informers.nodes, State::node);
        shared.follow(&informers.pods, State::pod);
        let (ready, readiness) = Readiness::new();
        Self { client, informers, shared, ready, readiness }
    }

    /// Ready when everything has been listed and pods are being scheduled.
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Schedules until the token is cancelled. The informers must be run beside.
    pub async fn run(self, token: CancellationToken) {
        if token.run_until_cancelled(self.informers.synced()).await != Some(true) {
            return;
        }
        self.ready.ready();
        self.schedule(token).await;
    }

    async fn schedule(&self, token: CancellationToken) {
        let (recorder, writer) = Recorder::new(self.client.clone(), SCHEDULER_NAME, token.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(writer);
        let permits = Arc::new(Semaphore::new(IN_FLIGHT));
        let executor = Executor { client: self.client.clone(), shared: Arc::clone(&self.shared), recorder };
        let (tell, untold) = mpsc::unbounded_channel();
        tasks.spawn(executor.clone().tell_all(untold, token.clone()));
        while let Some(Ok(permit)) = token.run_until_cancelled(permits.clone().acquire_owned()).await {
            while tasks.try_join_next().is_some() {}
            let step = self.shared.state().step(Instant::now());
            match step {
                Step::Bind(pod, node) => drop(tasks.spawn(executor.clone().bind(pod, node, permit))),
                Step::Tell(pod, message) => {
                    let key = pod.key.clone();
                    if self.shared.untold.put(pod, message) {
                        // Whoever tells ends after this loop.
                        drop(tell.send(key));
                    }
                }
                Step::Wait(until) => {
                    drop(permit);
                    if token.run_until_cancelled(self.wait(until)).await.is_none() {
                        break;
                    }
                }
            }
        }
        drop(tell);
        // What has been decided is written before the process ends: no pod is left half bound.
        while tasks.join_next().await.is_some() {}
    }

    async fn wait(&self, until: Option<Instant>) {
        match until {
            Some(at) => drop(tokio::time::timeout_at(at, self.shared.wake.notified()).await),
            None => self.shared.wake.notified().await,
        }
    }
}

/// Writes decisions.
#[derive(Clone)]
struct Executor {
    client: Client,
    shared: Arc<Shared>,
    recorder: Recorder,
}

impl Executor {
    async fn bind(self, pod: Arc<PodInfo>, node: String, _permit: OwnedSemaphorePermit) {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.key.namespace);
        let binding = binding(&pod, &node);
        let bound: Result<Status, _> =
            api.create_subresource("binding", &pod.key.name, &PostParams::default(), &binding).await;
        let Err(error) = bound else {
            let message = format!("Successfully assigned {} to {node}", pod.key);
            if let Some(object) = pod.object() {
                self.recorder.normal(object.as_ref(), "Scheduled", message);
            }
            return;
        };
        let tried_again = self.shared.state().forget(&pod);
        self.shared.wake.notify_one();
        // Gone, or bound by somebody else: the informer will say.
        if matches!(&error, kube::Error::Api(status) if matches!(status.code, 404 | 409)) || !tried_again {
            return tracing::debug!(pod = %pod.key, %node, %error, "pod not bound");
        }
        self.report(&pod, "SchedulerError", format!("binding rejected: {error}")).await;
    }

    /// Tells of pods that fit nowhere, one after the other: however many there are, they take the API server's time
    /// from nobody. Those that have found a node meanwhile, or are gone, are left out.
    async fn tell_all(self, mut untold: mpsc::UnboundedReceiver<Key>, token: CancellationToken) {
        while let Some(Some(key)) = token.run_until_cancelled(untold.recv()).await {
            let Some((pod, message)) = self.shared.untold.take(&key) else { continue };
            let waits = self.shared.state().pending.waits(&pod);
            if waits {
                self.report(&pod, "Unschedulable", message).await;
            }
        }
    }

    async fn report(&self, pod: &PodInfo, reason: &str, message: String) {
        let Some(object) = pod.object() else { return };
        if let Some(patch) = condition_patch(object, reason, &message) {
            let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.key.namespace);
            let params = PatchParams::default();
            if let Err(error) = api.patch_status(&pod.key.name, &params, &Patch::Strategic(patch)).await {
                tracing::debug!(pod = %pod.key, %error, "condition PodScheduled not written");
            }
        }
        self.recorder.warning(object.as_ref(), "FailedScheduling", message);
    }
}

/// The UID makes binding a namesake fail.
fn binding(pod: &PodInfo, node: &str) -> Binding {
    Binding {
        metadata: ObjectMeta {
            name: Some(pod.key.name.clone()),
            namespace: Some(pod.key.namespace.clone()),
            uid: Some(pod.uid().to_owned()).filter(|uid| !uid.is_empty()),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Node".into()),
            name: Some(node.to_owned()),
            ..ObjectReference::default()
        },
    }
}

/// The patch that sets condition `PodScheduled` to false; `None` when it says so already.
fn condition_patch(pod: &Pod, reason: &str, message: &str) -> Option<Value> {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    let known = conditions.into_iter().flatten().find(|c| c.type_ == "PodScheduled" && c.status == "False");
    if known.is_some_and(|c| c.reason.as_deref() == Some(reason) && c.message.as_deref() == Some(message)) {
        return None;
    }
    let since = known.and_then(|c| c.last_transition_time.as_ref()).map_or_else(Timestamp::now, |t| t.0);
    Some(json!({
        "metadata": {"uid": pod.metadata.uid},
        "status": {"conditions": [{
            "type": "PodScheduled",
            "status": "False",
            "reason": reason,
            "message": message,
            "observedGeneration": pod.metadata.generation,
            "lastTransitionTime": xebec_types::time::rfc3339(since),
        }]}
    }))
}

#[cfg(test)]
#[path = "scheduler_tests.rs"]
mod tests;
