//! Answers of the upstream resolvers, kept for a short while.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::time::Instant;

/// Most answers that are kept.
const CAPACITY: usize = 10_000;
/// Longest time that an answer is kept, in seconds, whatever it says itself: what cluster DNS is commonly
/// deployed with.
const MOST_SECONDS: u32 = 30;

/// What makes two questions the same. Names compare without regard to case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Question {
    /// Name.
    pub name: Name,
    /// Type.
    pub kind: RecordType,
    /// Whether signatures are wanted too.
    pub dnssec: bool,
}

#[derive(Debug)]
struct Entry {
    message: Message,
    stored: Instant,
    expires: Instant,
}

/// The cache.
#[derive(Debug, Default)]
pub struct Cache(Mutex<HashMap<Question, Entry>>);

impl Cache {
    /// A stored answer with what is left of its times to live.
    pub fn get(&self, question: &Question, now: Instant) -> Option<Message> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(question).filter(|entry| entry.expires > now)?;
        let (mut message, age) = (entry.message.clone(), now.duration_since(entry.stored));
        drop(entries);
        let age = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
        for record in
            message.answers.iter_mut().chain(&mut message.authorities).chain(&mut message.additionals)
        {
            record.decrement_ttl(age);
        }
        Some(message)
    }

    /// Stores an answer for as long as it says, at most [`MOST_SECONDS`].
    pub fn put(&self, question: Question, message: &Message, now: Instant) {
        let seconds = seconds(message).min(MOST_SECONDS);
        if seconds == 0 {
            return;
        }
        let expires = now + Duration::from_secs(u64::from(seconds));
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= CAPACITY {
            entries.retain(|_, entry| entry.expires > now);
        }
        if entries.len() >= CAPACITY {
            let mut keep = false;
            entries.retain(|_, _| {
                keep = !keep;
                keep
            });
        }
        entries.insert(question, Entry { message: message.clone(), stored: now, expires });
    }
}

/// How long a message may be kept; a negative answer as long as its SOA says (RFC 2308).
fn seconds(message: &Message) -> u32 {
    if message.metadata.truncation {
        return 0;
    }
    let positive = message.metadata.response_code == ResponseCode::NoError && !message.answers.is_empty();
    if positive {
        return message.answers.iter().map(|r| r.ttl).min().unwrap_or(0);
    }
    if !matches!(message.metadata.response_code, ResponseCode::NoError | ResponseCode::NXDomain) {
        return 0;
    }
    let soa = message.authorities.iter().find_map(|record| match &record.data {
        RData::SOA(soa) => Some(soa.minimum.min(record.ttl)),
        _ => None,
    });
    soa.unwrap_or(0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use hickory_proto::op::OpCode;
    use hickory_proto::rr::Record;
    use hickory_proto::rr::rdata::A;

    use super::*;

    fn question(name: &str) -> Question {
        Question { name: Name::from_ascii(name).unwrap(), kind: RecordType::A, dnssec: false }
    }

    fn answer(ttl: u32) -> Message {
        let mut message = Message::response(1, OpCode::Query);
        let data = RData::A(A("1.2.3.4".parse().unwrap()));
        message.add_answer(Record::from_rdata(Name::from_ascii("a.example.").unwrap(), ttl, data));
        message
    }

    #[tokio::test(start_paused = true)]
    async fn answers_age() {
        let cache = Cache::default();
        cache.put(question("a.example."), &answer(300), Instant::now());
        tokio::time::advance(Duration::from_secs(10)).await;
        let found = cache.get(&question("A.Example."), Instant::now()).unwrap();
        assert_eq!(found.answers[0].ttl, 290);
        tokio::time::advance(Duration::from_secs(20)).await;
        assert!(cache.get(&question("a.example."), Instant::now()).is_none(), "30 s are the most");
    }

    #[tokio::test(start_paused = true)]
    async fn the_cache_is_bounded() {
        let cache = Cache::default();
        for i in 0..CAPACITY + 10 {
            cache.put(question(&format!("n{i}.example.")), &answer(30), Instant::now());
        }
        assert!(cache.0.lock().unwrap().len() <= CAPACITY);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_not_kept() {
        let cache = Cache::default();
        let failed = Message::error_msg(1, OpCode::Query, ResponseCode::ServFail);
        cache.put(question("a.example."), &failed, Instant::now());
        assert!(cache.get(&question("a.example."), Instant::now()).is_none());
    }
}
