//! The recent past that watches are served from: a bounded ring of events, shared by all watchers.
//!
//! A watcher is a position in the ring and nothing more. It has no queue of its own, so a hundred slow watchers
//! cost no memory, and one that falls behind the ring's tail ends with [`StoreError::Compacted`] and lists again.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use futures::StreamExt;
use tokio::sync::watch;

use crate::{Event, EventBatch, EventKind, Revision, StoreError, WatchStream};

/// At most this many events are handed to a watcher at once, so that one batch stays small.
const BATCH_EVENTS: usize = 512;

/// How much of the past is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// At most this many events.
    pub events: usize,
    /// At most this many bytes of keys and values, counted once per event that holds them.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { events: 10_000, bytes: 8 << 20 }
    }
}

/// The ring of recent events.
#[derive(Debug)]
pub struct History {
    limits: Limits,
    ring: RwLock<Ring>,
    /// Counts changes of the ring; watchers wait on it.
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct Ring {
    events: VecDeque<Event>,
    bytes: usize,
    /// Events up to and including this revision are gone.
    floor: Revision,
    revision: Revision,
    closed: bool,
}

/// What a watcher does next.
enum Step {
    Deliver(EventBatch),
    Wait,
    End(StoreError),
}

impl History {
    /// An empty history of a store that stands at `revision`.
    #[must_use]
    pub fn new(revision: Revision, limits: Limits) -> Self {
        let ring = Ring { events: VecDeque::new(), bytes: 0, floor: revision, revision, closed: false };
        Self { limits, ring: RwLock::new(ring), changed: watch::Sender::new(()) }
    }

    /// The revision up to which commits have been published.
    pub fn revision(&self) -> Revision {
        self.read().revision
    }

    /// Appends durable commits, in revision order, and wakes the watchers.
    pub fn publish(&self, events: impl IntoIterator<Item = Event>) {
        {
            let mut ring = self.write();
            for event in events {
                debug_assert!(event.revision > ring.revision, "revisions grow");
                ring.revision = event.revision;
                ring.bytes += weight(&event);
                ring.events.push_back(event);
            }
            while ring.events.len() > self.limits.events || ring.bytes > self.limits.bytes {
                ring.drop_oldest();
            }
        }
        self.changed.send_replace(());
    }

    /// Forgets the events up to and including `revision`.
    pub fn compact(&self, revision: Revision) {
        {
            let mut ring = self.write();
            while ring.events.front().is_some_and(|event| event.revision <= revision) {
                ring.drop_oldest();
            }
            ring.floor = ring.floor.max(revision.min(ring.revision));
        }
        self.changed.send_replace(());
    }

    /// Starts anew at `revision`, whose way there is not known: every watcher behind it ends.
    pub fn reset(&self, revision: Revision) {
        {
            let mut ring = self.write();
            ring.events.clear();
            ring.bytes = 0;
            ring.revision = ring.revision.max(revision);
            ring.floor = ring.revision;
        }
        self.changed.send_replace(());
    }

    /// Ends every watch with [`StoreError::Closed`] once it has delivered what there is.
    pub fn close(&self) {
        self.write().closed = true;
        self.changed.send_replace(());
    }

    /// Streams the events under `prefix` after the revision `after`.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] if they are no longer all there, [`StoreError::Closed`] after [`History::close`].
    pub fn watch(self: &Arc<Self>, prefix: &str, after: Revision) -> Result<WatchStream, StoreError> {
        if let Step::End(error) = self.step(prefix, after) {
            return Err(error);
        }
        let watcher = Watcher {
            history: self.clone(),
            changed: self.changed.subscribe(),
            prefix: prefix.into(),
            position: after,
        };
        let stream = futures::stream::unfold(Some(watcher), |watcher| async {
            let mut watcher = watcher?;
            let next = watcher.next().await;
            let watcher = next.is_ok().then_some(watcher);
            Some((next, watcher))
        });
        Ok(stream.boxed())
    }

    fn step(&self, prefix: &str, position: Revision) -> Step {
        let ring = self.read();
        if position < ring.floor {
            return Step::End(StoreError::Compacted { oldest: ring.floor });
        }
        if position >= ring.revision {
            return if ring.closed { Step::End(StoreError::Closed) } else { Step::Wait };
        }
        let start = ring.events.partition_point(|event| event.revision <= position);
        let mut batch = EventBatch { revision: ring.revision, events: Vec::new() };
        for event in ring.events.range(start..).filter(|event| event.key.starts_with(prefix)) {
            if batch.events.len() == BATCH_EVENTS {
                batch.revision = event.revision - 1;
                break;
            }
            batch.events.push(event.clone());
        }
        Step::Deliver(batch)
    }

    fn read(&self) -> RwLockReadGuard<'_, Ring> {
        self.ring.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Ring> {
        self.ring.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn drop_oldest(&mut self) {
        if let Some(event) = self.events.pop_front() {
            self.bytes -= weight(&event);
            self.floor = event.revision;
        }
    }
}

struct Watcher {
    history: Arc<History>,
    changed: watch::Receiver<()>,
    prefix: Box<str>,
    position: Revision,
}

impl Watcher {
    async fn next(&mut self) -> Result<EventBatch, StoreError> {
        loop {
            // Marked before looking: a change after the look wakes the wait below.
            self.changed.mark_unchanged();
            match self.history.step(&self.prefix, self.position) {
                Step::Deliver(batch) => {
                    self.position = batch.revision;
                    return Ok(batch);
                }
                Step::End(error) => return Err(error),
                Step::Wait => self.changed.changed().await.map_err(|_| StoreError::Closed)?,
            }
        }
    }
}

/// The bytes that an event keeps alive.
fn weight(event: &Event) -> usize {
    let value = match &event.kind {
        EventKind::Put { value } => value.value.len(),
        EventKind::Delete => 0,
    };
    event.key.len() + value + event.previous.as_ref().map_or(0, |kv| kv.value.len())
}
