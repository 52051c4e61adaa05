//! Pods that wait for a node: in line, held back for a while, or parked until something changes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use xebec_reconcile::Key;

use crate::events::ClusterEvent;
use crate::plugins;
use crate::pod::PodInfo;

/// Shortest time between two attempts for a pod; doubled with each up to [`MAX_BACKOFF`] (as upstream).
const MIN_BACKOFF: Duration = Duration::from_secs(1);
/// Longest such time.
const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// Parked pods are tried again after this even if nothing seems to have changed, should an event have been
/// misjudged.
const MAX_PARKED: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// In line.
    Ready(Rank),
    /// Held back until the timer, or until nobody is in line. One without a rank waits for its timer whatever happens.
    Backoff(Option<Rank>),
    /// Parked until an event helps one of these plugins, or until the timer.
    Parked(Vec<&'static str>),
    /// Waits for its scheduling gates, which only a change of the pod removes.
    Gated,
    /// Being bound.
    Bound,
}

/// Higher priority first, then who came first.
type Rank = (std::cmp::Reverse<i32>, u64);

#[derive(Debug)]
struct Entry {
    pod: Arc<PodInfo>,
    place: Place,
    attempts: u32,
    not_before: Option<Instant>,
    timer: Option<(Instant, u64)>,
}

/// The queue. It holds as many pods as there are without a node.
#[derive(Debug, Default)]
pub struct Pending {
    entries: HashMap<Key, Entry>,
    ready: BTreeSet<(Rank, Key)>,
    /// Pods held back that come early when nobody is in line.
    early: BTreeSet<(Rank, Key)>,
    timers: BTreeMap<(Instant, u64), Key>,
    parked: HashSet<Key>,
    serial: u64,
}

impl Pending {
    /// A pod that is new or has changed.
    pub fn upsert(&mut self, pod: Arc<PodInfo>) {
        let key = pod.key.clone();
        let gated = pod.is_gated();
        let lines_up = match self.entries.get_mut(&key) {
            Some(entry) if entry.pod.uid() == pod.uid() => {
                let changed = matters(&entry.pod, &pod);
                entry.pod = pod;
                match &entry.place {
                    Place::Gated if gated => return,
                    Place::Parked(_) if !changed => return,
                    Place::Ready(_) | Place::Backoff(_) | Place::Bound => return,
                    Place::Gated | Place::Parked(_) => true,
                }
            }
            _ => {
                self.remove(&key);
                let entry = Entry { pod, place: Place::Gated, attempts: 0, not_before: None, timer: None };
                self.entries.insert(key.clone(), entry);
                !gated
            }
        };
        if lines_up {
            self.line_up(&key, true);
        }
    }

    /// A pod that is gone or has a node.
    pub fn remove(&mut self, key: &Key) {
        self.leave(key);
        self.entries.remove(key);
    }

    /// Takes the next pod; it counts as being bound until it is parked, retried or removed. When nobody is in line,
    /// one that is held back comes early (KEP-5142).
    pub fn pop(&mut self, now: Instant) -> Option<Arc<PodInfo>> {
        self.expire(now);
        let (_, key) = self.ready.first().or_else(|| self.early.first())?.clone();
        self.leave(&key);
        let entry = self.entries.get_mut(&key)?;
        entry.place = Place::Bound;
        entry.attempts += 1;
        Some(entry.pod.clone())
    }

    /// Whether a pod still waits for a node, and none has been chosen for it.
    pub fn waits(&self, pod: &PodInfo) -> bool {
        let entry = self.entries.get(&pod.key).filter(|entry| entry.pod.uid() == pod.uid());
        entry.is_some_and(|entry| !matches!(entry.place, Place::Bound))
    }

    /// When the next pod that is held back or parked comes in line.
    pub fn next_timer(&self) -> Option<Instant> {
        self.timers.keys().next().map(|(at, _)| *at)
    }

    /// Parks a pod that fits nowhere until something changes for one of these plugins.
    pub fn park(&mut self, key: &Key, plugins: Vec<&'static str>, now: Instant) {
        self.leave(key);
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.not_before = Some(now + backoff(entry.attempts));
        entry.place = Place::Parked(plugins);
        self.set_timer(key, now + MAX_PARKED);
        self.parked.insert(key.clone());
    }

    /// Tries a pod again after a while: binding it failed.
    pub fn retry(&mut self, key: &Key, now: Instant) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.not_before = Some(now + backoff(entry.attempts));
        self.line_up(key, false);
    }

    /// Wakes the parked pods that an event may help.
    pub fn wake(&mut self, event: ClusterEvent) {
        let helped = |key: &&Key| match self.entries.get(*key).map(|entry| &entry.place) {
            Some(Place::Parked(refused_by)) => plugins::helps(event, refused_by),
            _ => false,
        };
        let keys: Vec<Key> = self.parked.iter().filter(helped).cloned().collect();
        for key in keys {
            self.line_up(&key, true);
        }
    }

    /// Pods in line.
    #[cfg(test)]
    pub fn ready_len(&self) -> usize {
        self.ready.len()
    }

    /// In line at once, or when its time has come; with `may_come_early` also when nobody is in line.
    fn line_up(&mut self, key: &Key, may_come_early: bool) {
        self.leave(key);
        self.serial += 1;
        let Some(entry) = self.entries.get_mut(key) else { return };
        let rank = (std::cmp::Reverse(entry.pod.priority), self.serial);
        if let Some(at) = entry.not_before.filter(|at| *at > Instant::now()) {
            entry.place = Place::Backoff(may_come_early.then_some(rank));
            self.set_timer(key, at);
            if may_come_early {
                self.early.insert((rank, key.clone()));
            }
            return;
        }
        entry.place = Place::Ready(rank);
        self.ready.insert((rank, key.clone()));
    }

    fn leave(&mut self, key: &Key) {
        self.parked.remove(key);
        let Some(entry) = self.entries.get_mut(key) else { return };
        match entry.place {
            Place::Ready(rank) => self.ready.remove(&(rank, key.clone())),
            Place::Backoff(Some(rank)) => self.early.remove(&(rank, key.clone())),
            _ => false,
        };
        if let Some(timer) = entry.timer.take() {
            self.timers.remove(&timer);
        }
    }

    fn set_timer(&mut self, key: &Key, at: Instant) {
        self.leave(key);
        self.serial += 1;
        if let Some(entry) = self.entries.get_mut(key) {
            entry.timer = Some((at, self.serial));
            self.timers.insert((at, self.serial), key.clone());
        }
    }

    fn expire(&mut self, now: Instant) {
        while let Some(first) = self.timers.first_entry() {
            if first.key().0 > now {
                break;
            }
            let key = first.remove();
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.timer = None;
                entry.not_before = None;
            }
            self.line_up(&key, true);
        }
    }
}

/// Whether a change of a waiting pod may make it fit: not a change of its status.
fn matters(old: &PodInfo, new: &PodInfo) -> bool {
    old.spec() != new.spec() || old.labels != new.labels
}

fn backoff(attempts: u32) -> Duration {
    let factor = 1u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
    MIN_BACKOFF.saturating_mul(factor).min(MAX_BACKOFF)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::pod;

    fn popped(queue: &mut Pending) -> Option<String> {
        queue.pop(Instant::now()).map(|pod| pod.key.name.clone())
    }

    #[tokio::test(start_paused = true)]
    async fn important_pods_come_first_then_older_ones() {
        let mut queue = Pending::default();
        queue.upsert(pod("a", json!({})));
        queue.upsert(pod("b", json!({})));
        queue.upsert(pod("vip", json!({"priority": 1000})));
        let order: Vec<_> = std::iter::from_fn(|| popped(&mut queue)).collect();
        assert_eq!(order, ["vip", "a", "b"]);
    }

    #[tokio::test(start_paused = true)]
    async fn parked_pods_wait_for_events_that_help() {
        let mut queue = Pending::default();
        let waiting = pod("a", json!({}));
        queue.upsert(waiting.clone());
        queue.pop(Instant::now()).unwrap();
        queue.park(&waiting.key, vec!["NodeResourcesFit"], Instant::now());
        queue.wake(ClusterEvent::NodeLabels);
        tokio::time::advance(MAX_BACKOFF).await;
        assert_eq!(popped(&mut queue), None, "labels do not make room");
        queue.wake(ClusterEvent::PodRemoved);
        assert_eq!(popped(&mut queue).as_deref(), Some("a"));

        queue.park(&waiting.key, vec!["NodeResourcesFit"], Instant::now());
        tokio::time::advance(MAX_PARKED).await;
        assert_eq!(popped(&mut queue).as_deref(), Some("a"), "parking ends by itself");
    }

    #[tokio::test(start_paused = true)]
    async fn pods_that_are_held_back_come_early_when_nobody_is_in_line() {
        let mut queue = Pending::default();
        let (held, vip) = (pod("held", json!({})), pod("vip", json!({"priority": 9})));
        for waiting in [&held, &vip] {
            queue.upsert(waiting.clone());
            queue.pop(Instant::now()).unwrap();
        }
        for waiting in [&held, &vip] {
            queue.park(&waiting.key, vec!["NodeResourcesFit"], Instant::now());
        }
        queue.wake(ClusterEvent::PodRemoved);
        queue.upsert(pod("new", json!({})));
        assert_eq!(queue.next_timer(), Some(Instant::now() + Duration::from_secs(1)));
        let order: Vec<_> = std::iter::from_fn(|| popped(&mut queue)).collect();
        assert_eq!(order, ["new", "vip", "held"], "whoever is in line first, then the more important");
        assert_eq!(queue.next_timer(), None);

        queue.park(&held.key, vec!["NodeResourcesFit"], Instant::now());
        queue.wake(ClusterEvent::PodRemoved);
        queue.upsert(pod("other", json!({})));
        let second = Instant::now() + Duration::from_secs(2);
        assert_eq!(queue.next_timer(), Some(second), "the second attempt waits two seconds");
        tokio::time::advance(Duration::from_secs(2)).await;
        queue.upsert(pod("late", json!({})));
        let order: Vec<_> = std::iter::from_fn(|| popped(&mut queue)).collect();
        assert_eq!(order, ["other", "late", "held"], "its time has come: in line behind those before it");
    }

    #[tokio::test(start_paused = true)]
    async fn gated_pods_wait_for_their_gates() {
        let mut queue = Pending::default();
        queue.upsert(pod("a", json!({"schedulingGates": [{"name": "g"}]})));
        queue.wake(ClusterEvent::NodeAdded);
        assert_eq!(popped(&mut queue), None);
        queue.upsert(pod("a", json!({})));
        assert_eq!(popped(&mut queue).as_deref(), Some("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn failed_bindings_come_back() {
        let mut queue = Pending::default();
        let waiting = pod("a", json!({}));
        queue.upsert(waiting.clone());
        queue.pop(Instant::now()).unwrap();
        queue.retry(&waiting.key, Instant::now());
        assert_eq!(popped(&mut queue), None, "an error is not undone by anything that happens");
        assert_eq!((queue.ready_len(), queue.next_timer().is_some()), (0, true));
        queue.remove(&waiting.key);
        assert_eq!(queue.next_timer(), None);
    }
}
