//! Lists in pages: a continue token names the state of the first page, which is kept for a while.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use xebec_types::Status;

use crate::cache::Entry;

/// How long a state is kept after its last use; upstream's compaction interval.
const KEEP: Duration = Duration::from_secs(300);
/// How many states are kept.
const MAX_STATES: usize = 128;

/// Objects of one list at one revision, in key order.
pub type Objects = Arc<[Arc<Entry>]>;

/// Which list a state belongs to: revision, and prefix of the keys.
type Key = (u64, String);

/// The states that continue tokens refer to.
#[derive(Default)]
pub struct Pages(Mutex<HashMap<Key, (Objects, Instant)>>);

/// A continue token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    #[serde(rename = "v")]
    version: String,
    /// The state; 0 takes up an expired list at whatever the state is now.
    #[serde(rename = "rv")]
    pub revision: u64,
    /// The last key of the page before, below the prefix.
    #[serde(rename = "start")]
    pub start: String,
}

impl Token {
    /// A token for what comes after `start`.
    pub fn new(revision: u64, start: &str) -> Self {
        Self { version: "meta.k8s.io/v1".into(), revision, start: start.into() }
    }

    /// As it is sent.
    pub fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).expect("invariant: strings and numbers serialize"))
    }

    /// As it was sent.
    ///
    /// # Errors
    /// 400.
    pub fn decode(text: &str) -> Result<Self, Status> {
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok();
        let token = bytes.and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok());
        token
            .filter(|token| token.version == "meta.k8s.io/v1")
            .ok_or_else(|| Status::bad_request("continue key is not valid: the token cannot be read"))
    }
}

impl Pages {
    /// Keeps a state for the pages to come.
    pub fn keep(&self, revision: u64, prefix: &str, objects: Objects) {
        let mut states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        states.retain(|_, (_, used)| used.elapsed() < KEEP);
        if states.len() >= MAX_STATES {
            let oldest = states.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| key.clone());
            oldest.map(|key| states.remove(&key));
        }
        states.insert((revision, prefix.into()), (objects, Instant::now()));
    }

    /// The state of a token, if it is still there.
    pub fn get(&self, revision: u64, prefix: &str) -> Option<Objects> {
        let mut states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (objects, used) = states.get_mut(&(revision, prefix.to_owned()))?;
        if used.elapsed() >= KEEP {
            return None;
        }
        *used = Instant::now();
        Some(objects.clone())
    }

    /// Forgets a state whose last page was served.
    pub fn finish(&self, revision: u64, prefix: &str) {
        let mut states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        states.retain(|_, (_, used)| used.elapsed() < KEEP);
        states.remove(&(revision, prefix.to_owned()));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_wire() {
        let token = Token::new(7, "ns/name");
        assert_eq!(Token::decode(&token.encode()).unwrap(), token);
        assert_eq!(Token::decode("!!").unwrap_err().code, 400);
    }

    #[test]
    fn states_are_bounded() {
        let pages = Pages::default();
        for revision in 0..2 * MAX_STATES as u64 {
            pages.keep(revision, "/registry/pods/", Arc::new([]));
        }
        assert_eq!(pages.0.lock().unwrap().len(), MAX_STATES);
        assert!(pages.get(2 * MAX_STATES as u64 - 1, "/registry/pods/").is_some());
        assert!(pages.get(0, "/registry/pods/").is_none());
    }
}
