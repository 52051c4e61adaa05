//! Why the store refused.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use crate::{KeyValue, Revision};

/// The cause below a store error, as the backend reported it.
///
/// Shared, because one failed group commit fails every write in the group.
pub type Cause = Arc<dyn Error + Send + Sync + 'static>;

/// Why a store operation failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The precondition does not hold.
    #[error("write {key}: the key changed (now at revision {})", .current.as_ref().map_or(0, |kv| kv.mod_revision))]
    Conflict {
        /// The key of the write.
        key: Arc<str>,
        /// What the key holds, if it exists.
        current: Option<KeyValue>,
    },
    /// The key to delete does not exist.
    #[error("delete {key}: no such key")]
    NotFound {
        /// The key of the write.
        key: Arc<str>,
    },
    /// The wanted history is gone, or the watcher was too slow for it: list again.
    #[error("history before revision {oldest} is compacted")]
    Compacted {
        /// The oldest revision after which a watch can still start.
        oldest: Revision,
    },
    /// The disk is full; nothing acknowledged is lost, and writing works again once there is space.
    #[error("store {}: the disk is full", path.display())]
    Full {
        /// The store's directory.
        path: PathBuf,
        /// What the file system said.
        #[source]
        source: Cause,
    },
    /// The backend cannot serve this now; whether a write in flight was carried out is not known.
    #[error("store {operation}: unavailable")]
    Unavailable {
        /// What was being done.
        operation: &'static str,
        /// What the backend said.
        #[source]
        source: Cause,
    },
    /// The directory belongs to a running process.
    #[error("store {}: in use by process {}", path.display(), holder.map_or("unknown".into(), |pid| pid.to_string()))]
    Locked {
        /// The store's directory.
        path: PathBuf,
        /// The process that holds it, if it said so.
        holder: Option<u32>,
    },
    /// A key or value is longer than the backend takes.
    #[error("write {key}: {bytes} bytes are more than the limit of {limit}")]
    TooLarge {
        /// The key of the write, shortened if it is itself what is too long.
        key: Arc<str>,
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        limit: usize,
    },
    /// What is stored cannot be understood.
    #[error("store {location}: corrupt: {detail}")]
    Corrupt {
        /// Where: a path or a key.
        location: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// Wraps a backend's error as [`StoreError::Unavailable`].
    pub fn unavailable(operation: &'static str, source: impl Error + Send + Sync + 'static) -> Self {
        Self::Unavailable { operation, source: Arc::new(source) }
    }
}
