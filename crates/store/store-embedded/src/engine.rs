//! The layout on disk, over fjall.
//!
//! One keyspace holds everything, so that fjall's log can be dropped as soon as its one memtable is on disk:
//! `d` + key → create revision, mod revision (big endian), value; and `m` + `revision` → the newest revision, written
//! in the same batch as what made it, because deletions leave no other trace.

use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};
use xebec_store::{KeyValue, Revision, Snapshot, StoreError};

use crate::Options;

const DATA: u8 = b'd';
const REVISION_KEY: &[u8] = b"mrevision";
const HEADER: usize = 16;
/// fjall takes keys up to 65,535 bytes; names and namespaces of the API stay far below this.
pub const MAX_KEY_BYTES: usize = 4096;
/// fjall moves the horizon below which overwritten values may be dropped each time this many snapshots have closed.
const SNAPSHOTS_PER_HORIZON: usize = 10_000;

/// An open database.
pub struct Engine {
    db: Database,
    keys: Keyspace,
    path: PathBuf,
    /// Whether snapshots were opened since the horizon last moved.
    snapshots: AtomicBool,
}

impl Engine {
    pub fn open(path: &Path, options: &Options) -> Result<Self, StoreError> {
        let fault = |error| fault("open", path, error);
        let db = Database::builder(path)
            .cache_size(options.cache_bytes)
            .worker_threads(1)
            .max_cached_files(Some(64))
            .max_journaling_size(64 << 20)
            .manual_journal_persist(true)
            .open()
            .map_err(fault)?;
        let keys = db
            .keyspace("keys", || {
                KeyspaceCreateOptions::default()
                    .max_memtable_size(options.memtable_bytes)
                    .manual_journal_persist(true)
            })
            .map_err(fault)?;
        Ok(Self { db, keys, path: path.to_path_buf(), snapshots: AtomicBool::new(true) })
    }

    pub fn revision(&self) -> Result<Revision, StoreError> {
        let value = self.keys.get(REVISION_KEY).map_err(|error| fault("revision", &self.path, error))?;
        self.decode_revision(value.as_deref())
    }

    pub fn get(&self, key: &str) -> Result<Option<KeyValue>, StoreError> {
        let value = self.keys.get(data_key(key)).map_err(|error| fault("get", &self.path, error))?;
        value.map(|value| self.decode(key.into(), &value)).transpose()
    }

    pub fn list(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        limit: usize,
    ) -> Result<Snapshot, StoreError> {
        let fault = |error| fault("list", &self.path, error);
        let snapshot = self.db.snapshot();
        self.snapshots.store(true, Ordering::Relaxed);
        let revision = snapshot.get(&self.keys, REVISION_KEY).map_err(fault)?;
        let mut answer =
            Snapshot { revision: self.decode_revision(revision.as_deref())?, items: Vec::new(), more: false };

        let wanted = data_key(prefix);
        let from = match start_after {
            Some(key) if key >= prefix => Bound::Excluded(data_key(key)),
            _ => Bound::Included(wanted.clone()),
        };
        for entry in snapshot.range(&self.keys, (from, Bound::Unbounded)) {
            let (key, value) = entry.into_inner().map_err(fault)?;
            if !key.starts_with(&wanted) {
                break;
            }
            if limit > 0 && answer.items.len() == limit {
                answer.more = true;
                break;
            }
            let key = std::str::from_utf8(&key[1..]).map_err(|error| self.corrupt(error.to_string()))?;
            answer.items.push(self.decode(key.into(), &value)?);
        }
        Ok(answer)
    }

    /// Writes the state of some keys at `revision` and returns once all of it is on disk; before that, no reader sees
    /// any of it.
    pub fn write<'a>(
        &self,
        revision: Revision,
        changes: impl Iterator<Item = (&'a Arc<str>, Option<&'a KeyValue>)>,
    ) -> Result<(), fjall::Error> {
        let mut batch = self.db.batch().durability(Some(PersistMode::SyncData));
        for (key, state) in changes {
            match state {
                Some(kv) => batch.insert(&self.keys, data_key(key), encode(kv)),
                None => batch.remove(&self.keys, data_key(key)),
            }
        }
        batch.insert(&self.keys, REVISION_KEY, revision.to_be_bytes());
        batch.commit()
    }

    /// Lets merges drop what was overwritten.
    ///
    /// fjall does so by itself only while no snapshot has ever been opened, or once enough of them have closed; a
    /// store that is listed now and then and written often would grow in between.
    pub fn move_horizon(&self) {
        if self.snapshots.swap(false, Ordering::Relaxed) {
            for _ in 0..SNAPSHOTS_PER_HORIZON {
                drop(self.db.snapshot());
            }
        }
    }

    fn decode(&self, key: Arc<str>, stored: &[u8]) -> Result<KeyValue, StoreError> {
        let Some((header, value)) = stored.split_at_checked(HEADER) else {
            return Err(self.corrupt(format!("key {key} has a value of {} bytes", stored.len())));
        };
        let (create, modified) = header.split_at(HEADER / 2);
        Ok(KeyValue {
            key,
            value: Bytes::copy_from_slice(value),
            create_revision: self.decode_revision(Some(create))?,
            mod_revision: self.decode_revision(Some(modified))?,
        })
    }

    fn decode_revision(&self, stored: Option<&[u8]>) -> Result<Revision, StoreError> {
        let Some(stored) = stored else { return Ok(1) };
        let bytes = stored.try_into().map_err(|_| self.corrupt("a revision is not 8 bytes long".into()))?;
        Ok(Revision::from_be_bytes(bytes))
    }

    fn corrupt(&self, detail: String) -> StoreError {
        StoreError::Corrupt { location: self.path.display().to_string(), detail }
    }
}

fn data_key(key: &str) -> Vec<u8> {
    let mut stored = Vec::with_capacity(key.len() + 1);
    stored.push(DATA);
    stored.extend_from_slice(key.as_bytes());
    stored
}

fn encode(kv: &KeyValue) -> Vec<u8> {
    let mut stored = Vec::with_capacity(HEADER + kv.value.len());
    stored.extend_from_slice(&kv.create_revision.to_be_bytes());
    stored.extend_from_slice(&kv.mod_revision.to_be_bytes());
    stored.extend_from_slice(&kv.value);
    stored
}

/// Says what a fjall error means to the store's callers.
pub fn fault(operation: &'static str, path: &Path, error: fjall::Error) -> StoreError {
    if is_full(&error) {
        return StoreError::Full { path: path.to_path_buf(), source: Arc::new(error) };
    }
    match error {
        fjall::Error::Locked => StoreError::Locked { path: path.to_path_buf(), holder: None },
        fjall::Error::Io(_) | fjall::Error::Poisoned => StoreError::unavailable(operation, error),
        other => match io_cause(&other) {
            Some(_) => StoreError::unavailable(operation, other),
            None => StoreError::Corrupt { location: path.display().to_string(), detail: other.to_string() },
        },
    }
}

/// Whether the file system had no room, or the user no quota.
pub fn is_full(error: &fjall::Error) -> bool {
    let kind = io_cause(error).map(io::Error::kind);
    matches!(kind, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
}

fn io_cause<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a io::Error> {
    std::iter::successors(Some(error), |error| error.source()).find_map(|error| error.downcast_ref())
}
