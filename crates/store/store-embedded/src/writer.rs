//! The one writer: takes whatever is queued, decides it in order, syncs it once, then tells everybody.
//!
//! While one group is being synced the next one gathers in the queue, so groups grow with the load by themselves and a
//! lone write waits for nobody.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use tokio::sync::{mpsc, oneshot};
use xebec_store::history::History;
use xebec_store::{Commit, Event, KeyValue, Op, Revision, StoreError, Write};

use crate::Options;
use crate::engine::{Engine, MAX_KEY_BYTES, fault, is_full};

/// Bytes of values that share one fsync at most; one value may be longer.
const GROUP_BYTES: usize = 8 << 20;

/// What the writer and the readers share.
pub struct Shared {
    pub directory: std::path::PathBuf,
    pub options: Options,
    pub history: Arc<History>,
    /// `None` only while or after a reopening failed, and once the store is closed.
    pub engine: RwLock<Option<Engine>>,
}

impl Shared {
    /// Does something with the open database.
    pub fn read<T>(&self, work: impl FnOnce(&Engine) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.guard().as_ref().map_or_else(|| Err(no_engine()), work)
    }

    fn guard(&self) -> RwLockReadGuard<'_, Option<Engine>> {
        self.engine.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn data_path(directory: &Path) -> std::path::PathBuf {
        directory.join("data")
    }
}

fn no_engine() -> StoreError {
    StoreError::unavailable("read", io::Error::other("the database could not be opened again after a fault"))
}

/// A write and who waits for it.
pub struct Request {
    pub write: Write,
    pub reply: oneshot::Sender<Result<Commit, StoreError>>,
}

/// Whether the database can be written.
enum Health {
    Good,
    /// A write failed for want of space, or fjall gave up for a reason of its own: opening it again heals that.
    Reopen,
    /// A sync failed. What the kernel then holds in memory may differ from the disk, so nothing may be built on it:
    /// only a restart, after the disk has been looked after, makes sense.
    Dead(StoreError),
}

/// The writer's side of the store.
pub struct Writer {
    shared: Arc<Shared>,
    revision: Revision,
    health: Health,
    /// The last failure was that the database takes no writes any more until it is opened again.
    refused: bool,
    written: u64,
}

/// What becomes of each write of a group, or of all.
type Answers = Result<Vec<Result<Commit, StoreError>>, StoreError>;

/// What the writes of one group amount to, as long as it is not on disk.
struct Group {
    revision: Revision,
    /// The state of every key that was looked at, and whether this group changed it.
    keys: HashMap<Arc<str>, (Option<KeyValue>, bool)>,
    events: Vec<Event>,
}

impl Writer {
    pub fn new(shared: Arc<Shared>, revision: Revision) -> Self {
        Self { shared, revision, health: Health::Good, refused: false, written: 0 }
    }

    /// Serves the queue until every sender is gone.
    pub fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        let mut group = Vec::new();
        while let Some(first) = queue.blocking_recv() {
            let mut bytes = size(&first);
            group.push(first);
            while group.len() < self.shared.options.group && bytes < GROUP_BYTES {
                let Ok(next) = queue.try_recv() else { break };
                bytes += size(&next);
                group.push(next);
            }
            self.serve(&mut group);
        }
    }

    /// Decides, syncs, publishes and answers one group.
    fn serve(&mut self, requests: &mut Vec<Request>) {
        let (writes, replies): (Vec<Write>, Vec<_>) =
            requests.drain(..).map(|request| (request.write, request.reply)).unzip();
        // Every answer waits for the sync, refusals too: they may rest on a write of the same group.
        match self.commit(&writes) {
            Ok(answers) => {
                for (reply, answer) in replies.into_iter().zip(answers) {
                    // A caller that went away does not undo its write.
                    let _ = reply.send(answer);
                }
            }
            Err(error) => {
                tracing::warn!(%error, writes = writes.len(), "a group of writes failed");
                for reply in replies {
                    let _ = reply.send(Err(error.clone()));
                }
            }
        }
    }

    fn commit(&mut self, writes: &[Write]) -> Answers {
        let answers = self.attempt(writes);
        // A worker of the database had failed since the last group, unseen, and nothing of this one was written.
        if answers.is_err() && std::mem::take(&mut self.refused) { self.attempt(writes) } else { answers }
    }

    fn attempt(&mut self, writes: &[Write]) -> Answers {
        self.heal()?;
        let shared = self.shared.clone();
        let guard = shared.guard();
        let engine = guard.as_ref().ok_or_else(no_engine)?;
        let room = Room::of(&shared)?;
        let mut group = Group { revision: self.revision, keys: HashMap::new(), events: Vec::new() };
        let mut answers = Vec::with_capacity(writes.len());
        for write in writes {
            answers.push(match room.admit(write, &shared) {
                Ok(()) => group.decide(engine, write),
                Err(error) => Err(error),
            });
        }
        if group.events.is_empty() {
            return Ok(answers);
        }

        let changes = group
            .keys
            .iter()
            .filter(|(_, (_, changed))| *changed)
            .map(|(key, (state, _))| (key, state.as_ref()));
        if let Err(error) = engine.write(group.revision, changes) {
            return Err(self.note(error));
        }
        self.revision = group.revision;
        shared.history.publish(group.events);
        self.written += writes.iter().map(|write| value_of(write).len() as u64).sum::<u64>();
        if self.written >= shared.options.memtable_bytes {
            self.written = 0;
            engine.move_horizon();
        }
        Ok(answers)
    }

    /// Remembers what a failed write means for those after it.
    fn note(&mut self, error: fjall::Error) -> StoreError {
        self.refused = matches!(error, fjall::Error::Poisoned);
        let heals = is_full(&error) || self.refused;
        let error = fault("commit", &self.shared.directory, error);
        self.health = if heals { Health::Reopen } else { Health::Dead(error.clone()) };
        error
    }

    /// Opens the database again after a fault from which that helps.
    fn heal(&mut self) -> Result<(), StoreError> {
        match &self.health {
            Health::Good => return Ok(()),
            Health::Dead(error) => return Err(error.clone()),
            Health::Reopen => {}
        }
        let shared = self.shared.clone();
        Room::of(&shared)?.admit_anything(&shared)?;
        let mut engine = shared.engine.write().unwrap_or_else(PoisonError::into_inner);
        // The old one must be gone before its directory can be opened again.
        *engine = None;
        let opened = Engine::open(&Shared::data_path(&shared.directory), &shared.options)?;
        // Writes whose failure was reported may have reached the log all the same; nobody has been told of them, so
        // those who watch start over.
        self.revision = opened.revision()?;
        *engine = Some(opened);
        self.health = Health::Good;
        shared.history.reset(self.revision);
        tracing::info!(revision = self.revision, "the store was opened again after a fault");
        Ok(())
    }
}

impl Group {
    fn decide(&mut self, engine: &Engine, write: &Write) -> Result<Commit, StoreError> {
        let (state, changed) = match self.keys.get_mut(&write.key) {
            Some(known) => (&mut known.0, &mut known.1),
            None => {
                let state = engine.get(&write.key)?;
                let known = self.keys.entry(write.key.clone()).or_insert((state, false));
                (&mut known.0, &mut known.1)
            }
        };
        write.check(state.as_ref())?;
        self.revision += 1;
        let previous = state.take();
        let (next, event) = write.apply(self.revision, previous.clone());
        *state = next;
        *changed = true;
        self.events.push(event);
        Ok(Commit { revision: self.revision, previous })
    }
}

/// How much room the file system has.
struct Room {
    free: u64,
}

impl Room {
    fn of(shared: &Shared) -> Result<Self, StoreError> {
        let stat = rustix::fs::statvfs(&shared.directory)
            .map_err(|errno| StoreError::unavailable("statvfs", io::Error::from(errno)))?;
        Ok(Self { free: stat.f_bavail.saturating_mul(stat.f_frsize) })
    }

    fn admit(&self, write: &Write, shared: &Shared) -> Result<(), StoreError> {
        let (key, value) = (write.key.len(), value_of(write).len());
        let too_large = |key: &str, bytes, limit| Err(StoreError::TooLarge { key: key.into(), bytes, limit });
        if key > MAX_KEY_BYTES {
            let shown: String = write.key.chars().take(64).collect();
            return too_large(&shown, key, MAX_KEY_BYTES);
        }
        if value > shared.options.value_bytes {
            return too_large(&write.key, value, shared.options.value_bytes);
        }
        match write.op {
            Op::Put(_) => self.require(shared.options.reserve_bytes, shared),
            Op::Delete => self.require(shared.options.reserve_bytes / 4, shared),
        }
    }

    fn admit_anything(&self, shared: &Shared) -> Result<(), StoreError> {
        self.require(shared.options.reserve_bytes / 4, shared)
    }

    fn require(&self, bytes: u64, shared: &Shared) -> Result<(), StoreError> {
        if self.free >= bytes {
            return Ok(());
        }
        let source = Arc::new(io::Error::new(
            io::ErrorKind::StorageFull,
            format!("{} bytes are free, {bytes} are needed", self.free),
        ));
        Err(StoreError::Full { path: shared.directory.clone(), source })
    }
}

fn value_of(write: &Write) -> &[u8] {
    match &write.op {
        Op::Put(value) => value,
        Op::Delete => &[],
    }
}

fn size(request: &Request) -> usize {
    request.write.key.len() + value_of(&request.write).len()
}
