//! From a request to a response: our own zone at once, the rest through the cache and upstream.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use hickory_proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};
use tokio::time::Instant;

use crate::cache::{Cache, Question};
use crate::index::Index;
use crate::message::response;
use crate::upstream::Forwarder;
use crate::zone::{Answer, Zone};

/// Aliases that are followed before giving up.
const MAX_ALIASES: usize = 8;

/// What to do with a request.
#[derive(Debug)]
pub enum Outcome {
    /// Send this.
    Done(Message),
    /// Ask upstream about the name; the records found so far come first.
    Ask(Name, Vec<Record>),
}

/// Counters since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StatsSnapshot {
    /// Requests that could be read.
    pub requests: u64,
    /// Questions that went upstream.
    pub forwarded: u64,
    /// Questions about the rest of the world that the cache answered.
    pub cached: u64,
    /// Requests answered with SERVFAIL.
    pub failed: u64,
}

#[derive(Debug, Default)]
struct Stats {
    requests: AtomicU64,
    forwarded: AtomicU64,
    cached: AtomicU64,
    failed: AtomicU64,
}

/// Answers requests.
#[derive(Debug)]
pub struct Resolver {
    zone: Zone,
    /// What the API says.
    pub index: RwLock<Index>,
    complete: AtomicBool,
    forwarder: Forwarder,
    cache: Cache,
    stats: Stats,
}

impl Resolver {
    /// A resolver with an empty index, which answers for the zone only after [`Resolver::set_complete`].
    pub fn new(zone: Zone, forwarder: Forwarder) -> Self {
        Self {
            zone,
            index: RwLock::default(),
            complete: AtomicBool::new(false),
            forwarder,
            cache: Cache::default(),
            stats: Stats::default(),
        }
    }

    /// The index holds everything now: names that are not in it do not exist.
    pub fn set_complete(&self) {
        self.complete.store(true, Ordering::Release);
    }

    /// The counters.
    pub fn stats(&self) -> StatsSnapshot {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StatsSnapshot {
            requests: get(&self.stats.requests),
            forwarded: get(&self.stats.forwarded),
            cached: get(&self.stats.cached),
            failed: get(&self.stats.failed),
        }
    }

    /// Answers from what is in memory, or says what must be asked.
    pub fn begin(&self, request: &Message) -> Outcome {
        self.stats.requests.fetch_add(1, Ordering::Relaxed);
        let query = match check(request) {
            Ok(query) => query,
            Err(code) => return Outcome::Done(response(request, code)),
        };
        let (mut name, mut chain) = (query.name().clone(), Vec::new());
        for _ in 0..MAX_ALIASES {
            // Names of ours that nobody has told us of yet are not unknown.
            if self.zone.contains(&name) && !self.complete.load(Ordering::Acquire) {
                return Outcome::Done(self.failure(request));
            }
            let answer = {
                let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
                self.zone.answer(&index, &name, query.query_type())
            };
            match answer {
                Answer::Alias(alias) => {
                    let (record, target) = *alias;
                    chain.push(record);
                    if query.query_type() == RecordType::CNAME {
                        return Outcome::Done(positive(request, chain, Vec::new()));
                    }
                    name = target;
                }
                Answer::Records(mut answers, more) => {
                    let turn = rand::random_range(0..answers.len().max(1));
                    answers.rotate_left(turn);
                    chain.extend(answers);
                    return Outcome::Done(positive(request, chain, more));
                }
                Answer::NoData => return Outcome::Done(self.negative(request, ResponseCode::NoError, chain)),
                Answer::NxDomain => {
                    return Outcome::Done(self.negative(request, ResponseCode::NXDomain, chain));
                }
                Answer::NotOurs => return self.ask_cache(request, name, chain),
            }
        }
        Outcome::Done(self.failure(request))
    }

    fn ask_cache(&self, request: &Message, name: Name, chain: Vec<Record>) -> Outcome {
        match self.cache.get(&question(request, &name), Instant::now()) {
            Some(found) => {
                self.stats.cached.fetch_add(1, Ordering::Relaxed);
                Outcome::Done(relayed(request, found, chain))
            }
            None => Outcome::Ask(name, chain),
        }
    }

    /// Goes on upstream.
    pub async fn finish(&self, request: &Message, name: Name, chain: Vec<Record>) -> Message {
        self.stats.forwarded.fetch_add(1, Ordering::Relaxed);
        let question = question(request, &name);
        match self.forwarder.ask(&Query::query(name, question.kind), question.dnssec).await {
            Ok(found) => {
                self.cache.put(question, &found, Instant::now());
                relayed(request, found, chain)
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::debug!(name = %question.name, error, "upstream gave no answer");
                // The alias itself is true whoever fails behind it.
                if chain.is_empty() { self.failure(request) } else { positive(request, chain, Vec::new()) }
            }
        }
    }

    /// SERVFAIL.
    pub fn failure(&self, request: &Message) -> Message {
        self.stats.failed.fetch_add(1, Ordering::Relaxed);
        response(request, ResponseCode::ServFail)
    }

    fn negative(&self, request: &Message, code: ResponseCode, chain: Vec<Record>) -> Message {
        let mut message = response(request, code);
        message.metadata.authoritative = true;
        message.answers = chain;
        message.authorities.push(self.zone.soa());
        message
    }
}

/// The one question of a request that can be answered at all.
fn check(request: &Message) -> Result<&Query, ResponseCode> {
    if request.metadata.op_code != OpCode::Query {
        return Err(ResponseCode::NotImp);
    }
    if request.version() > 0 && request.edns.is_some() {
        return Err(ResponseCode::BADVERS);
    }
    let [query] = request.queries.as_slice() else { return Err(ResponseCode::FormErr) };
    let refused = matches!(query.query_type(), RecordType::AXFR | RecordType::IXFR);
    if query.query_class() != DNSClass::IN || refused {
        return Err(ResponseCode::Refused);
    }
    Ok(query)
}

fn question(request: &Message, name: &Name) -> Question {
    let kind = request.queries.first().map_or(RecordType::A, Query::query_type);
    let dnssec = request.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok);
    Question { name: name.clone(), kind, dnssec }
}

fn positive(request: &Message, answers: Vec<Record>, more: Vec<Record>) -> Message {
    let mut message = response(request, ResponseCode::NoError);
    message.metadata.authoritative = true;
    message.answers = answers;
    message.additionals = more;
    message
}

/// An upstream answer under the client's own ID, question and EDNS.
fn relayed(request: &Message, found: Message, chain: Vec<Record>) -> Message {
    let mut message = response(request, found.metadata.response_code);
    message.metadata.authoritative = false;
    message.metadata.authentic_data = found.metadata.authentic_data;
    message.answers = chain;
    message.answers.extend(found.answers);
    message.authorities = found.authorities;
    message.additionals = found.additionals;
    message
}
