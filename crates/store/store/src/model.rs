//! The values that cross the store's door: keys with their revisions, writes, snapshots and events.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;

use crate::StoreError;

/// A point in the store's history. Every commit makes exactly one; the first is 1, and 0 means "before everything".
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
    /// Remove the key; a missing one is [`StoreError::NotFound`].
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
