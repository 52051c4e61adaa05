//! The metadata watches that feed the graph.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt, pin_mut};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject};
use kube::core::PartialObjectMeta;
use kube::discovery::{ApiCapabilities, Discovery, Scope, verbs};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};
use xebec_reconcile::{Informer, Queue};

use super::graph::{Graph, Item};

/// How long to wait before asking discovery again after it failed.
const RETRY: Duration = Duration::from_secs(2);

/// Keeps one metadata watch per resource.
pub struct Monitors {
    client: Client,
    graph: Arc<Mutex<Graph>>,
    queue: Queue<String>,
}

impl Monitors {
    pub(super) fn new(client: Client, graph: Arc<Mutex<Graph>>, queue: Queue<String>) -> Self {
        Self { client, graph, queue }
    }

    /// Watches everything until the token is cancelled.
    pub async fn run(self, token: CancellationToken) {
        let changed = Arc::new(Notify::new());
        let definitions: Informer<CustomResourceDefinition> = Informer::new();
        let notify = changed.clone();
        definitions.on_change(move |_| notify.notify_one());
        let follow =
            definitions.run(Api::all(self.client.clone()), watcher::Config::default(), token.clone());
        tokio::spawn(follow);
        let mut watched: HashMap<ApiResource, DropGuard> = HashMap::new();
        loop {
            let wait = match self.resources().await {
                Ok(resources) => {
                    self.follow(resources, &mut watched, &token);
                    None
                }
                Err(error) => {
                    tracing::debug!(%error, "discovery failed, trying again");
                    Some(RETRY)
                }
            };
            let pause = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => changed.notified().await,
                }
            };
            if token.run_until_cancelled(pause).await.is_none() {
                return;
            }
        }
    }

    async fn resources(&self) -> Result<Vec<(ApiResource, ApiCapabilities)>, kube::Error> {
        let discovery = Discovery::new(self.client.clone()).run().await?;
        let all = discovery.groups().flat_map(kube::discovery::ApiGroup::recommended_resources);
        Ok(all.filter(|(resource, capabilities)| is_collected(resource, capabilities)).collect())
    }

    fn follow(
        &self,
        resources: Vec<(ApiResource, ApiCapabilities)>,
        watched: &mut HashMap<ApiResource, DropGuard>,
        token: &CancellationToken,
    ) {
        let here: HashSet<ApiResource> = resources.iter().map(|(resource, _)| resource.clone()).collect();
        watched.retain(|resource, _| here.contains(resource));
        for (resource, capabilities) in resources {
            let mut graph = self.graph.lock().unwrap_or_else(PoisonError::into_inner);
            graph.add_resource(&resource, capabilities.scope == Scope::Namespaced);
            drop(graph);
            watched.entry(resource).or_insert_with_key(|resource| {
                let (graph, queue) = (self.graph.clone(), self.queue.clone());
                let child = token.child_token();
                tokio::spawn(watch(self.client.clone(), resource.clone(), graph, queue, child.clone()));
                child.drop_guard()
            });
        }
    }
}

/// Events are many, short-lived and own nothing (upstream ignores them, too).
fn is_collected(resource: &ApiResource, capabilities: &ApiCapabilities) -> bool {
    resource.kind != "Event"
        && [verbs::LIST, verbs::WATCH, verbs::DELETE].iter().all(|verb| capabilities.supports_operation(verb))
}

async fn watch(
    client: Client,
    resource: ApiResource,
    graph: Arc<Mutex<Graph>>,
    queue: Queue<String>,
    token: CancellationToken,
) {
    let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(client, &resource);
    let events = watcher(api, watcher::Config::default()).default_backoff();
    pin_mut!(events);
    let mut listed: HashSet<String> = HashSet::new();
    while let Some(Some(event)) = token.run_until_cancelled(events.next()).await {
        let mut graph = graph.lock().unwrap_or_else(PoisonError::into_inner);
        let item = |object: &PartialObjectMeta<DynamicObject>| Item::new(&resource, &object.metadata);
        let look = match event {
            Ok(watcher::Event::Init) => {
                listed.clear();
                Vec::new()
            }
            Ok(watcher::Event::InitApply(object)) => {
                listed.extend(object.metadata.uid.clone());
                graph.upsert(item(&object))
            }
            Ok(watcher::Event::InitDone) => {
                let gone: Vec<String> = graph.uids_of(&resource).difference(&listed).cloned().collect();
                listed.clear();
                gone.iter().flat_map(|uid| graph.remove(uid)).collect()
            }
            Ok(watcher::Event::Apply(object)) => graph.upsert(item(&object)),
            Ok(watcher::Event::Delete(object)) => graph.remove(&object.metadata.uid.unwrap_or_default()),
            Err(error) => {
                tracing::debug!(kind = resource.kind, %error, "watch interrupted, trying again");
                Vec::new()
            }
        };
        drop(graph);
        look.into_iter().for_each(|uid| queue.add(uid));
    }
    let mut graph = graph.lock().unwrap_or_else(PoisonError::into_inner);
    let gone = graph.uids_of(&resource);
    let look: Vec<String> = gone.iter().flat_map(|uid| graph.remove(uid)).collect();
    drop(graph);
    look.into_iter().for_each(|uid| queue.add(uid));
}
