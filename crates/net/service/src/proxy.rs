//! Feeds the tables from the API.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, Stream, StreamExt, stream};
use k8s_openapi::api::{
    core::v1::{Node, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, ResourceExt,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use xebec_netlink::Cidr;

use crate::{
    compile::{self, Compiled},
    dataplane::{Dataplane, DataplaneError},
    elements::{Changes, Elements},
    flows::FlowCheck,
    health::HealthServers,
    input::{Name, NodeInfo, ServiceInfo, SliceInfo},
    rules::RuleConfig,
    tables::{Tables, Touched},
};

/// Time until a failed change is tried again, doubled up to the second value.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// Events taken together before the kernel is programmed.
const MOST_EVENTS: usize = 10_000;

/// What the proxy is told.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// Name of the nftables table (family inet).
    pub table: String,
    /// Prefixes of the cluster's pods: clients in the cluster, to whom external policies do not apply.
    pub pod_cidrs: Vec<Cidr>,
    /// Prefixes of Services: packets to addresses that no Service has are dropped.
    pub service_cidrs: Vec<Cidr>,
    /// Packet mark bit between the choice of an endpoint and masquerading.
    pub masquerade_mark: u32,
}

impl ProxyConfig {
    /// The usual names with the given prefixes.
    pub fn new(pod_cidrs: Vec<Cidr>, service_cidrs: Vec<Cidr>) -> Self {
        Self { table: "xebec".to_owned(), pod_cidrs, service_cidrs, masquerade_mark: 0x4000 }
    }

    /// What the rules depend on.
    pub fn rules(&self) -> RuleConfig {
        RuleConfig {
            table: self.table.clone(),
            mark: self.masquerade_mark,
            pod_cidrs: self.pod_cidrs.clone(),
            service_cidrs: self.service_cidrs.clone(),
        }
    }
}

/// Why the proxy cannot run. Failures of single changes are logged and tried again instead.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The kernel cannot be reached.
    #[error(transparent)]
    Dataplane(#[from] DataplaneError),
    /// A watch ended for good.
    #[error("the watch of {0} ended")]
    WatchEnded(&'static str),
}

/// Serves the Services of a cluster on one node.
#[derive(Debug)]
pub struct Proxy {
    dataplane: Arc<Dataplane>,
    service_cidrs: Vec<Cidr>,
    synced: watch::Sender<bool>,
}

impl Proxy {
    /// A proxy for the calling thread's network namespace. Nothing is changed until [`Proxy::run`].
    pub fn new(config: &ProxyConfig) -> Result<Self, ProxyError> {
        Ok(Self {
            dataplane: Arc::new(Dataplane::open(config.rules())?),
            service_cidrs: config.service_cidrs.clone(),
            synced: watch::Sender::new(false),
        })
    }

    /// Turns true when the kernel holds all Services for the first time.
    pub fn synced(&self) -> watch::Receiver<bool> {
        self.synced.subscribe()
    }

    /// Follows the API until `cancel`, and leaves the kernel as it is then: Services go on without the proxy.
    pub async fn run(
        self,
        client: Client,
        node_name: &str,
        cancel: CancellationToken,
    ) -> Result<(), ProxyError> {
        cancel.run_until_cancelled(self.follow(client, node_name)).await.unwrap_or(Ok(()))
    }

    /// Removes everything of ours from the kernel.
    pub async fn uninstall(config: &ProxyConfig) -> Result<(), ProxyError> {
        Ok(Dataplane::open(config.rules())?.uninstall()?)
    }

    async fn follow(self, client: Client, node_name: &str) -> Result<(), ProxyError> {
        let mut events = pin!(events(client, node_name));
        let mut view =
            View { node: NodeInfo { name: node_name.to_owned(), ..NodeInfo::default() }, ..View::default() };
        let mut worker = Worker {
            dataplane: self.dataplane,
            service_cidrs: self.service_cidrs,
            tables: Tables::default(),
            health: HealthServers::default(),
            adopted: false,
        };
        let (mut retry_at, mut delay) = (None, RETRY.0);
        loop {
            tokio::select! {
                event = events.next() => view.take(event.ok_or(ProxyError::WatchEnded("the API"))?),
                () = until(retry_at) => {}
            }
            // Whatever came while the kernel was busy makes one change.
            for _ in 0..MOST_EVENTS {
                let Some(Some(event)) = events.next().now_or_never() else { break };
                view.take(event);
            }
            // Before all is known, Services of an earlier life would be taken away for a moment.
            if !view.is_complete() {
                continue;
            }
            let due = retry_at.is_some_and(|at| Instant::now() >= at);
            if retry_at.is_some() && !due {
                continue;
            }
            match worker.sync(&mut view).await {
                Ok(()) => {
                    (retry_at, delay) = (None, RETRY.0);
                    self.synced.send_if_modified(|synced| !std::mem::replace(synced, true));
                }
                Err(error) => {
                    tracing::error!(%error, "programming Services failed; trying again in {delay:?}");
                    retry_at = Some(Instant::now() + delay);
                    delay = (delay * 2).min(RETRY.1);
                }
            }
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Programs what changed.
struct Worker {
    dataplane: Arc<Dataplane>,
    service_cidrs: Vec<Cidr>,
    tables: Tables,
    health: HealthServers,
    /// The kernel is known to hold the tables.
    adopted: bool,
}

enum Work {
    All(Elements, FlowCheck),
    Changed(Changes, FlowCheck),
}

impl Worker {
    async fn sync(&mut self, view: &mut View) -> Result<(), DataplaneError> {
        let dirty = std::mem::take(&mut view.dirty);
        if dirty.is_empty() && self.adopted {
            return Ok(());
        }
        let mut touched = Touched::default();
        for name in &dirty {
            let compiled = view.compile(name);
            self.health.set(name, compiled.as_ref().and_then(|compiled| compiled.health)).await;
            self.tables.replace(&mut touched, name, compiled);
        }
        let work = if self.adopted {
            Work::Changed(self.tables.changes(&touched), FlowCheck::of_changed(&self.tables, &touched))
        } else {
            Work::All(self.tables.elements(), FlowCheck::of_all(&self.tables, &self.service_cidrs))
        };
        // After a failure nothing is sure: compare with the kernel the next time.
        self.adopted = false;
        let dataplane = Arc::clone(&self.dataplane);
        match tokio::task::spawn_blocking(move || carry_out(&dataplane, work)).await {
            Ok(done) => done?,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
        self.adopted = true;
        Ok(())
    }
}

fn carry_out(dataplane: &Dataplane, work: Work) -> Result<(), DataplaneError> {
    let check = match work {
        Work::All(elements, check) => {
            let changed = dataplane.adopt(&elements)?;
            tracing::info!(changed, "Services programmed");
            check
        }
        Work::Changed(changes, check) => {
            if !changes.is_empty() {
                dataplane.apply(&changes)?;
            }
            check
        }
    };
    let forgotten = dataplane.check_flows(&check)?;
    if forgotten > 0 {
        tracing::debug!(forgotten, "UDP flows to former endpoints forgotten");
    }
    Ok(())
}

enum Change {
    Service(Box<Event<Service>>),
    Slice(Box<Event<EndpointSlice>>),
    Node(Box<Event<Node>>),
}

fn events(client: Client, node_name: &str) -> impl Stream<Item = Change> + use<> {
    let config = watcher::Config::default();
    let own = config.clone().fields(&format!("metadata.name={node_name}"));
    let slices =
        config.clone().labels("!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name");
    let services = watcher(Api::<Service>::all(client.clone()), config).default_backoff();
    let slices = watcher(Api::<EndpointSlice>::all(client.clone()), slices).default_backoff();
    let nodes = watcher(Api::<Node>::all(client), own).default_backoff();
    let mut all = stream::SelectAll::new();
    all.push(
        services
            .filter_map(async |event| logged("services", event).map(|event| Change::Service(Box::new(event))))
            .boxed(),
    );
    all.push(
        slices
            .filter_map(async |event| {
                logged("endpointslices", event).map(|event| Change::Slice(Box::new(event)))
            })
            .boxed(),
    );
    all.push(
        nodes
            .filter_map(async |event| logged("nodes", event).map(|event| Change::Node(Box::new(event))))
            .boxed(),
    );
    all
}

fn logged<K>(kind: &str, event: Result<Event<K>, watcher::Error>) -> Option<Event<K>> {
    event.inspect_err(|error| tracing::warn!(kind, %error, "watch interrupted; it goes on by itself")).ok()
}

/// What the API says.
#[derive(Debug, Default)]
struct View {
    services: Reflected<ServiceInfo>,
    slices: Reflected<SliceInfo>,
    slices_of: BTreeMap<Name, BTreeSet<Name>>,
    node: NodeInfo,
    node_known: bool,
    dirty: BTreeSet<Name>,
}

impl View {
    fn is_complete(&self) -> bool {
        self.services.complete && self.slices.complete && self.node_known
    }

    fn take(&mut self, change: Change) {
        match change {
            Change::Service(event) => {
                let changed = self.services.take(*event, ServiceInfo::parse);
                self.dirty.extend(changed.into_iter().map(|(name, _)| name));
            }
            Change::Slice(event) => {
                for (name, old) in self.slices.take(*event, SliceInfo::parse) {
                    self.slice_changed(&name, old);
                }
            }
            Change::Node(event) => self.take_node(*event),
        }
    }

    fn slice_changed(&mut self, name: &Name, old: Option<SliceInfo>) {
        let new = self.slices.items.get(name).map(|slice| (name.0.clone(), slice.service.clone()));
        if let Some(old) = old.map(|slice| (name.0.clone(), slice.service)) {
            if let Some(of) = self.slices_of.get_mut(&old) {
                of.remove(name);
                if of.is_empty() {
                    self.slices_of.remove(&old);
                }
            }
            self.dirty.insert(old);
        }
        if let Some(new) = new {
            self.slices_of.entry(new.clone()).or_default().insert(name.clone());
            self.dirty.insert(new);
        }
    }

    fn take_node(&mut self, event: Event<Node>) {
        let node = match event {
            Event::Apply(node) | Event::InitApply(node) => NodeInfo::parse(&node),
            Event::Delete(_) => NodeInfo { name: self.node.name.clone(), ..NodeInfo::default() },
            Event::Init => return,
            Event::InitDone => {
                self.node_known = true;
                return;
            }
        };
        if node != self.node {
            self.node = node;
            self.dirty.extend(self.services.items.keys().cloned());
        }
    }

    fn compile(&self, name: &Name) -> Option<Compiled> {
        let service = self.services.items.get(name)?;
        let names = self.slices_of.get(name).into_iter().flatten();
        let slices: Vec<&SliceInfo> = names.filter_map(|name| self.slices.items.get(name)).collect();
        Some(compile::compile(service, &slices, &self.node))
    }
}

/// The parsed objects of one kind.
#[derive(Debug)]
struct Reflected<T> {
    items: BTreeMap<Name, T>,
    /// Names seen so far while the list is read anew.
    listed: BTreeSet<Name>,
    complete: bool,
}

impl<T> Default for Reflected<T> {
    fn default() -> Self {
        Self { items: BTreeMap::new(), listed: BTreeSet::new(), complete: false }
    }
}

impl<T: PartialEq> Reflected<T> {
    /// Takes an event in and returns what changed, with the former values.
    fn take<K: ResourceExt>(
        &mut self,
        event: Event<K>,
        parse: fn(&K) -> Option<T>,
    ) -> Vec<(Name, Option<T>)> {
        let name = |object: &K| (object.namespace().unwrap_or_default(), object.name_any());
        match event {
            Event::Init => {
                self.listed.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                self.listed.insert(name(&object));
                self.set(name(&object), parse(&object))
            }
            Event::InitDone => {
                self.complete = true;
                let listed = std::mem::take(&mut self.listed);
                let gone: Vec<Name> =
                    self.items.keys().filter(|name| !listed.contains(*name)).cloned().collect();
                gone.into_iter().flat_map(|name| self.set(name, None)).collect()
            }
            Event::Apply(object) => self.set(name(&object), parse(&object)),
            Event::Delete(object) => self.set(name(&object), None),
        }
    }

    fn set(&mut self, name: Name, value: Option<T>) -> Vec<(Name, Option<T>)> {
        if self.items.get(&name) == value.as_ref() {
            return Vec::new();
        }
        let old = match value {
            Some(value) => self.items.insert(name.clone(), value),
            None => self.items.remove(&name),
        };
        vec![(name, old)]
    }
}
