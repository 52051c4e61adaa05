//! The embedded store: one file tree, one writer, group commit.
//!
//! Values live on disk in fjall, a log-structured tree; in memory are its small caches and a bounded ring of recent
//! events that watches are served from. A commit is answered, and seen by anybody, only after its group has been
//! synced with one `fdatasync`. There is no index in memory: a precondition costs one read, which the tree's filters
//! answer for keys that do not exist, and opening the store costs no scan.
//!
//! After a restart the history is empty: watches go on from the newest revision and anything older has to list again.

mod engine;
mod lock;
mod options;
mod writer;

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};
use xebec_store::history::History;
use xebec_store::{Commit, KeyValue, Revision, Snapshot, Store, StoreError, WatchStream, Write};

pub use options::Options;

use engine::Engine;
use lock::DirectoryLock;
use writer::{Request, Shared, Writer};

/// A store in a directory of this machine.
///
/// Dropping it finishes the writes that were queued and closes the files; watches end with [`StoreError::Closed`].
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    /// `None` only while dropping.
    queue: Option<mpsc::Sender<Request>>,
    writer: Option<JoinHandle<()>>,
    /// Last, so that it is given up after the files are closed.
    _lock: DirectoryLock,
}

impl EmbeddedStore {
    /// Opens the store in `directory`, making it if there is none.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another process has it open, [`StoreError::Full`] and [`StoreError::Corrupt`] for the
    /// state of the disk, [`StoreError::Unavailable`] for any other failure of the file system.
    pub fn open(directory: impl AsRef<Path>, options: Options) -> Result<Self, StoreError> {
        let directory = directory.as_ref();
        make_directory(directory).map_err(|source| StoreError::unavailable("make directory", source))?;
        let lock = DirectoryLock::acquire(directory)?;
        let engine = Engine::open(&Shared::data_path(directory), &options)?;
        let revision = engine.revision()?;
        let shared = Arc::new(Shared {
            directory: directory.to_path_buf(),
            options,
            history: Arc::new(History::new(revision, options.history)),
            engine: RwLock::new(Some(engine)),
        });
        let (queue, requests) = mpsc::channel(options.queue.max(1));
        let writer = Writer::new(shared.clone(), revision);
        let writer = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run(requests))
            .map_err(|source| StoreError::unavailable("start writer", source))?;
        Ok(Self { shared, queue: Some(queue), writer: Some(writer), _lock: lock })
    }

    /// Reads off the async threads: a value may have to come from the disk.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Engine) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = self.shared.clone();
        let reading = tokio::task::spawn_blocking(move || shared.read(work));
        reading.await.map_err(|source| StoreError::unavailable("read", source))?
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the store's writer panicked");
        }
        self.shared.history.close();
        // Reads that still run hold the shared part, but they must not keep the files open.
        self.shared.engine.write().unwrap_or_else(PoisonError::into_inner).take();
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn commit(&self, write: Write) -> Result<Commit, StoreError> {
        let queue = self.queue.as_ref().ok_or(StoreError::Closed)?;
        let (reply, answer) = oneshot::channel();
        queue.send(Request { write, reply }).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    async fn get(&self, key: &str) -> Result<Option<KeyValue>, StoreError> {
        let key: Arc<str> = key.into();
        self.read(move |engine| engine.get(&key)).await
    }

    async fn list(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        limit: usize,
    ) -> Result<Snapshot, StoreError> {
        let (prefix, start_after) = (prefix.to_owned(), start_after.map(str::to_owned));
        self.read(move |engine| engine.list(&prefix, start_after.as_deref(), limit)).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, StoreError> {
        self.shared.history.watch(prefix, after)
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.shared.history.compact(revision);
        Ok(())
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        self.read(Engine::revision).await
    }
}

/// Makes the directory, for root only since secrets are in it, and syncs its name.
fn make_directory(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    match directory.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}
