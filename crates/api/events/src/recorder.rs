//! The recorder and its writers.

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;

use crate::correlator::{Correlator, Counted, object};

/// Events written at the same time. Those of one object are written in order, by the same writer.
const WRITERS: usize = 8;
/// Events that wait for a writer. More are dropped: events are best effort, work is not.
const QUEUE: usize = 2048;

/// Who tells of events.
#[derive(Debug, Clone)]
pub struct Source {
    /// The component.
    pub component: &'static str,
    /// The node it runs on, if it belongs to one.
    pub host: Option<String>,
    /// Whether an object that has many events at once gets fewer of them (client-go's spam filter).
    pub limited: bool,
}

/// Something that happened to an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    /// The object; events of one without a namespace are put into `default`.
    pub object: ObjectReference,
    /// `Warning` rather than `Normal`.
    pub warning: bool,
    /// Why, in one CamelCase word.
    pub reason: String,
    /// The same for people.
    pub message: String,
}

/// Writes events in the background. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Recorder {
    queues: Vec<mpsc::Sender<Note>>,
}

impl Recorder {
    /// A recorder and the task that writes. It ends when all recorders are gone.
    pub fn new(client: Client, source: Source) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (queues, receivers): (Vec<_>, Vec<_>) = (0..WRITERS).map(|_| mpsc::channel(QUEUE)).unzip();
        let writers = receivers.into_iter().map(move |notes| write(client.clone(), source.clone(), notes));
        let writers = join_all(writers);
        let all = async move {
            writers.await;
        };
        (Self { queues }, all)
    }

    /// Records an event.
    pub fn record(&self, note: Note) {
        let writer = xebec_hash::fnv64(object(&note).as_bytes()) % WRITERS as u64;
        let queue = usize::try_from(writer).ok().and_then(|writer| self.queues.get(writer));
        if queue.is_none_or(|queue| queue.try_send(note).is_err()) {
            tracing::debug!("event dropped: the queue is full");
        }
    }
}

async fn write(client: Client, source: Source, mut notes: mpsc::Receiver<Note>) {
    let mut correlator = Correlator::default();
    while let Some(note) = notes.recv().await {
        let now = Timestamp::now();
        if source.limited && !correlator.allows(object(&note), now) {
            continue;
        }
        let counted = correlator.count(&note, now);
        if let Err(error) = store(&client, &source, &note, &counted, now).await {
            tracing::debug!(%error, reason = note.reason, "event not stored");
        }
    }
}

async fn store(
    client: &Client,
    source: &Source,
    note: &Note,
    counted: &Counted,
    now: Timestamp,
) -> Result<(), kube::Error> {
    let namespace = note.object.namespace.as_deref().unwrap_or("default");
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    if counted.count > 1 {
        let patch = json!({"count": counted.count, "lastTimestamp": Time(now)});
        match api.patch(&counted.name, &PatchParams::default(), &Patch::Merge(patch)).await {
            // It has expired since it was counted, or was never stored: it is made anew.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            done => return done.map(drop),
        }
    }
    api.create(&PostParams::default(), &event(source, note, counted, namespace, now)).await.map(drop)
}

fn event(source: &Source, note: &Note, counted: &Counted, namespace: &str, now: Timestamp) -> Event {
    Event {
        metadata: ObjectMeta {
            name: Some(counted.name.clone()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: note.object.clone(),
        reason: Some(note.reason.clone()),
        message: Some(note.message.clone()),
        type_: Some(if note.warning { "Warning" } else { "Normal" }.into()),
        count: Some(counted.count),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        source: Some(EventSource { component: Some(source.component.into()), host: source.host.clone() }),
        reporting_component: Some(source.component.into()),
        reporting_instance: Some(source.host.clone().unwrap_or_default()),
        ..Event::default()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use xebec_fakeapi::{Asked, Requests};

    use super::*;

    /// A client whose requests come out of the channel; a patch finds its event if `stored`.
    fn client(stored: bool) -> (Client, Requests) {
        xebec_fakeapi::client(move |asked| match stored || asked.method != "PATCH" {
            true => (200, json!({"metadata": {}, "involvedObject": {}})),
            false => (404, xebec_fakeapi::not_found()),
        })
    }

    fn note(namespace: Option<&str>) -> Note {
        let object = ObjectReference {
            kind: Some("Pod".into()),
            name: Some("p".into()),
            namespace: namespace.map(str::to_owned),
            uid: Some("u".into()),
            ..ObjectReference::default()
        };
        Note { object, warning: true, reason: "BackOff".into(), message: "again".into() }
    }

    /// The requests that so many equal events lead to.
    async fn asked(stored: bool, limited: bool, namespace: Option<&str>, times: usize) -> Vec<Asked> {
        let (client, mut requests) = client(stored);
        let host = Some("n1".to_owned());
        let (recorder, writer) = Recorder::new(client, Source { component: "kubelet", host, limited });
        for _ in 0..times {
            recorder.record(note(namespace));
        }
        drop(recorder);
        writer.await;
        let mut all = Vec::new();
        while let Ok(request) = requests.try_recv() {
            all.push(request);
        }
        all
    }

    #[tokio::test]
    async fn repetitions_raise_the_count() {
        let asked = asked(true, true, Some("ns"), 2).await;
        let Asked { method, path, body: event } = &asked[0];
        assert_eq!((method.as_str(), path.as_str()), ("POST", "/api/v1/namespaces/ns/events"));
        assert_eq!((&event["type"], &event["count"]), (&json!("Warning"), &json!(1)));
        assert_eq!(event["source"], json!({"component": "kubelet", "host": "n1"}));
        assert_eq!(
            (&event["reportingComponent"], &event["reportingInstance"]),
            (&json!("kubelet"), &json!("n1"))
        );
        let Asked { method, path, body: patch } = &asked[1];
        let name = event["metadata"]["name"].as_str().unwrap();
        assert_eq!((method.as_str(), path), ("PATCH", &format!("/api/v1/namespaces/ns/events/{name}")));
        assert_eq!(patch["count"], 2);
    }

    #[tokio::test]
    async fn an_event_that_is_gone_is_made_anew_with_its_count() {
        let asked = asked(false, true, None, 2).await;
        let methods: Vec<&str> = asked.iter().map(|asked| asked.method.as_str()).collect();
        assert_eq!(methods, ["POST", "PATCH", "POST"]);
        assert_eq!(asked[2].body["count"], 2);
        assert_eq!(asked[2].path, "/api/v1/namespaces/default/events", "the object has no namespace");
    }

    #[tokio::test]
    async fn the_limit_is_the_sources() {
        assert_eq!(asked(true, true, None, 30).await.len(), 25);
        assert_eq!(asked(true, false, None, 30).await.len(), 30);
    }
}
