//! Objects on their way through the store: who wrote one hands it to the cache beside the bytes, so that the cache
//! need not parse what the same process has just written.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde_json::Value;

/// The objects, by the address of the bytes that they became. A store that answers with other bytes (of another
/// process, or decrypted ones) finds nothing here, and the cache parses them.
#[derive(Debug, Default)]
pub struct Flight(Mutex<HashMap<usize, Value>>);

/// Keeps an object in flight. Dropped when the write has been applied or has failed.
#[derive(Debug)]
pub struct Boarded<'a> {
    flight: &'a Flight,
    /// Held so that no other bytes can have the address.
    plain: Bytes,
}

impl Flight {
    /// Takes along the object that `plain` was made of.
    pub fn board(&self, plain: Bytes, object: Value) -> Boarded<'_> {
        self.lock().insert(address(&plain), object);
        Boarded { flight: self, plain }
    }

    /// The object that these very bytes were made of, at most once.
    pub fn land(&self, plain: &Bytes) -> Option<Value> {
        self.lock().remove(&address(plain))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<usize, Value>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Boarded<'_> {
    fn drop(&mut self) {
        self.flight.land(&self.plain);
    }
}

fn address(plain: &Bytes) -> usize {
    plain.as_ptr() as usize
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_lands_once_and_only_by_its_own_bytes() {
        let flight = Flight::default();
        let plain = Bytes::from(b"{}".to_vec());
        let boarded = flight.board(plain.clone(), json!({"a": 1}));
        assert_eq!(flight.land(&Bytes::from(b"{}".to_vec())), None, "equal bytes, but not these");
        assert_eq!(flight.land(&plain), Some(json!({"a": 1})));
        assert_eq!(flight.land(&plain), None);
        drop(boarded);
    }

    #[test]
    fn a_failed_write_leaves_nothing() {
        let flight = Flight::default();
        let plain = Bytes::from(b"{}".to_vec());
        drop(flight.board(plain.clone(), json!({})));
        assert_eq!(flight.land(&plain), None);
    }
}
