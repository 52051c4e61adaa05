//! Objects of one kind, kept in memory by one watch and shared by everyone in the process.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use futures::{StreamExt, pin_mut};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use xebec_lifecycle::{Readiness, ReadyHandle};

use crate::Key;

/// What happened to an object.
#[derive(Debug)]
pub enum Change<'a, K> {
    /// It is new, or was there when the informer started.
    Added(&'a Arc<K>),
    /// It changed from the first to the second.
    Updated(&'a Arc<K>, &'a Arc<K>),
    /// It is gone; this is how it was last seen.
    Deleted(&'a Arc<K>),
}

impl<K> Change<'_, K> {
    /// The object as it is, or as it was last seen.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Self::Added(object) | Self::Updated(_, object) | Self::Deleted(object) => object,
        }
    }

    /// Old and new form: what selectors of both must be asked about.
    pub fn sides(&self) -> impl Iterator<Item = &Arc<K>> {
        let (one, two) = match self {
            Self::Added(object) | Self::Deleted(object) => (*object, None),
            Self::Updated(old, new) => (*old, Some(*new)),
        };
        std::iter::once(one).chain(two)
    }
}

type Handler<K> = Box<dyn Fn(&Change<'_, K>) + Send + Sync>;

/// A handle to the objects of a kind. Cloning is cheap.
pub struct Informer<K>(Arc<Inner<K>>);

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

struct Inner<K> {
    objects: RwLock<Objects<K>>,
    handlers: RwLock<Vec<Handler<K>>>,
    synced: Readiness,
    ready: Mutex<Option<ReadyHandle>>,
}

struct Objects<K> {
    by_key: HashMap<Key, Arc<K>>,
    /// The highest revision that the watch has told of. Whatever is not newer has been told, in order.
    seen: u64,
}

impl<K> Default for Informer<K> {
    fn default() -> Self {
        let (ready, synced) = Readiness::new();
        Self(Arc::new(Inner {
            objects: RwLock::new(Objects { by_key: HashMap::new(), seen: 0 }),
            handlers: RwLock::default(),
            synced,
            ready: Mutex::new(Some(ready)),
        }))
    }
}

impl<K> Informer<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    /// An empty informer. Handlers should be added before [`Informer::run`] is started.
    pub fn new() -> Self {
        Self::default()
    }

    /// Calls `handler` for every change, in order and on the watch's task: it should only put keys into queues.
    pub fn on_change(&self, handler: impl Fn(&Change<'_, K>) + Send + Sync + 'static) {
        self.0.handlers.write().unwrap_or_else(PoisonError::into_inner).push(Box::new(handler));
    }

    /// One object.
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.read().by_key.get(key).cloned()
    }

    /// All objects that `wanted` accepts.
    pub fn filter(&self, wanted: impl Fn(&K) -> bool) -> Vec<Arc<K>> {
        self.read().by_key.values().filter(|object| wanted(object)).cloned().collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, Objects<K>> {
        self.0.objects.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Objects<K>> {
        self.0.objects.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// All objects.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.filter(|_| true)
    }

    /// Waits until the first list is in memory. `false`: the informer has ended.
    pub async fn synced(&self) -> bool {
        self.0.synced.clone().wait().await
    }

    /// Follows the API until the token is cancelled.
    pub async fn run(self, api: Api<K>, config: watcher::Config, token: CancellationToken) {
        let events = watcher(api, config).default_backoff();
        pin_mut!(events);
        let mut listed: Option<HashMap<Key, Arc<K>>> = None;
        while let Some(Some(event)) = token.run_until_cancelled(events.next()).await {
            match event {
                Ok(watcher::Event::Init) => listed = Some(HashMap::new()),
                Ok(watcher::Event::InitApply(object)) => {
                    listed.get_or_insert_default().insert(Key::of(&object), Arc::new(object));
                }
                Ok(watcher::Event::InitDone) => self.replace(listed.take().unwrap_or_default()),
                Ok(watcher::Event::Apply(object)) => self.apply(Arc::new(object)),
                Ok(watcher::Event::Delete(object)) => self.delete(&Key::of(&object), Some(object)),
                Err(error) => {
                    tracing::debug!(kind = std::any::type_name::<K>(), %error, "watch interrupted, trying again");
                }
            }
        }
    }

    /// Takes note of what an own write has answered, before the watch tells. An answer that the watch has overtaken
    /// says nothing new: the object may have changed or gone since.
    pub fn written(&self, object: Arc<K>) {
        let old = {
            let mut objects = self.write();
            if revision(object.as_ref()) <= objects.seen {
                return;
            }
            objects.by_key.insert(Key::of(object.as_ref()), object.clone())
        };
        self.changed(old, &object);
    }

    /// Applies one object as the watch tells it; public for tests.
    pub fn apply(&self, object: Arc<K>) {
        let (key, revision) = (Key::of(object.as_ref()), revision(object.as_ref()));
        let old = {
            let mut objects = self.write();
            objects.seen = objects.seen.max(revision);
            if objects.by_key.get(&key).is_some_and(|known| self::revision(known.as_ref()) > revision) {
                return;
            }
            objects.by_key.insert(key, object.clone())
        };
        self.changed(old, &object);
    }

    fn changed(&self, old: Option<Arc<K>>, object: &Arc<K>) {
        match old {
            Some(old)
                if revision(old.as_ref()) == revision(object.as_ref()) && revision(object.as_ref()) > 0 => {}
            Some(old) => self.tell(&Change::Updated(&old, object)),
            None => self.tell(&Change::Added(object)),
        }
    }

    fn delete(&self, key: &Key, last: Option<K>) {
        let old = {
            let mut objects = self.write();
            objects.seen = objects.seen.max(last.as_ref().map_or(0, revision));
            objects.by_key.remove(key)
        };
        if let Some(gone) = last.map(Arc::new).or(old) {
            self.tell(&Change::Deleted(&gone));
        }
    }

    fn replace(&self, listed: HashMap<Key, Arc<K>>) {
        let gone: Vec<Key> =
            { self.read().by_key.keys().filter(|key| !listed.contains_key(key)).cloned().collect() };
        for key in gone {
            self.delete(&key, None);
        }
        for object in listed.into_values() {
            self.apply(object);
        }
        if let Some(ready) = self.0.ready.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            ready.ready();
        }
    }

    fn tell(&self, change: &Change<'_, K>) {
        for handler in self.0.handlers.read().unwrap_or_else(PoisonError::into_inner).iter() {
            handler(change);
        }
    }
}

/// An object's revision. Those of one kind are ordered (KEP-5504); an object without one is older than all.
fn revision<K: Resource>(object: &K) -> u64 {
    object.meta().resource_version.as_ref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn config_map(name: &str, version: &str) -> ConfigMap {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": name, "namespace": "default", "resourceVersion": version}
        }))
        .unwrap()
    }

    fn watched() -> (Informer<ConfigMap>, Arc<Mutex<Vec<String>>>) {
        let informer = Informer::<ConfigMap>::new();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        informer.on_change(move |change| {
            let word = match change {
                Change::Added(_) => "added",
                Change::Updated(..) => "updated",
                Change::Deleted(_) => "deleted",
            };
            log.lock().unwrap().push(format!("{word} {}", Key::of(change.object().as_ref())));
        });
        (informer, seen)
    }

    #[test]
    fn changes_are_told_once() {
        let (informer, seen) = watched();
        informer.apply(Arc::new(config_map("a", "1")));
        informer.apply(Arc::new(config_map("a", "1")));
        informer.apply(Arc::new(config_map("a", "2")));
        assert_eq!(*seen.lock().unwrap(), ["added default/a", "updated default/a"]);
    }

    #[test]
    fn an_answer_that_the_watch_has_overtaken_is_old() {
        let (informer, seen) = watched();
        informer.written(Arc::new(config_map("a", "5")));
        informer.apply(Arc::new(config_map("a", "4")));
        assert_eq!(revision(informer.list()[0].as_ref()), 5, "the watch lags behind our own write");
        informer.apply(Arc::new(config_map("a", "7")));
        informer.written(Arc::new(config_map("a", "6")));
        assert_eq!(revision(informer.list()[0].as_ref()), 7, "the answer came late");
        informer.delete(&Key::new("default", "a"), Some(config_map("a", "9")));
        informer.written(Arc::new(config_map("a", "8")));
        assert!(informer.list().is_empty(), "it is gone already");
        assert_eq!(*seen.lock().unwrap(), ["added default/a", "updated default/a", "deleted default/a"]);
    }

    #[tokio::test]
    async fn a_new_list_deletes_what_it_lacks() {
        let (informer, seen) = watched();
        let listed = |names: &[&str]| {
            names.iter().map(|n| (Key::new("default", *n), Arc::new(config_map(n, "1")))).collect()
        };
        informer.replace(listed(&["a"]));
        informer.replace(listed(&["b"]));
        assert!(informer.synced().await);
        assert_eq!(*seen.lock().unwrap(), ["added default/a", "deleted default/a", "added default/b"]);
        assert_eq!(informer.list().len(), 1);
    }
}
