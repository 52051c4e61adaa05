//! The objects of one resource and the recent past that its watches are served from.
//!
//! A watcher is a position in the ring and nothing more, so that a hundred of them cost no memory; one that falls
//! behind the ring's tail is cut off and lists again.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::watch;
use xebec_registry::Resource;

use super::Entry;

/// At most this many events are remembered for each resource.
const MAX_EVENTS: usize = 10_000;
/// At most this many bytes of objects are kept alive by events of one resource alone.
const MAX_BYTES: usize = 32 << 20;
/// Events older than this are forgotten, so that an idle server is small. Upstream keeps them at least 75 s.
const MAX_AGE: Duration = Duration::from_secs(300);

/// A change of one object.
#[derive(Debug)]
pub struct CacheEvent {
    /// The commit.
    pub revision: u64,
    /// Before; `None` if the object did not exist.
    pub old: Option<Arc<Entry>>,
    /// After; `None` if it was deleted.
    pub new: Option<Arc<Entry>>,
    /// The line of a watch stream that most watchers send, made by the first of them.
    pub(crate) line: OnceLock<Bytes>,
    at: Instant,
}

impl CacheEvent {
    fn weight(&self) -> usize {
        // The line and the old object are what the event itself keeps alive.
        2 * self.new.as_ref().or(self.old.as_ref()).map_or(0, |entry| entry.weight())
    }
}

/// What a watcher finds after its position.
pub enum Next {
    /// These events; the position is the second value now.
    Events(Vec<Arc<CacheEvent>>, u64),
    /// Nothing yet.
    Wait,
    /// The events are gone; the oldest position that would do.
    Expired(u64),
    /// The resource is no longer served.
    Closed,
}

/// Called in order for every change, before readers can see that it is applied.
pub type Observer = Arc<dyn Fn(Option<&Value>, Option<&Value>) + Send + Sync>;

/// All objects of a resource at a revision.
pub struct ResourceCache {
    prefix: String,
    observer: Option<Observer>,
    resource: RwLock<Arc<Resource>>,
    state: RwLock<State>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    entries: BTreeMap<Arc<str>, Arc<Entry>>,
    ring: VecDeque<Arc<CacheEvent>>,
    ring_bytes: usize,
    /// Events up to and including this revision are gone.
    floor: u64,
    /// The newest revision applied or loaded.
    revision: u64,
    closed: bool,
}

impl ResourceCache {
    pub(super) fn new(resource: Arc<Resource>, observer: Option<Observer>) -> Self {
        Self {
            prefix: resource.key_prefix(),
            observer,
            resource: RwLock::new(resource),
            state: RwLock::default(),
            changed: watch::Sender::new(0),
        }
    }

    /// Prefix of its keys in the store.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Takes on a new description of the same resource; entries keep the fields they were parsed with.
    pub fn redefine(&self, resource: Arc<Resource>) {
        *self.resource.write().unwrap_or_else(PoisonError::into_inner) = resource;
    }

    fn resource(&self) -> Arc<Resource> {
        self.resource.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An object by its key.
    pub fn get(&self, key: &str) -> Option<Arc<Entry>> {
        self.read().entries.get(key).cloned()
    }

    /// The objects of a namespace (all for the empty one) whose keys come after `after`, as far as `keep` wants them,
    /// in key order.
    pub fn scan(
        &self,
        namespace: &str,
        after: Option<&str>,
        keep: impl FnMut(&Entry) -> bool,
    ) -> Vec<Arc<Entry>> {
        self.scan_at(namespace, after, keep).0
    }

    /// As [`ResourceCache::scan`], with the newest revision that the objects may have.
    pub fn scan_at(
        &self,
        namespace: &str,
        after: Option<&str>,
        mut keep: impl FnMut(&Entry) -> bool,
    ) -> (Vec<Arc<Entry>>, u64) {
        let prefix = match namespace {
            "" => self.prefix.clone(),
            namespace => format!("{}{namespace}/", self.prefix),
        };
        let from = match after {
            Some(after) if after >= prefix.as_str() => Bound::Excluded(after),
            _ => Bound::Included(prefix.as_str()),
        };
        let state = self.read();
        let range = state.entries.range::<str, _>((from, Bound::Unbounded));
        let items = range
            .take_while(|(key, _)| key.starts_with(&prefix))
            .filter(|(_, entry)| keep(entry))
            .map(|(_, entry)| entry.clone())
            .collect();
        (items, state.revision)
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.read().entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Changes whenever an event was applied.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// At most `max` events after `position`.
    pub fn next(&self, position: u64, max: usize) -> Next {
        let state = self.read();
        if position < state.floor {
            return Next::Expired(state.floor);
        }
        let start = state.ring.partition_point(|event| event.revision <= position);
        let events: Vec<_> = state.ring.range(start..).take(max).cloned().collect();
        match events.last().map(|event| event.revision) {
            Some(last) => Next::Events(events, last),
            None if state.closed => Next::Closed,
            None => Next::Wait,
        }
    }

    /// Applies one commit: the bytes stored, and the object that they are if that is known. Older commits than what
    /// was loaded are already in it.
    pub(super) fn apply(&self, key: &Arc<str>, revision: u64, stored: Option<(&[u8], Option<Value>)>) {
        let resource = self.resource();
        let parsed = stored.and_then(|(stored, known)| self.parse(&resource, key, stored, revision, known));
        let mut state = self.write();
        if revision <= state.revision {
            return;
        }
        state.revision = revision;
        let (new, value) = parsed.map_or((None, None), |(entry, value)| (Some(Arc::new(entry)), Some(value)));
        let old = match &new {
            Some(entry) => state.entries.insert(key.clone(), entry.clone()),
            None => state.entries.remove(key),
        };
        if old.is_none() && new.is_none() {
            return;
        }
        let event = CacheEvent { revision, old: old.clone(), new, line: OnceLock::new(), at: Instant::now() };
        state.push(Arc::new(event));
        drop(state);
        if self.observes(&resource) {
            let old = old.map(|old| old.decode());
            self.observe(&resource, old.as_ref(), value.as_ref());
        }
        self.changed.send_replace(revision);
    }

    /// Replaces everything by what the store holds at `revision`. The way there is not known, so all watchers end.
    pub(super) fn load<'a>(&self, items: impl Iterator<Item = (&'a Arc<str>, &'a [u8], u64)>, revision: u64) {
        let resource = self.resource();
        let observes = self.observes(&resource);
        let mut entries = BTreeMap::new();
        let mut values = BTreeMap::new();
        for (key, stored, at) in items {
            if let Some((entry, value)) = self.parse(&resource, key, stored, at, None) {
                entries.insert(key.clone(), Arc::new(entry));
                if observes {
                    values.insert(key.clone(), value);
                }
            }
        }
        let mut state = self.write();
        let old = std::mem::replace(&mut state.entries, entries);
        state.ring.clear();
        state.ring_bytes = 0;
        state.floor = revision;
        state.revision = revision;
        drop(state);
        if observes {
            self.observe_difference(&resource, &old, &values);
        }
        self.changed.send_replace(revision);
    }

    fn observe_difference(
        &self,
        resource: &Resource,
        old: &BTreeMap<Arc<str>, Arc<Entry>>,
        new: &BTreeMap<Arc<str>, Value>,
    ) {
        for (key, entry) in old {
            self.observe(resource, Some(&entry.decode()), new.get(key));
        }
        for (_, value) in new.iter().filter(|(key, _)| !old.contains_key(*key)) {
            self.observe(resource, None, Some(value));
        }
    }

    fn observes(&self, resource: &Resource) -> bool {
        self.observer.is_some() || resource.strategy.observes()
    }

    fn observe(&self, resource: &Resource, old: Option<&Value>, new: Option<&Value>) {
        resource.strategy.observed(old, new);
        if let Some(observer) = &self.observer {
            observer(old, new);
        }
    }

    /// Ends all watches: the resource is gone.
    pub(super) fn close(&self) {
        self.write().closed = true;
        self.changed.send_modify(|_| {});
    }

    fn parse(
        &self,
        resource: &Resource,
        key: &Arc<str>,
        stored: &[u8],
        revision: u64,
        known: Option<Value>,
    ) -> Option<(Entry, Value)> {
        let parsed = Entry::parse(resource, &self.prefix, key.clone(), stored, revision, known);
        if parsed.is_none() {
            tracing::error!(%key, revision, "the store holds something that is no object; it is not served");
        }
        parsed
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, event: Arc<CacheEvent>) {
        self.ring_bytes += event.weight();
        self.ring.push_back(event);
        while self.ring.front().is_some_and(|oldest| {
            self.ring.len() > MAX_EVENTS || self.ring_bytes > MAX_BYTES || oldest.at.elapsed() > MAX_AGE
        }) {
            if let Some(oldest) = self.ring.pop_front() {
                self.ring_bytes -= oldest.weight();
                self.floor = oldest.revision;
            }
        }
    }
}
