//! A store in memory, for tests of what stands on a store.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::history::{History, Limits};
use crate::{Commit, KeyValue, Revision, Snapshot, Store, StoreError, WatchStream, Write};

/// A store that forgets everything when it is dropped.
#[derive(Debug)]
pub struct MemoryStore {
    state: Mutex<State>,
    history: Arc<History>,
}

#[derive(Debug)]
struct State {
    revision: Revision,
    keys: BTreeMap<Arc<str>, KeyValue>,
}

impl MemoryStore {
    /// An empty store with the usual history.
    #[must_use]
    pub fn new() -> Self {
        Self::with_history(Limits::default())
    }

    /// An empty store that remembers as much as `limits` allow.
    #[must_use]
    pub fn with_history(limits: Limits) -> Self {
        let state = State { revision: 1, keys: BTreeMap::new() };
        Self { state: Mutex::new(state), history: Arc::new(History::new(1, limits)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn commit(&self, write: Write) -> Result<Commit, StoreError> {
        let mut state = self.state();
        let previous = state.keys.get(&write.key).cloned();
        write.check(previous.as_ref())?;
        let revision = state.revision + 1;
        let (next, event) = write.apply(revision, previous.clone());
        match next {
            Some(kv) => state.keys.insert(write.key.clone(), kv),
            None => state.keys.remove(&write.key),
        };
        state.revision = revision;
        self.history.publish([event]);
        Ok(Commit { revision, previous })
    }

    async fn get(&self, key: &str) -> Result<Option<KeyValue>, StoreError> {
        Ok(self.state().keys.get(key).cloned())
    }

    async fn list(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        limit: usize,
    ) -> Result<Snapshot, StoreError> {
        let state = self.state();
        let from = match start_after {
            Some(key) if key >= prefix => Bound::Excluded(key),
            _ => Bound::Included(prefix),
        };
        let mut snapshot = Snapshot { revision: state.revision, items: Vec::new(), more: false };
        let range = state.keys.range::<str, _>((from, Bound::Unbounded));
        for (_, kv) in range.take_while(|(key, _)| key.starts_with(prefix)) {
            if limit > 0 && snapshot.items.len() == limit {
                snapshot.more = true;
                break;
            }
            snapshot.items.push(kv.clone());
        }
        Ok(snapshot)
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, StoreError> {
        self.history.watch(prefix, after)
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.history.compact(revision);
        Ok(())
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        Ok(self.state().revision)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashMap;

    use bytes::Bytes;
    use futures::StreamExt;

    use super::*;
    use crate::{Op, Precondition};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn passes_the_suite() {
        let stores: Mutex<HashMap<&'static str, Arc<MemoryStore>>> = Mutex::default();
        crate::suite::run(|name| {
            let store: Arc<dyn Store> = stores.lock().unwrap().entry(name).or_default().clone();
            async move { store }
        })
        .await;
    }

    #[tokio::test]
    async fn a_watcher_behind_the_ring_lists_again() {
        for limits in [Limits { events: 4, bytes: usize::MAX }, Limits { events: usize::MAX, bytes: 40 }] {
            let store = MemoryStore::with_history(limits);
            let mut watch = store.watch("/", 1).await.unwrap();
            for n in 0..10 {
                let op = Op::Put(Bytes::from_static(b"12345678"));
                let write = Write { key: format!("/{n}").into(), precondition: Precondition::None, op };
                store.commit(write).await.unwrap();
            }
            let end = watch.next().await.unwrap().unwrap_err();
            assert!(matches!(end, StoreError::Compacted { oldest: 7 }), "{end}");
            assert!(watch.next().await.is_none());
            let batch = store.watch("/", 7).await.unwrap().next().await.unwrap().unwrap();
            assert_eq!((batch.revision, batch.events.len()), (11, 4));
        }
    }
}
