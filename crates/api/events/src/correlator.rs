//! Which events are written, and which are repetitions of others (client-go's `EventCorrelator`).

use std::collections::{HashMap, VecDeque};

use jiff::Timestamp;

use crate::Note;

/// Distinct events, and objects, that are remembered.
const REMEMBERED: usize = 1024;
/// Events per object at once; then one every five minutes (client-go's spam filter).
const BURST: f64 = 25.0;
const REFILL_PER_SECOND: f64 = 1.0 / 300.0;

/// Remembers events.
#[derive(Default)]
pub struct Correlator {
    seen: HashMap<Identity, Counted>,
    order: VecDeque<Identity>,
    budgets: HashMap<String, (f64, Timestamp)>,
}

/// What makes two events the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Identity {
    object: String,
    field: Option<String>,
    warning: bool,
    reason: String,
    message: String,
}

/// The stored event that counts for an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Its name.
    pub name: String,
    /// How often it has happened.
    pub count: i32,
}

impl Correlator {
    /// Whether the object may have one more event now.
    pub fn allows(&mut self, object: &str, now: Timestamp) -> bool {
        if self.budgets.len() >= REMEMBERED && !self.budgets.contains_key(object) {
            self.budgets.clear();
        }
        let (tokens, at) = self.budgets.entry(object.to_owned()).or_insert((BURST, now));
        let refill = now.duration_since(*at).as_secs_f64() * REFILL_PER_SECOND;
        *tokens = (*tokens + refill).min(BURST);
        *at = now;
        let allowed = *tokens >= 1.0;
        if allowed {
            *tokens -= 1.0;
        }
        allowed
    }

    /// Counts the event in.
    pub fn count(&mut self, note: &Note, now: Timestamp) -> Counted {
        let identity = Identity {
            object: object(note).to_owned(),
            field: note.object.field_path.clone(),
            warning: note.warning,
            reason: note.reason.clone(),
            message: note.message.clone(),
        };
        if let Some(seen) = self.seen.get_mut(&identity) {
            seen.count += 1;
            return seen.clone();
        }
        if self.order.len() >= REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        let stamp = u64::try_from(now.as_nanosecond()).unwrap_or_default() ^ u64::from(rand::random::<u16>());
        let base = note.object.name.as_deref().unwrap_or_default();
        let counted = Counted { name: format!("{base}.{stamp:x}"), count: 1 };
        self.order.push_back(identity.clone());
        self.seen.insert(identity, counted.clone());
        counted
    }
}

/// What tells one object from another: the UID, or the name if it has none.
pub fn object(note: &Note) -> &str {
    note.object.uid.as_deref().or(note.object.name.as_deref()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ObjectReference;

    use super::*;

    fn note(message: &str) -> Note {
        let object =
            ObjectReference { name: Some("p".into()), uid: Some("u".into()), ..ObjectReference::default() };
        Note { object, warning: false, reason: "R".into(), message: message.into() }
    }

    #[test]
    fn equal_events_count() {
        let mut correlator = Correlator::default();
        let now = Timestamp::now();
        let first = correlator.count(&note("a"), now);
        assert_eq!(correlator.count(&note("a"), now), Counted { count: 2, ..first });
        assert_eq!(correlator.count(&note("b"), now).count, 1);
        let mut other = note("a");
        other.object.field_path = Some("spec.containers{c}".into());
        assert_eq!(correlator.count(&other, now).count, 1, "another container");
    }

    #[test]
    fn floods_stop() {
        let mut correlator = Correlator::default();
        let now = Timestamp::now();
        assert_eq!((0..30).filter(|_| correlator.allows("u", now)).count(), 25);
        assert!(correlator.allows("other", now));
        let later = now + jiff::SignedDuration::from_secs(301);
        assert!(correlator.allows("u", later) && !correlator.allows("u", later));
    }

    #[test]
    fn the_oldest_is_forgotten() {
        let mut correlator = Correlator::default();
        let now = Timestamp::now();
        for number in 0..=REMEMBERED {
            correlator.count(&note(&number.to_string()), now);
        }
        assert_eq!(correlator.count(&note("1"), now).count, 2);
        assert_eq!(correlator.count(&note("0"), now).count, 1);
    }
}
