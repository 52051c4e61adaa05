//! The watch cache: every object of every resource in memory, fed by one watch of the whole store.
//!
//! One task follows the store and hands each commit to the cache of its resource. Reads wait until the revision they
//! need has been applied, so that what the cache answers is what the store would have answered.

mod entry;
mod flight;
mod resource;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::StreamExt;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use xebec_registry::{ObjectReader, Resource};
use xebec_store::{Event, EventKind, KeyValue, Store, StoreError};
use xebec_types::GroupResource;

pub use entry::{Entry, Filter};
pub use flight::{Boarded, Flight};
pub use resource::{CacheEvent, Next, Observer, ResourceCache};

use crate::codec::SharedTransformer;

/// The root of all keys.
const ROOT: &str = "/registry/";
/// How long a read waits for the cache to catch up with the store.
const CATCH_UP: Duration = Duration::from_secs(5);
/// How many resources may wait to be loaded.
const PENDING_LOADS: usize = 64;

/// Why the cache cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The store failed.
    #[error("watch cache: {0}")]
    Store(#[from] StoreError),
    /// The cache did not reach a revision in time.
    #[error("watch cache: revision {wanted} not reached (now at {applied})")]
    Behind {
        /// The revision that was waited for.
        wanted: u64,
        /// The revision reached.
        applied: u64,
    },
    /// The task that feeds the cache has ended.
    #[error("watch cache: stopped")]
    Stopped,
}

/// All resource caches and how far they have come.
pub struct Cache {
    store: Arc<dyn Store>,
    transformer: SharedTransformer,
    resources: RwLock<Index>,
    /// Objects on their way through the store.
    pub(crate) flight: Flight,
    applied: watch::Sender<u64>,
    loads: mpsc::Sender<Load>,
}

#[derive(Default)]
struct Index {
    by_prefix: HashMap<String, Arc<ResourceCache>>,
    by_name: HashMap<GroupResource, Arc<ResourceCache>>,
}

struct Load {
    cache: Arc<ResourceCache>,
    done: oneshot::Sender<()>,
}

/// The feeding task, before it is started.
pub struct Feed {
    cache: Arc<Cache>,
    loads: mpsc::Receiver<Load>,
}

impl Cache {
    /// A cache of nothing yet, and the task that must be [run](Feed::run).
    pub fn new(store: Arc<dyn Store>, transformer: SharedTransformer) -> (Arc<Self>, Feed) {
        let (sender, loads) = mpsc::channel(PENDING_LOADS);
        let cache = Arc::new(Self {
            store,
            transformer,
            resources: RwLock::default(),
            flight: Flight::default(),
            applied: watch::Sender::new(0),
            loads: sender,
        });
        (cache.clone(), Feed { cache, loads })
    }

    /// The cache of a resource, and whether it is new. Before the feed runs nothing is loaded; afterwards see
    /// [`Cache::load`].
    pub fn add(&self, resource: &Arc<Resource>, observer: Option<Observer>) -> (Arc<ResourceCache>, bool) {
        let mut index = self.resources.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(cache) = index.by_name.get(&resource.group_resource()) {
            cache.redefine(resource.clone());
            return (cache.clone(), false);
        }
        let cache = Arc::new(ResourceCache::new(resource.clone(), observer));
        index.by_prefix.insert(cache.prefix().to_owned(), cache.clone());
        index.by_name.insert(resource.group_resource(), cache.clone());
        (cache, true)
    }

    /// Fills the cache of a resource that was added while the feed runs.
    ///
    /// # Errors
    /// [`CacheError::Stopped`].
    pub async fn load(&self, cache: Arc<ResourceCache>) -> Result<(), CacheError> {
        let (done, loaded) = oneshot::channel();
        self.loads.send(Load { cache, done }).await.map_err(|_| CacheError::Stopped)?;
        loaded.await.map_err(|_| CacheError::Stopped)
    }

    /// Forgets a resource and ends its watches.
    pub fn remove(&self, resource: &GroupResource) {
        let mut index = self.resources.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(cache) = index.by_name.remove(resource) {
            index.by_prefix.remove(cache.prefix());
            cache.close();
        }
    }

    /// The revision up to which everything is applied.
    pub fn revision(&self) -> u64 {
        *self.applied.borrow()
    }

    /// Waits until `revision` is applied.
    ///
    /// # Errors
    /// [`CacheError::Behind`] after some seconds.
    pub async fn wait(&self, revision: u64) -> Result<(), CacheError> {
        if self.revision() >= revision {
            return Ok(());
        }
        let mut applied = self.applied.subscribe();
        let reached = tokio::time::timeout(CATCH_UP, applied.wait_for(|applied| *applied >= revision)).await;
        match reached {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(CacheError::Stopped),
            Err(_) => Err(CacheError::Behind { wanted: revision, applied: self.revision() }),
        }
    }

    /// Waits until everything that was acknowledged before this call is applied.
    ///
    /// # Errors
    /// The store's, and [`CacheError::Behind`].
    pub async fn wait_fresh(&self) -> Result<(), CacheError> {
        let revision = self.store.revision().await?;
        self.wait(revision).await
    }

    fn named(&self, resource: &GroupResource) -> Option<Arc<ResourceCache>> {
        self.resources.read().unwrap_or_else(PoisonError::into_inner).by_name.get(resource).cloned()
    }

    /// Prefixes have one segment or two (`pods/`, `services/specs/`, `<group>/<plural>/`).
    fn of_key(&self, key: &str) -> Option<Arc<ResourceCache>> {
        let index = self.resources.read().unwrap_or_else(PoisonError::into_inner);
        let mut slashes = key.match_indices('/').map(|(at, _)| at + 1).skip(2);
        let one = slashes.next()?;
        index
            .by_prefix
            .get(&key[..one])
            .or_else(|| slashes.next().and_then(|two| index.by_prefix.get(&key[..two])))
            .cloned()
    }

    fn all(&self) -> Vec<Arc<ResourceCache>> {
        let index = self.resources.read().unwrap_or_else(PoisonError::into_inner);
        index.by_prefix.values().cloned().collect()
    }
}

impl ObjectReader for Cache {
    fn get(&self, resource: &GroupResource, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let cache = self.named(resource)?;
        let key = match namespace {
            "" => format!("{}{name}", cache.prefix()),
            _ => format!("{}{namespace}/{name}", cache.prefix()),
        };
        Some(cache.get(&key)?.shared())
    }

    fn list(&self, resource: &GroupResource, namespace: &str) -> Vec<Arc<Value>> {
        let Some(cache) = self.named(resource) else { return Vec::new() };
        cache.scan(namespace, None, |_| true).iter().map(|entry| Arc::new(entry.decode())).collect()
    }
}

impl Feed {
    /// Loads everything and follows the store until `cancel`. Tells `loaded` when reads can be answered.
    ///
    /// # Errors
    /// What ended the watch, if it cannot be taken up again.
    pub async fn run(
        mut self,
        cancel: CancellationToken,
        loaded: impl FnOnce() + Send,
    ) -> Result<(), CacheError> {
        let mut loaded = Some(loaded);
        loop {
            let revision = self.load_all().await?;
            if let Some(loaded) = loaded.take() {
                loaded();
            }
            match self.follow(revision, &cancel).await {
                Err(CacheError::Store(StoreError::Compacted { oldest })) => {
                    tracing::warn!(
                        oldest,
                        "the watch cache fell behind the store and loads everything again"
                    );
                }
                ended => return ended,
            }
        }
    }

    async fn load_all(&self) -> Result<u64, CacheError> {
        let snapshot = self.cache.store.list(ROOT, None, 0).await?;
        let mut by_resource: HashMap<String, Vec<KeyValue>> = HashMap::new();
        for kv in snapshot.items {
            if let Some(cache) = self.cache.of_key(&kv.key) {
                by_resource.entry(cache.prefix().to_owned()).or_default().push(kv);
            }
        }
        for cache in self.cache.all() {
            let items = by_resource.remove(cache.prefix()).unwrap_or_default();
            self.fill(&cache, items, snapshot.revision);
        }
        self.cache.applied.send_replace(snapshot.revision);
        Ok(snapshot.revision)
    }

    fn fill(&self, cache: &ResourceCache, items: Vec<KeyValue>, revision: u64) {
        let opened: Vec<_> =
            items.iter().filter_map(|kv| Some((&kv.key, self.open(&kv.key, kv)?, kv.mod_revision))).collect();
        cache.load(opened.iter().map(|(key, bytes, at)| (*key, &bytes[..], *at)), revision);
    }

    fn open(&self, key: &str, kv: &KeyValue) -> Option<bytes::Bytes> {
        match self.cache.transformer.open(key, &kv.value) {
            Ok(plain) => Some(plain),
            Err(error) => {
                tracing::error!(%key, error, "a stored value cannot be read; it is not served");
                None
            }
        }
    }

    async fn follow(&mut self, from: u64, cancel: &CancellationToken) -> Result<(), CacheError> {
        let mut watch = self.cache.store.watch(ROOT, from).await?;
        loop {
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                Some(load) = self.loads.recv() => {
                    let snapshot = self.cache.store.list(load.cache.prefix(), None, 0).await?;
                    self.fill(&load.cache, snapshot.items, snapshot.revision);
                    // The one who asked may have gone; the cache is filled all the same.
                    let _ = load.done.send(());
                }
                batch = watch.next() => {
                    let batch = batch.ok_or(CacheError::Stopped)??;
                    for event in &batch.events {
                        self.apply(event);
                    }
                    self.cache.applied.send_replace(batch.revision);
                }
            }
        }
    }

    fn apply(&self, event: &Event) {
        let Some(cache) = self.cache.of_key(&event.key) else { return };
        match &event.kind {
            EventKind::Delete => cache.apply(&event.key, event.revision, None),
            EventKind::Put { value } => {
                if let Some(plain) = self.open(&event.key, value) {
                    let known = self.cache.flight.land(&plain);
                    cache.apply(&event.key, event.revision, Some((&plain, known)));
                }
            }
        }
    }
}
