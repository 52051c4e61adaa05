//! The values that cross the store's door: keys with their revisions, writes, snapshots and events.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;

use crate::StoreError;

/// A point in the store's history. Every commit makes exactly one. A new store is at 1, as etcd's is, because the API
/// gives resource version 0 a meaning of its own; its first commit makes 2.
pub type Revision = u64;

/// One live key.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Arc<str>,
    /// The value, uninterpreted.
    pub value: Bytes,
    /// The commit that made the key (again, if it had been deleted).
    pub create_revision: Revision,
    /// The commit that last wrote the key.
    pub mod_revision: Revision,
}

impl fmt::Debug for KeyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values are objects of many kilobytes, secrets among them: never print them.
        f.debug_struct("KeyValue")
            .field("key", &self.key)
            .field("bytes", &self.value.len())
            .field("create_revision", &self.create_revision)
            .field("mod_revision", &self.mod_revision)
            .finish()
    }
}

/// What must hold for a write to be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing: write whatever is there.
    None,
    /// The key must not exist.
    Absent,
    /// The key must exist and have been last written by this commit.
    ModRevision(Revision),
}

/// What a write does to its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Create the key or replace its value.
    Put(Bytes),
    /// Remove the key; a missing one is [`StoreError::NotFound`], whatever the precondition.
    Delete,
}

/// One atomic write of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The key.
    pub key: Arc<str>,
    /// What must hold.
    pub precondition: Precondition,
    /// What to do.
    pub op: Op,
}

/// The receipt of a durable write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The revision this write made.
    pub revision: Revision,
    /// What the key held before, if it existed.
    pub previous: Option<KeyValue>,
}

/// The live keys of a prefix at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The revision at which every item is current; a watch after it misses nothing.
    pub revision: Revision,
    /// Keys in byte order.
    pub items: Vec<KeyValue>,
    /// Whether `limit` cut the answer short.
    pub more: bool,
}

/// What happened to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The key was created or replaced.
    Put {
        /// What it holds now.
        value: KeyValue,
    },
    /// The key was removed.
    Delete,
}

/// One commit as a watcher sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The commit.
    pub revision: Revision,
    /// The key it wrote.
    pub key: Arc<str>,
    /// What it did.
    pub kind: EventKind,
    /// What the key held before; `None` means that it did not exist.
    pub previous: Option<KeyValue>,
}

/// Events in revision order, and how far the watcher has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventBatch {
    /// Every event up to and including this revision has been delivered.
    pub revision: Revision,
    /// The new events of the watched prefix; may be empty, when only the revision moved.
    pub events: Vec<Event>,
}

/// A watch: batches with growing revisions until it ends with an error.
///
/// A watcher that reads too slowly ends with [`StoreError::Compacted`] and lists again.
pub type WatchStream = BoxStream<'static, Result<EventBatch, StoreError>>;

impl Write {
    /// Decides whether the write may be carried out on what its key holds now.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for the deletion of a missing key, [`StoreError::Conflict`] if the precondition fails.
    pub fn check(&self, current: Option<&KeyValue>) -> Result<(), StoreError> {
        if self.op == Op::Delete && current.is_none() {
            return Err(StoreError::NotFound { key: self.key.clone() });
        }
        let holds = match self.precondition {
            Precondition::None => true,
            Precondition::Absent => current.is_none(),
            Precondition::ModRevision(wanted) => current.is_some_and(|kv| kv.mod_revision == wanted),
        };
        if holds {
            return Ok(());
        }
        Err(StoreError::Conflict { key: self.key.clone(), current: current.cloned() })
    }

    /// Carries the write out on paper: what the key holds at `revision`, and the event that tells of it.
    #[must_use]
    pub fn apply(&self, revision: Revision, current: Option<KeyValue>) -> (Option<KeyValue>, Event) {
        let next = match &self.op {
            Op::Delete => None,
            Op::Put(value) => Some(KeyValue {
                key: self.key.clone(),
                value: value.clone(),
                create_revision: current.as_ref().map_or(revision, |kv| kv.create_revision),
                mod_revision: revision,
            }),
        };
        let kind = next.clone().map_or(EventKind::Delete, |value| EventKind::Put { value });
        let event = Event { revision, key: self.key.clone(), kind, previous: current };
        (next, event)
    }
}
