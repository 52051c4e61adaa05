//! Pools of what Services take: addresses and node ports.
//!
//! Nothing is kept beside the store: a pool learns from [`Pool::observed`] what stored objects hold, and a write in
//! flight holds a [`Reservation`] until its object is observed.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::Allocation;

/// What is taken and by how many stored objects, and what writes in flight hold.
pub(crate) struct Pool<K>(Mutex<State<K>>);

struct State<K> {
    used: HashMap<K, usize>,
    pending: HashMap<K, Pending>,
}

/// A reservation ends when its write is stored *and* its object is observed, in whichever order.
#[derive(Default)]
struct Pending {
    committed: bool,
    seen: bool,
}

impl<K> Default for Pool<K> {
    fn default() -> Self {
        Self(Mutex::new(State { used: HashMap::new(), pending: HashMap::new() }))
    }
}

impl<K: Hash + Eq + Copy> Pool<K> {
    fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes `key` if it is free.
    pub(crate) fn reserve(&self, key: K) -> bool {
        let mut state = self.lock();
        if state.used.contains_key(&key) || state.pending.contains_key(&key) {
            return false;
        }
        state.pending.insert(key, Pending::default());
        true
    }

    /// Whether `key` is free, without taking it.
    #[cfg(test)]
    pub(crate) fn is_free(&self, key: K) -> bool {
        let state = self.lock();
        !state.used.contains_key(&key) && !state.pending.contains_key(&key)
    }

    /// A stored object changed from holding `old` to holding `new`.
    pub(crate) fn observed(&self, old: &[K], new: &[K]) {
        let mut state = self.lock();
        for key in new {
            *state.used.entry(*key).or_insert(0) += 1;
            if let Some(pending) = state.pending.get_mut(key) {
                pending.seen = true;
                if pending.committed {
                    state.pending.remove(key);
                }
            }
        }
        for key in old {
            if let Some(count) = state.used.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    state.used.remove(key);
                }
            }
        }
    }

    fn commit(&self, key: K) {
        let mut state = self.lock();
        if let Some(pending) = state.pending.get_mut(&key) {
            pending.committed = true;
            if pending.seen {
                state.pending.remove(&key);
            }
        }
    }

    fn release(&self, key: K) {
        self.lock().pending.remove(&key);
    }
}

/// What one write has taken out of both pools.
pub(crate) struct Reservation {
    /// The pools.
    pub(crate) pools: Arc<Pools>,
    /// Addresses taken.
    pub(crate) addresses: Vec<std::net::IpAddr>,
    /// Node ports taken.
    pub(crate) ports: Vec<u16>,
    kept: bool,
}

/// Both pools.
#[derive(Default)]
pub(crate) struct Pools {
    /// Cluster addresses.
    pub(crate) addresses: Pool<std::net::IpAddr>,
    /// Node ports; one number serves all protocols of one Service.
    pub(crate) ports: Pool<u16>,
}

impl Reservation {
    /// Nothing taken yet.
    pub(crate) fn new(pools: Arc<Pools>) -> Self {
        Self { pools, addresses: Vec::new(), ports: Vec::new(), kept: false }
    }
}

impl Allocation for Reservation {
    fn keep(mut self: Box<Self>) {
        self.kept = true;
        self.addresses.iter().for_each(|ip| self.pools.addresses.commit(*ip));
        self.ports.iter().for_each(|port| self.pools.ports.commit(*port));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.kept {
            self.addresses.iter().for_each(|ip| self.pools.addresses.release(*ip));
            self.ports.iter().for_each(|port| self.pools.ports.release(*port));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reservation_ends_when_stored_and_seen_in_any_order() {
        for seen_first in [true, false] {
            let pools = Arc::new(Pools::default());
            let mut taken = Box::new(Reservation::new(pools.clone()));
            assert!(pools.ports.reserve(30000));
            taken.ports.push(30000);
            if seen_first {
                pools.ports.observed(&[], &[30000]);
                taken.keep();
            } else {
                taken.keep();
                pools.ports.observed(&[], &[30000]);
            }
            assert!(!pools.ports.is_free(30000));
            pools.ports.observed(&[30000], &[]);
            assert!(pools.ports.is_free(30000), "seen first: {seen_first}");
        }
    }

    #[test]
    fn a_failed_write_gives_back() {
        let pools = Arc::new(Pools::default());
        let mut taken = Reservation::new(pools.clone());
        assert!(pools.ports.reserve(30001) && !pools.ports.reserve(30001));
        taken.ports.push(30001);
        drop(taken);
        assert!(pools.ports.is_free(30001));
    }

    #[test]
    fn an_update_that_keeps_its_port_holds_it() {
        let pools = Pools::default();
        pools.ports.observed(&[], &[30002]);
        pools.ports.observed(&[30002], &[30002]);
        assert!(!pools.ports.is_free(30002));
    }
}
