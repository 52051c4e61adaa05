//! What both tasks of a connection and its streams share: open streams, windows, and control frames to be written.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};

use super::frame::Control;

/// Window every stream and the connection start with, in bytes (SPDY/3.1).
pub(super) const INITIAL_WINDOW: u32 = 64 * 1024;
/// Bytes read before the other side is told of the room.
const UPDATE_AFTER: u32 = 32 * 1024;
/// Control frames that may wait; a peer that makes us owe more does not read and is cut off.
const MAX_PENDING: usize = 1024;

/// Bytes of one stream that may wait to be read. More than any window we announce: a peer that keeps to windows never
/// makes the reading task wait, so that its window updates are always seen; one that does not is held back by TCP.
const MAX_QUEUED: usize = 512 * 1024;

/// The writing end of a stream's queue, bounded in bytes.
#[derive(Clone)]
pub(super) struct Inbound {
    queue: mpsc::UnboundedSender<Bytes>,
    room: Arc<Semaphore>,
}

/// The reading end.
pub(super) struct Queue {
    pub(super) queue: mpsc::UnboundedReceiver<Bytes>,
    room: Arc<Semaphore>,
}

impl Inbound {
    /// Queues a piece, waiting for room. False when nobody reads any more.
    pub(super) async fn send(&self, piece: Bytes) -> bool {
        let Ok(permit) = self.room.acquire_many(piece.len().min(MAX_QUEUED) as u32).await else {
            return false;
        };
        permit.forget();
        self.queue.send(piece).is_ok()
    }
}

impl Queue {
    /// Makes room for what was read.
    pub(super) fn read(&self, bytes: usize) {
        self.room.add_permits(bytes);
    }

    /// Nothing is read any more; answers how many bytes were waiting.
    pub(super) fn close(&mut self) -> usize {
        self.room.close();
        self.queue.close();
        let mut left = 0;
        while let Ok(piece) = self.queue.try_recv() {
            left += piece.len();
        }
        left
    }
}

/// A stream that is open in at least one direction.
pub(super) struct Entry {
    /// Where its data goes; `None` once the other side has closed it or nobody reads.
    pub(super) inbound: Option<Inbound>,
    /// Bytes that may still be sent.
    window: i64,
    /// Bytes read since the last update.
    consumed: u32,
    local_closed: bool,
    remote_closed: bool,
    /// Told when the other side accepts the stream.
    pub(super) reply: Option<oneshot::Sender<()>>,
    reset: Arc<AtomicBool>,
}

pub(super) struct State {
    pub(super) streams: HashMap<u32, Entry>,
    pub(super) next_id: u32,
    pub(super) last_seen: u32,
    pub(super) control: VecDeque<Control>,
    enforced: bool,
    initial_window: i64,
    session_window: i64,
    session_consumed: u32,
    wakers: Vec<Waker>,
}

pub(super) struct Shared {
    state: Mutex<State>,
    /// Window we announced for every stream, in bytes.
    window: u32,
    /// Wakes the writing task.
    pub(super) work: Notify,
    /// Set when the connection is to be closed, or is.
    pub(super) closing: watch::Sender<bool>,
    /// Set when nothing comes in any more.
    pub(super) gone: watch::Sender<bool>,
}

impl Shared {
    pub(super) fn new(first_id: u32, window: u32) -> Arc<Self> {
        Arc::new(Self {
            window,
            state: Mutex::new(State {
                streams: HashMap::new(),
                next_id: first_id,
                last_seen: 0,
                control: VecDeque::new(),
                enforced: false,
                initial_window: i64::from(INITIAL_WINDOW),
                session_window: i64::from(INITIAL_WINDOW),
                session_consumed: 0,
                wakers: Vec::new(),
            }),
            work: Notify::new(),
            closing: watch::Sender::new(false),
            gone: watch::Sender::new(false),
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Queues a control frame.
    pub(super) fn push(&self, frame: Control) {
        let mut state = self.lock();
        if state.control.len() >= MAX_PENDING {
            drop(state);
            self.closing.send_replace(true);
            return;
        }
        state.control.push_back(frame);
        drop(state);
        self.work.notify_one();
    }

    /// Registers a stream and answers the queue its data arrives in.
    pub(super) fn open(
        &self,
        state: &mut State,
        id: u32,
        local_closed: bool,
        remote_closed: bool,
    ) -> (Queue, Arc<AtomicBool>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(MAX_QUEUED));
        let inbound = Inbound { queue: sender, room: room.clone() };
        let queue = Queue { queue: receiver, room };
        let reset = Arc::new(AtomicBool::new(*self.gone.borrow()));
        let inbound = if remote_closed || *self.gone.borrow() { None } else { Some(inbound) };
        let window = state.initial_window;
        let entry = Entry {
            inbound,
            window,
            consumed: 0,
            local_closed,
            remote_closed,
            reply: None,
            reset: reset.clone(),
        };
        state.streams.insert(id, entry);
        (queue, reset)
    }

    /// Bytes were taken out of a stream's queue, or thrown away.
    pub(super) fn consumed(&self, id: u32, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let mut updates = Vec::new();
        let mut state = self.lock();
        state.session_consumed = state.session_consumed.saturating_add(bytes);
        if state.session_consumed >= UPDATE_AFTER {
            updates.push(Control::WindowUpdate {
                stream: 0,
                delta: std::mem::take(&mut state.session_consumed),
            });
        }
        if let Some(entry) = state.streams.get_mut(&id).filter(|e| !e.remote_closed) {
            entry.consumed = entry.consumed.saturating_add(bytes);
            if entry.consumed >= UPDATE_AFTER.min(self.window.div_ceil(2)) {
                updates
                    .push(Control::WindowUpdate { stream: id, delta: std::mem::take(&mut entry.consumed) });
            }
        }
        drop(state);
        for update in updates {
            self.push(update);
        }
    }

    /// The other side gave room.
    pub(super) fn window_update(&self, stream: u32, delta: u32) {
        let mut state = self.lock();
        state.enforced = true;
        let delta = i64::from(delta);
        if stream == 0 {
            state.session_window += delta;
        } else if let Some(entry) = state.streams.get_mut(&stream) {
            entry.window += delta;
        }
        state.wake();
    }

    /// The other side told its initial window.
    pub(super) fn settings(&self, initial_window: Option<u32>) {
        let mut state = self.lock();
        state.enforced = true;
        if let Some(bytes) = initial_window {
            let change = i64::from(bytes) - state.initial_window;
            state.initial_window = i64::from(bytes);
            state.streams.values_mut().for_each(|e| e.window += change);
        }
        state.wake();
    }

    /// One direction of a stream is closed. Closed both ways it is forgotten.
    pub(super) fn half_closed(&self, id: u32, local: bool) {
        let mut state = self.lock();
        let Some(entry) = state.streams.get_mut(&id) else { return };
        if local {
            entry.local_closed = true;
        } else {
            entry.remote_closed = true;
            entry.inbound = None;
        }
        if entry.local_closed && entry.remote_closed {
            state.streams.remove(&id);
        }
        state.wake();
    }

    /// A stream ended at once.
    pub(super) fn reset(&self, id: u32) {
        let mut state = self.lock();
        if let Some(entry) = state.streams.remove(&id) {
            entry.reset.store(true, Ordering::Release);
        }
        state.wake();
    }

    /// Nothing comes in any more: readers see the end, writers fail.
    pub(super) fn disconnected(&self) {
        self.gone.send_replace(true);
        self.closing.send_replace(true);
        let mut state = self.lock();
        for (_, entry) in state.streams.drain() {
            entry.reset.store(!entry.remote_closed, Ordering::Release);
        }
        state.wake();
    }
}

impl State {
    /// How many bytes the stream may send now; `None` when it is closed.
    pub(super) fn allowance(&self, id: u32) -> Option<usize> {
        let entry = self.streams.get(&id).filter(|e| !e.local_closed)?;
        if !self.enforced {
            return Some(usize::MAX);
        }
        Some(usize::try_from(entry.window.min(self.session_window)).unwrap_or(0))
    }

    /// Counts bytes that are sent.
    pub(super) fn spend(&mut self, id: u32, bytes: usize) {
        self.session_window -= bytes as i64;
        if let Some(entry) = self.streams.get_mut(&id) {
            entry.window -= bytes as i64;
        }
    }

    /// The streams that we have not closed yet.
    pub(super) fn half_open(&self) -> Vec<u32> {
        self.streams.iter().filter(|(_, e)| !e.local_closed).map(|(id, _)| *id).collect()
    }

    /// To be woken when windows or streams change.
    pub(super) fn wait(&mut self, waker: &Waker) {
        if !self.wakers.iter().any(|w| w.will_wake(waker)) {
            self.wakers.push(waker.clone());
        }
    }

    fn wake(&mut self) {
        self.wakers.drain(..).for_each(Waker::wake);
    }
}
