//! The store's contract and the conformance suite that every backend passes.
//!
//! A store is a flat, ordered map from keys to bytes with one global history, as etcd's is: every commit writes one
//! key and makes the next [`Revision`], the only source of every resourceVersion. A [`Store::list`] names the revision
//! at which it is true, and a [`Store::watch`] after that revision continues it without a gap.
//!
//! What a backend must hold beyond the signatures is written down as a program: [`suite::run`].
//! [`fake::MemoryStore`] passes it too, and serves where tests need a store.

mod error;
pub mod fake;
pub mod history;
mod model;
pub mod suite;

use async_trait::async_trait;

pub use error::{Cause, StoreError};
pub use model::{
    Commit, Event, EventBatch, EventKind, KeyValue, Op, Precondition, Revision, Snapshot, WatchStream, Write,
};

/// An ordered map with one history.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Carries out one write and returns once it is durable.
    ///
    /// Nobody, neither reader nor watcher, sees a write before it is durable. Dropping the future does not undo it.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the precondition does not hold, [`StoreError::NotFound`] for the deletion of a
    /// missing key, and the backend's own troubles.
    async fn commit(&self, write: Write) -> Result<Commit, StoreError>;

    /// Reads one key.
    ///
    /// # Errors
    /// The backend's own troubles; a missing key is `None`.
    async fn get(&self, key: &str) -> Result<Option<KeyValue>, StoreError>;

    /// Reads the keys that begin with `prefix`, in byte order, from the one after `start_after` on, at most `limit`
    /// of them (0: all), all at the current revision.
    ///
    /// # Errors
    /// The backend's own troubles.
    async fn list(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        limit: usize,
    ) -> Result<Snapshot, StoreError>;

    /// Streams every commit under `prefix` whose revision is greater than `after`, in order.
    ///
    /// Every commit elsewhere is told, too, by a batch that moves only the revision; batches may merge.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] if the history after `after` is no longer whole, at once or later in the stream.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, StoreError>;

    /// Forgets the history up to and including `revision`; live keys stay. A revision from the future forgets all.
    ///
    /// # Errors
    /// The backend's own troubles.
    async fn compact(&self, revision: Revision) -> Result<(), StoreError>;

    /// The revision of the newest durable commit.
    ///
    /// # Errors
    /// The backend's own troubles.
    async fn revision(&self) -> Result<Revision, StoreError>;
}
