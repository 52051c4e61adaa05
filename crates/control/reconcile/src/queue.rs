//! A queue of keys in which each key is at most once, and which never hands out a key that is being worked on.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// First delay after a failure; doubled up to [`MAX_BACKOFF`], as client-go's default rate limiter does.
const MIN_BACKOFF: Duration = Duration::from_millis(5);
/// Largest delay after failures.
const MAX_BACKOFF: Duration = Duration::from_secs(300);

/// A handle to the queue. Its size is bounded by the number of different keys.
#[derive(Debug)]
pub struct Queue<T>(Arc<Inner<T>>);

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

#[derive(Debug)]
struct Inner<T> {
    state: Mutex<State<T>>,
    wake: Notify,
}

#[derive(Debug)]
struct State<T> {
    ready: VecDeque<T>,
    queued: HashSet<T>,
    working: HashSet<T>,
    again: HashSet<T>,
    delayed: BTreeMap<(Instant, u64), T>,
    due: HashMap<T, (Instant, u64)>,
    failures: HashMap<T, u32>,
    serial: u64,
}

impl<T: Clone + Eq + Hash> Default for Queue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Clone + Eq + Hash> Queue<T> {
    /// An empty queue.
    pub fn new() -> Self {
        let state = State {
            ready: VecDeque::new(),
            queued: HashSet::new(),
            working: HashSet::new(),
            again: HashSet::new(),
            delayed: BTreeMap::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
            serial: 0,
        };
        Self(Arc::new(Inner { state: Mutex::new(state), wake: Notify::new() }))
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a key in line now. A key that is being worked on comes again when that work is done.
    pub fn add(&self, key: T) {
        self.state().push(key);
        self.0.wake.notify_one();
    }

    /// Puts a key in line after `delay`; the earliest of several times wins.
    pub fn add_after(&self, key: T, delay: Duration) {
        self.state().delay(key, Instant::now() + delay);
        self.0.wake.notify_one();
    }

    /// Takes the next key, waiting for one. It must be given back with [`Queue::done`] or [`Queue::failed`].
    pub async fn next(&self) -> T {
        loop {
            let wake = self.0.wake.notified();
            let deadline = {
                let mut state = self.state();
                state.promote(Instant::now());
                if let Some(key) = state.take() {
                    if !state.ready.is_empty() {
                        self.0.wake.notify_one();
                    }
                    return key;
                }
                state.delayed.keys().next().map(|(at, _)| *at)
            };
            match deadline {
                Some(at) => drop(tokio::time::timeout_at(at, wake).await),
                None => wake.await,
            }
        }
    }

    /// Says that the work on a key succeeded.
    pub fn done(&self, key: &T) {
        let mut state = self.state();
        state.failures.remove(key);
        state.finish(key);
        drop(state);
        self.0.wake.notify_one();
    }

    /// Says that the work on a key failed: it comes again after a delay that grows with each failure.
    pub fn failed(&self, key: &T) {
        let mut state = self.state();
        let failures = state.failures.entry(key.clone()).or_insert(0);
        let delay =
            MIN_BACKOFF.saturating_mul(1u32.checked_shl(*failures).unwrap_or(u32::MAX)).min(MAX_BACKOFF);
        *failures = failures.saturating_add(1);
        state.finish(key);
        state.delay(key.clone(), Instant::now() + delay);
        drop(state);
        self.0.wake.notify_one();
    }

    /// Keys in line, without those that wait for their time.
    pub fn len(&self) -> usize {
        self.state().ready.len()
    }

    /// Whether no key is in line.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T: Clone + Eq + Hash> State<T> {
    fn push(&mut self, key: T) {
        if let Some(at) = self.due.remove(&key) {
            self.delayed.remove(&at);
        }
        if self.working.contains(&key) {
            self.again.insert(key);
        } else if self.queued.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    fn delay(&mut self, key: T, at: Instant) {
        if self.queued.contains(&key) {
            return;
        }
        if let Some(earlier) = self.due.get(&key).copied() {
            if earlier.0 <= at {
                return;
            }
            self.delayed.remove(&earlier);
        }
        self.serial += 1;
        self.due.insert(key.clone(), (at, self.serial));
        self.delayed.insert((at, self.serial), key);
    }

    fn promote(&mut self, now: Instant) {
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let key = entry.remove();
            self.due.remove(&key);
            self.push(key);
        }
    }

    fn take(&mut self) -> Option<T> {
        let key = self.ready.pop_front()?;
        self.queued.remove(&key);
        self.working.insert(key.clone());
        Some(key)
    }

    fn finish(&mut self, key: &T) {
        self.working.remove(key);
        if self.again.remove(key) {
            self.push(key.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_is_in_line_once() {
        let queue = Queue::new();
        queue.add("a");
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.next().await, "a");
        assert_eq!(queue.next().await, "b");
        assert!(queue.is_empty());
    }

    #[tokio::test]
    async fn a_key_being_worked_on_waits() {
        let queue = Queue::new();
        queue.add("a");
        let key = queue.next().await;
        queue.add("a");
        assert!(queue.is_empty(), "nobody else may take it");
        queue.done(&key);
        assert_eq!(queue.next().await, "a");
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_time_wins() {
        let queue = Queue::new();
        let start = Instant::now();
        queue.add_after("a", Duration::from_secs(10));
        queue.add_after("a", Duration::from_secs(1));
        queue.add_after("a", Duration::from_secs(5));
        assert_eq!(queue.next().await, "a");
        assert_eq!(start.elapsed().as_secs(), 1);
        queue.done(&"a");
        let more = tokio::time::timeout(Duration::from_secs(60), queue.next()).await;
        assert!(more.is_err(), "the later times were replaced");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_come_back_later_and_later() {
        let queue = Queue::new();
        queue.add("a");
        let mut waits = Vec::new();
        for _ in 0..4 {
            let start = Instant::now();
            let key = queue.next().await;
            waits.push(start.elapsed());
            queue.failed(&key);
        }
        assert!(waits.windows(2).all(|w| w[0] < w[1] || w[0].is_zero()), "{waits:?}");
    }
}
