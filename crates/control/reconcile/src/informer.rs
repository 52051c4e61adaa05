//! Objects of one kind, kept in memory by one watch and shared by everyone in the process.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use futures::{StreamExt, pin_mut};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use xebec_lifecycle::{Readiness, ReadyHandle};

use crate::objects::Objects;
use crate::{Index, IndexBy, Key};

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
    known: RwLock<Known<K>>,
    trim: fn(&mut K),
    /// Locked from before a change is made until all have been told of it: what they are told has the order of the
    /// changes, and who comes late misses none.
    handlers: Mutex<Vec<Handler<K>>>,
    synced: Readiness,
    ready: Mutex<Option<ReadyHandle>>,
}

struct Known<K> {
    objects: Objects<K>,
    /// The highest revision that the watch has told of. Whatever is not newer has been told, in order.
    seen: u64,
}

impl<K> Default for Informer<K> {
    fn default() -> Self {
        Self::with_trim(|_| {})
    }
}

impl<K> Informer<K> {
    fn with_trim(trim: fn(&mut K)) -> Self {
        let (ready, synced) = Readiness::new();
        Self(Arc::new(Inner {
            known: RwLock::new(Known { objects: Objects::default(), seen: 0 }),
            trim,
            handlers: Mutex::default(),
            synced,
            ready: Mutex::new(Some(ready)),
        }))
    }
}

impl<K> Informer<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    /// An empty informer.
    pub fn new() -> Self {
        Self::default()
    }

    /// An informer that keeps objects without what `trim` takes from them: what no reader looks at need not stay in
    /// memory. An object that is written back whole must keep everything.
    pub fn trimmed(trim: fn(&mut K)) -> Self {
        Self::with_trim(trim)
    }

    /// An index that finds objects by what `by` says of them.
    pub fn index(&self, by: IndexBy<K>) -> Index<K> {
        Index::new(self.clone(), self.write().objects.add_index(by))
    }

    /// Calls `handler` for every object that is there already, and then for every change, in order and on the task
    /// that brings it: it should only put keys into queues, and must not write to this informer.
    pub fn on_change(&self, handler: impl Fn(&Change<'_, K>) + Send + Sync + 'static) {
        let mut handlers = self.handlers();
        for object in self.list() {
            handler(&Change::Added(&object));
        }
        handlers.push(Box::new(handler));
    }

    fn handlers(&self) -> MutexGuard<'_, Vec<Handler<K>>> {
        self.0.handlers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One object.
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.read().objects.get(key).cloned()
    }

    /// All objects that `wanted` accepts. It looks at every one: see [`Informer::in_namespace`] and
    /// [`Informer::index`] first.
    pub fn filter(&self, wanted: impl Fn(&K) -> bool) -> Vec<Arc<K>> {
        self.read().objects.iter().filter(|object| wanted(object)).cloned().collect()
    }

    /// All objects.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.filter(|_| true)
    }

    /// The objects of a namespace that `wanted` accepts.
    pub fn in_namespace(&self, namespace: &str, wanted: impl Fn(&K) -> bool) -> Vec<Arc<K>> {
        let known = self.read();
        known.objects.in_namespace(namespace).filter(|object| wanted(object)).cloned().collect()
    }

    pub(crate) fn indexed(&self, index: usize, value: &str) -> Vec<Arc<K>> {
        self.read().objects.indexed(index, value).cloned().collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, Known<K>> {
        self.0.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known<K>> {
        self.0.known.write().unwrap_or_else(PoisonError::into_inner)
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
                    listed.get_or_insert_default().insert(Key::of(&object), self.kept(object));
                }
                Ok(watcher::Event::InitDone) => self.replace(listed.take().unwrap_or_default()),
                Ok(watcher::Event::Apply(object)) => self.apply(self.kept(object)),
                Ok(watcher::Event::Delete(object)) => self.delete(&Key::of(&object), Some(object)),
                Err(error) => {
                    tracing::debug!(kind = std::any::type_name::<K>(), %error, "watch interrupted, trying again");
                }
            }
        }
    }

    /// The form in which an object stays in memory. Nobody reads `managedFields`, and a write without them leaves
    /// them as they are.
    fn kept(&self, mut object: K) -> Arc<K> {
        object.meta_mut().managed_fields = None;
        (self.0.trim)(&mut object);
        Arc::new(object)
    }

    /// Takes note of what an own write has answered, before the watch tells. An answer that the watch has overtaken
    /// says nothing new: the object may have changed or gone since.
    pub fn written(&self, object: K) {
        let object = self.kept(object);
        let handlers = self.handlers();
        let old = {
            let mut known = self.write();
            if revision(object.as_ref()) <= known.seen {
                return;
            }
            known.objects.insert(Key::of(object.as_ref()), object.clone())
        };
        changed(&handlers, old, &object);
    }

    /// Applies one object as the watch tells it; public for tests.
    pub fn apply(&self, object: Arc<K>) {
        let (key, revision) = (Key::of(object.as_ref()), revision(object.as_ref()));
        let handlers = self.handlers();
        let old = {
            let mut known = self.write();
            known.seen = known.seen.max(revision);
            if known.objects.get(&key).is_some_and(|old| self::revision(old.as_ref()) > revision) {
                return;
            }
            known.objects.insert(key, object.clone())
        };
        changed(&handlers, old, &object);
    }

    /// Takes an object out as the watch tells it, with its `last` form if that is known; public for tests.
    pub fn delete(&self, key: &Key, last: Option<K>) {
        let handlers = self.handlers();
        let old = {
            let mut known = self.write();
            known.seen = known.seen.max(last.as_ref().map_or(0, revision));
            known.objects.remove(key)
        };
        if let Some(gone) = last.map(Arc::new).or(old) {
            tell(&handlers, &Change::Deleted(&gone));
        }
    }

    fn replace(&self, listed: HashMap<Key, Arc<K>>) {
        let gone: Vec<Key> = { self.read().objects.keys().filter(|key| !listed.contains_key(key)).collect() };
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
}

fn changed<K: Resource>(handlers: &[Handler<K>], old: Option<Arc<K>>, object: &Arc<K>) {
    match old {
        Some(old) if revision(old.as_ref()) == revision(object.as_ref()) && revision(object.as_ref()) > 0 => {
        }
        Some(old) => tell(handlers, &Change::Updated(&old, object)),
        None => tell(handlers, &Change::Added(object)),
    }
}

fn tell<K>(handlers: &[Handler<K>], change: &Change<'_, K>) {
    for handler in handlers {
        handler(change);
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
    fn who_comes_late_is_told_what_is_there() {
        let (informer, _) = watched();
        informer.apply(Arc::new(config_map("a", "1")));
        let late = Arc::new(Mutex::new(Vec::new()));
        let log = late.clone();
        informer.on_change(move |change| {
            let added = matches!(change, Change::Added(_));
            log.lock().unwrap().push((added, Key::of(change.object().as_ref()).to_string()));
        });
        informer.apply(Arc::new(config_map("b", "2")));
        assert_eq!(*late.lock().unwrap(), [(true, "default/a".to_owned()), (true, "default/b".to_owned())]);
    }

    #[test]
    fn an_answer_that_the_watch_has_overtaken_is_old() {
        let (informer, seen) = watched();
        informer.written(config_map("a", "5"));
        informer.apply(Arc::new(config_map("a", "4")));
        assert_eq!(revision(informer.list()[0].as_ref()), 5, "the watch lags behind our own write");
        informer.apply(Arc::new(config_map("a", "7")));
        informer.written(config_map("a", "6"));
        assert_eq!(revision(informer.list()[0].as_ref()), 7, "the answer came late");
        informer.delete(&Key::new("default", "a"), Some(config_map("a", "9")));
        informer.written(config_map("a", "8"));
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

    #[tokio::test]
    async fn indexes_follow_the_watch() {
        let informer = Informer::<ConfigMap>::new();
        let by_version = informer.index(|map| map.metadata.resource_version.as_deref().map(Into::into));
        let listed = |names: &[(&str, &str)]| {
            names.iter().map(|(n, v)| (Key::new("default", *n), Arc::new(config_map(n, v)))).collect()
        };
        let names = |objects: Vec<Arc<ConfigMap>>| {
            let mut names: Vec<_> = objects.iter().filter_map(|o| o.metadata.name.clone()).collect();
            names.sort();
            names
        };
        informer.replace(listed(&[("a", "1"), ("b", "1"), ("c", "1")]));
        assert_eq!(names(by_version.get("1")), ["a", "b", "c"]);
        informer.apply(Arc::new(config_map("a", "2")));
        informer.delete(&Key::new("default", "b"), Some(config_map("b", "3")));
        informer.written(config_map("d", "4"));
        assert_eq!(
            (names(by_version.get("1")), names(by_version.get("2"))),
            (vec!["c".into()], vec!["a".into()])
        );
        assert_eq!(names(by_version.get("4")), ["d"]);
        informer.replace(listed(&[("a", "2"), ("e", "5")]));
        assert!(by_version.get("1").is_empty() && by_version.get("4").is_empty());
        assert_eq!(
            (names(by_version.get("2")), names(by_version.get("5"))),
            (vec!["a".into()], vec!["e".into()])
        );
        assert_eq!(names(informer.in_namespace("default", |_| true)), ["a", "e"]);
        assert!(informer.in_namespace("other", |_| true).is_empty());
    }

    #[test]
    fn what_nobody_reads_is_not_kept() {
        let informer = Informer::<ConfigMap>::trimmed(|map| map.data = None);
        let mut map = config_map("a", "1");
        map.metadata.managed_fields = Some(Vec::new());
        map.data = Some([("k".to_owned(), "v".to_owned())].into());
        informer.written(map);
        let kept = informer.list().remove(0);
        assert_eq!((&kept.metadata.managed_fields, &kept.data), (&None, &None));
    }
}
