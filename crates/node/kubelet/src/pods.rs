//! The pods of the node: one watch, one task per pod, and whatever the runtime still holds of pods that are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use kube::runtime::{WatchStreamExt as _, watcher};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use xebec_cri::{ContainerEventKind, ContainerFilter, SandboxFilter};

use crate::labels;
use crate::node::admit;
use crate::sources::pod_references;
use crate::spec::{self, Qos};
use crate::worker::{Order, Poke, Shared, Worker, apply_clean_up};

/// Wait before a lost stream of runtime events is opened again.
const RECONNECT: Duration = Duration::from_secs(1);

/// All pods of the node by UID.
pub type PodTable = BTreeMap<String, Arc<Pod>>;

/// The table of pods and its readers' end.
pub fn table() -> (watch::Sender<Arc<PodTable>>, watch::Receiver<Arc<PodTable>>) {
    watch::channel(Arc::new(PodTable::new()))
}

struct Handle {
    orders: watch::Sender<Order>,
    poke: Arc<Poke>,
}

/// The manager of all pods.
pub struct Pods {
    shared: Arc<Shared>,
    table: watch::Sender<Arc<PodTable>>,
    known: watch::Sender<bool>,
    handles: BTreeMap<String, Handle>,
    workers: JoinSet<String>,
    /// UIDs seen during a list that has not ended yet.
    listing: BTreeSet<String>,
    cancel: CancellationToken,
}

impl Pods {
    /// A manager that has seen nothing. `known` becomes true after the first full list.
    pub fn new(shared: Arc<Shared>, table: watch::Sender<Arc<PodTable>>, known: watch::Sender<bool>) -> Self {
        Self {
            shared,
            table,
            known,
            handles: BTreeMap::new(),
            workers: JoinSet::new(),
            listing: BTreeSet::new(),
            cancel: CancellationToken::new(),
        }
    }

    /// Manages until cancelled.
    pub async fn run(mut self, cancel: CancellationToken) {
        self.cancel = cancel.clone();
        let api: Api<Pod> = Api::all(self.shared.client.clone());
        let selector = format!("spec.nodeName={}", self.shared.config.node_name);
        let config = watcher::Config::default().fields(&selector);
        let mut stream = watcher(api, config).default_backoff().boxed();
        let mut objects = self.shared.objects.changes();
        let mut runtime = self.subscribe().await;
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                event = stream.next() => match event {
                    Some(Ok(event)) => self.event(event).await,
                    Some(Err(error)) => tracing::debug!(%error, "watching pods"),
                    None => break,
                },
                event = runtime.next() => match event {
                    Some(event) => {
                        if event.kind == ContainerEventKind::Stopped {
                            self.shared.died.notify_one();
                        }
                        if let Some(handle) = self.handles.get(&event.pod_uid) {
                            handle.poke.changed();
                        }
                    }
                    None => runtime = self.subscribe().await,
                },
                changed = objects.recv() => self.object_changed(changed.ok()),
                Some(ended) = self.workers.join_next() => self.ended(ended),
            }
        }
        // Workers end with the same token; whatever they were waiting for, the pods stay as they are.
        while self.workers.join_next().await.is_some() {}
    }

    /// Opens the stream of runtime events, and wakes every pod for what was missed before.
    async fn subscribe(&self) -> futures::stream::BoxStream<'static, xebec_cri::ContainerEvent> {
        loop {
            match self.shared.runtime.runtime.events().await {
                Ok(stream) => {
                    for handle in self.handles.values() {
                        handle.poke.changed();
                    }
                    return stream;
                }
                Err(error) => tracing::warn!(%error, "runtime events"),
            }
            tokio::select! {
                () = self.cancel.cancelled() => return futures::stream::pending().boxed(),
                () = tokio::time::sleep(RECONNECT) => {}
            }
        }
    }

    async fn event(&mut self, event: watcher::Event<Pod>) {
        match event {
            watcher::Event::Init => self.listing.clear(),
            watcher::Event::InitApply(pod) => {
                self.listing.insert(spec::uid(&pod).to_owned());
                self.apply(Arc::new(pod));
            }
            watcher::Event::InitDone => {
                let listed = std::mem::take(&mut self.listing);
                let missing: Vec<_> =
                    self.handles.keys().filter(|uid| !listed.contains(*uid)).cloned().collect();
                for uid in missing {
                    self.forget(&uid);
                }
                if !*self.known.borrow() {
                    self.reap_orphans().await;
                    self.known.send_replace(true);
                }
            }
            watcher::Event::Apply(pod) => self.apply(Arc::new(pod)),
            watcher::Event::Delete(pod) => self.forget(spec::uid(&pod)),
        }
    }

    fn apply(&mut self, pod: Arc<Pod>) {
        let uid = spec::uid(&pod).to_owned();
        let mut table = PodTable::clone(&self.table.borrow());
        let new = !self.handles.contains_key(&uid);
        let rejected = if new { admit::admit(&pod, &table, &self.shared) } else { None };
        table.insert(uid.clone(), pod.clone());
        self.table.send_replace(Arc::new(table));
        if let Some(handle) = self.handles.get(&uid) {
            handle.orders.send_replace(Order { pod, gone: false });
            return;
        }
        let (orders, receiver) = watch::channel(Order { pod, gone: false });
        let poke = Arc::new(Poke::default());
        let worker = Worker::new(self.shared.clone(), receiver, poke.clone(), rejected);
        let (cancel, id) = (self.cancel.child_token(), uid.clone());
        self.workers.spawn(async move {
            worker.run(cancel).await;
            id
        });
        self.handles.insert(uid, Handle { orders, poke });
    }

    /// The API has forgotten the pod: its worker ends it.
    fn forget(&mut self, uid: &str) {
        let Some(handle) = self.handles.get(uid) else { return };
        handle.orders.send_modify(|order| {
            let mut pod = Pod::clone(&order.pod);
            let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::now());
            pod.metadata.deletion_timestamp.get_or_insert(now);
            order.pod = Arc::new(pod);
            order.gone = true;
        });
    }

    fn ended(&mut self, ended: Result<String, tokio::task::JoinError>) {
        let uid = match ended {
            Ok(uid) => uid,
            Err(error) => {
                tracing::error!(%error, "a pod's task failed");
                return;
            }
        };
        self.handles.remove(&uid);
        let mut table = PodTable::clone(&self.table.borrow());
        table.remove(&uid);
        let pods: Vec<_> = table.values().cloned().collect();
        self.table.send_replace(Arc::new(table));
        self.shared.objects.retain(&pods);
    }

    /// Wakes the pods that refer to a changed object; after lost messages, all of them.
    fn object_changed(&self, key: Option<(String, String)>) {
        let table = self.table.borrow();
        for (uid, handle) in &self.handles {
            let Some(pod) = table.get(uid) else { continue };
            let refers = key.as_ref().is_none_or(|(namespace, name)| {
                let (maps, secrets) = pod_references(pod);
                spec::namespace(pod) == namespace && (maps.contains(name) || secrets.contains(name))
            });
            if refers {
                handle.poke.stale();
            }
        }
    }

    /// Ends what the runtime holds of pods that the API does not know. Called once, after the first full list.
    async fn reap_orphans(&mut self) {
        let runtime = &self.shared.runtime.runtime;
        let (Ok(sandboxes), Ok(containers)) = (
            runtime.list_pod_sandboxes(&SandboxFilter::default()).await,
            runtime.list_containers(&ContainerFilter::default()).await,
        ) else {
            return;
        };
        let mut orphans: BTreeMap<String, (Vec<String>, Vec<String>)> = BTreeMap::new();
        for sandbox in sandboxes {
            orphans.entry(sandbox.metadata.uid).or_default().0.push(sandbox.id);
        }
        for container in containers {
            let uid = container.labels.get(labels::POD_UID).cloned().unwrap_or_default();
            orphans.entry(uid).or_default().1.push(container.id);
        }
        for uid in self.shared.volumes.known_pods() {
            orphans.entry(uid).or_default();
        }
        orphans.retain(|uid, _| !uid.is_empty() && !self.handles.contains_key(uid));
        for (uid, (sandboxes, containers)) in orphans {
            let shared = self.shared.clone();
            self.workers.spawn(async move {
                for qos in [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort] {
                    let cgroup = qos.cgroup(&uid);
                    let result = apply_clean_up(&shared, &uid, &cgroup, &sandboxes, &containers).await;
                    if let Err(message) = result {
                        tracing::warn!(uid, message, "orphan stays");
                    }
                }
                uid
            });
        }
    }
}
