//! What a controller has asked for but its informer has not seen yet.
//!
//! An informer lags behind the writes of its own process. A controller that creates pods must not count them as
//! missing until they show up, or it creates them again; so it waits until everything it asked for has been
//! observed (upstream's `ControllerExpectations`).

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use xebec_reconcile::Key;

/// After this long an expectation is given up: something was lost, and acting twice is better than never.
const TIMEOUT: Duration = Duration::from_secs(300);

#[derive(Debug)]
struct Expected {
    creations: usize,
    deletions: HashSet<String>,
    since: Instant,
}

/// Outstanding creations (counted) and deletions (by UID) per controller object.
#[derive(Debug, Default)]
pub struct Expectations(Mutex<HashMap<Key, Expected>>);

impl Expectations {
    /// Notes what is about to be asked for. Replaces what was noted before.
    pub fn expect(&self, key: &Key, creations: usize, deletions: impl IntoIterator<Item = String>) {
        let expected =
            Expected { creations, deletions: deletions.into_iter().collect(), since: Instant::now() };
        self.with(|map| map.insert(key.clone(), expected));
    }

    /// Whether everything asked for has been seen.
    pub fn satisfied(&self, key: &Key) -> bool {
        self.with(|map| {
            map.get(key)
                .is_none_or(|e| (e.creations == 0 && e.deletions.is_empty()) || e.since.elapsed() > TIMEOUT)
        })
    }

    /// A creation has been seen, or has failed.
    pub fn created(&self, key: &Key) {
        self.with(|map| {
            if let Some(e) = map.get_mut(key) {
                e.creations = e.creations.saturating_sub(1);
            }
        });
    }

    /// A deletion has been seen, or has failed.
    pub fn deleted(&self, key: &Key, uid: &str) {
        self.with(|map| {
            if let Some(e) = map.get_mut(key) {
                e.deletions.remove(uid);
            }
        });
    }

    /// Forgets a controller object that is gone.
    pub fn forget(&self, key: &Key) {
        self.with(|map| map.remove(key));
    }

    fn with<T>(&self, f: impl FnOnce(&mut HashMap<Key, Expected>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_asked_for_must_be_seen() {
        let (expectations, key) = (Expectations::default(), Key::new("default", "web"));
        assert!(expectations.satisfied(&key));
        expectations.expect(&key, 2, ["u1".to_owned()]);
        expectations.created(&key);
        expectations.deleted(&key, "u1");
        assert!(!expectations.satisfied(&key));
        expectations.created(&key);
        assert!(expectations.satisfied(&key));
    }
}
