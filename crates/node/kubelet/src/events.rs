//! Events about pods and the node, folded by count and limited per object as client-go's correlator does.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::spec;

/// Events waiting to be written; more are dropped, because telling must never hold back doing.
const QUEUE: usize = 1000;
/// Distinct events remembered for counting.
const REMEMBERED: usize = 4096;
/// Events per object at once; then one every five minutes (client-go's spam filter).
const BURST: f64 = 25.0;
const REFILL_PER_SECOND: f64 = 1.0 / 300.0;

/// Writes events in the background.
#[derive(Debug, Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Record>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Record {
    namespace: String,
    kind: &'static str,
    name: String,
    uid: String,
    field: Option<String>,
    warning: bool,
    reason: String,
    message: String,
}

impl Recorder {
    /// A recorder and the task that writes for it.
    pub fn new(client: kube::Client, host: String) -> (Self, impl Future<Output = ()> + Send) {
        let (queue, records) = mpsc::channel(QUEUE);
        (Self { queue }, write(client, host, records))
    }

    /// An event about a pod, or about one of its containers.
    pub fn pod(
        &self,
        pod: &Pod,
        container: Option<&str>,
        warning: bool,
        reason: &str,
        message: impl Into<String>,
    ) {
        let field = container.map(|name| {
            let inits = pod.spec.as_ref().and_then(|s| s.init_containers.as_deref()).unwrap_or_default();
            let list = if inits.iter().any(|c| c.name == name) { "initContainers" } else { "containers" };
            format!("spec.{list}{{{name}}}")
        });
        self.send(Record {
            namespace: spec::namespace(pod).to_owned(),
            kind: "Pod",
            name: spec::name(pod).to_owned(),
            uid: spec::uid(pod).to_owned(),
            field,
            warning,
            reason: reason.to_owned(),
            message: message.into(),
        });
    }

    /// An event about the node.
    pub fn node(&self, node: &str, warning: bool, reason: &str, message: impl Into<String>) {
        self.send(Record {
            namespace: "default".into(),
            kind: "Node",
            name: node.to_owned(),
            uid: node.to_owned(),
            field: None,
            warning,
            reason: reason.to_owned(),
            message: message.into(),
        });
    }

    fn send(&self, record: Record) {
        if self.queue.try_send(record).is_err() {
            tracing::debug!("event dropped: the queue is full");
        }
    }
}

struct Seen {
    name: String,
    count: i32,
}

#[derive(Default)]
struct Correlator {
    seen: BTreeMap<Record, Seen>,
    order: VecDeque<Record>,
    budgets: BTreeMap<String, (f64, Timestamp)>,
}

impl Correlator {
    /// Whether the object may have one more event now.
    fn allows(&mut self, uid: &str, now: Timestamp) -> bool {
        if self.budgets.len() > REMEMBERED {
            self.budgets.clear();
        }
        let (tokens, at) = self.budgets.entry(uid.to_owned()).or_insert((BURST, now));
        let refill = now.duration_since(*at).as_secs_f64() * REFILL_PER_SECOND;
        *tokens = (*tokens + refill).min(BURST);
        *at = now;
        let allowed = *tokens >= 1.0;
        if allowed {
            *tokens -= 1.0;
        }
        allowed
    }

    /// Counts the event: `(name, count)`.
    fn count(&mut self, record: &Record, now: Timestamp) -> (String, i32) {
        if let Some(seen) = self.seen.get_mut(record) {
            seen.count += 1;
            return (seen.name.clone(), seen.count);
        }
        if self.order.len() >= REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        let stamp = u64::try_from(now.as_nanosecond()).unwrap_or_default() ^ u64::from(rand::random::<u16>());
        let name = format!("{}.{stamp:x}", record.name);
        self.order.push_back(record.clone());
        self.seen.insert(record.clone(), Seen { name: name.clone(), count: 1 });
        (name, 1)
    }
}

async fn write(client: kube::Client, host: String, mut records: mpsc::Receiver<Record>) {
    let mut correlator = Correlator::default();
    while let Some(record) = records.recv().await {
        let now = Timestamp::now();
        if !correlator.allows(&record.uid, now) {
            continue;
        }
        let (name, count) = correlator.count(&record, now);
        let api: Api<Event> = Api::namespaced(client.clone(), &record.namespace);
        let result = if count > 1 {
            let patch = serde_json::json!({"count": count, "lastTimestamp": Time(now)});
            api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
        } else {
            Ok(())
        };
        // The event may have expired since it was counted: then it is made anew.
        let gone = matches!(&result, Err(kube::Error::Api(status)) if status.code == 404);
        if count == 1 || gone {
            let event = event(&record, &name, count, &host, now);
            if let Err(error) = api.create(&PostParams::default(), &event).await {
                tracing::debug!(%error, reason = record.reason, "event not stored");
            }
        }
    }
}

fn event(record: &Record, name: &str, count: i32, host: &str, now: Timestamp) -> Event {
    Event {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(record.namespace.clone()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".into()),
            kind: Some(record.kind.into()),
            name: Some(record.name.clone()),
            namespace: (record.kind == "Pod").then(|| record.namespace.clone()),
            uid: Some(record.uid.clone()),
            field_path: record.field.clone(),
            resource_version: None,
        },
        reason: Some(record.reason.clone()),
        message: Some(record.message.clone()),
        type_: Some(if record.warning { "Warning" } else { "Normal" }.into()),
        count: Some(count),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        source: Some(EventSource { component: Some("kubelet".into()), host: Some(host.to_owned()) }),
        reporting_component: Some("kubelet".into()),
        reporting_instance: Some(host.to_owned()),
        ..Event::default()
    }
}

/// Runs the writer until cancelled.
pub(crate) async fn run(writer: impl Future<Output = ()>, cancel: CancellationToken) {
    tokio::select! {
        () = writer => {}
        () = cancel.cancelled() => {}
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn equal_events_count_and_floods_stop() {
        let record = |message: &str| Record {
            namespace: "n".into(),
            kind: "Pod",
            name: "p".into(),
            uid: "u".into(),
            field: None,
            warning: false,
            reason: "R".into(),
            message: message.into(),
        };
        let mut correlator = Correlator::default();
        let now = Timestamp::now();
        let first = correlator.count(&record("a"), now);
        assert_eq!(correlator.count(&record("a"), now), (first.0, 2));
        assert_eq!(correlator.count(&record("b"), now).1, 1);
        assert_eq!((0..30).filter(|_| correlator.allows("u", now)).count(), 25);
        assert!(correlator.allows("other", now));
    }
}
