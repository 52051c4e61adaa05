//! Events that components leave on objects.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Events that wait to be written. More are dropped: events are best effort, work is not.
const QUEUE: usize = 4096;
/// Events written at the same time.
const WRITERS: usize = 8;
/// Different events whose repetitions are counted.
const REMEMBERED: usize = 4096;

/// Writes events in the background; repetitions raise the count of the first.
#[derive(Clone)]
pub struct Recorder {
    component: &'static str,
    queue: mpsc::Sender<Event>,
}

impl Recorder {
    /// A recorder for a component, and the task that writes.
    pub fn new(
        client: Client,
        component: &'static str,
        token: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (queue, events) = mpsc::channel(QUEUE);
        (Self { component, queue }, write_all(client, events, token))
    }

    /// Records a `Normal` event.
    pub fn normal<K: Resource<DynamicType = ()>>(&self, object: &K, reason: &str, message: String) {
        self.record(object, "Normal", reason, message);
    }

    /// Records a `Warning` event.
    pub fn warning<K: Resource<DynamicType = ()>>(&self, object: &K, reason: &str, message: String) {
        self.record(object, "Warning", reason, message);
    }

    fn record<K: Resource<DynamicType = ()>>(&self, object: &K, kind: &str, reason: &str, message: String) {
        let now = Time(jiff::Timestamp::now());
        let meta = object.meta();
        let namespace = meta.namespace.clone().unwrap_or_else(|| "default".into());
        let event = Event {
            metadata: ObjectMeta { namespace: Some(namespace), ..ObjectMeta::default() },
            involved_object: ObjectReference {
                api_version: Some(K::api_version(&()).into_owned()),
                kind: Some(K::kind(&()).into_owned()),
                name: meta.name.clone(),
                namespace: meta.namespace.clone(),
                uid: meta.uid.clone(),
                resource_version: meta.resource_version.clone(),
                field_path: None,
            },
            type_: Some(kind.into()),
            reason: Some(reason.into()),
            message: Some(message),
            count: Some(1),
            first_timestamp: Some(now.clone()),
            last_timestamp: Some(now),
            source: Some(EventSource { component: Some(self.component.into()), host: None }),
            reporting_component: Some(self.component.into()),
            reporting_instance: Some(String::new()),
            ..Event::default()
        };
        if self.queue.try_send(event).is_err() {
            tracing::debug!(component = self.component, "event dropped: the queue is full");
        }
    }
}

type Identity = (Option<String>, Option<String>, Option<String>, Option<String>);

/// What makes two events the same: object, type, reason and message.
fn identity(event: &Event) -> Identity {
    (
        event.involved_object.uid.clone().or_else(|| event.involved_object.name.clone()),
        event.type_.clone(),
        event.reason.clone(),
        event.message.clone(),
    )
}

async fn write_all(client: Client, mut events: mpsc::Receiver<Event>, token: CancellationToken) {
    let seen: Mutex<HashMap<Identity, (String, i32)>> = Mutex::default();
    let events = futures::stream::poll_fn(|cx| events.poll_recv(cx)).take_until(token.cancelled_owned());
    events
        .for_each_concurrent(WRITERS, async |event| {
            if let Err(error) = write(&client, event, &seen).await {
                tracing::debug!(%error, "event not written");
            }
        })
        .await;
}

async fn write(
    client: &Client,
    mut event: Event,
    seen: &Mutex<HashMap<Identity, (String, i32)>>,
) -> Result<(), kube::Error> {
    let namespace = event.metadata.namespace.clone().unwrap_or_default();
    let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
    let identity = identity(&event);
    let known = seen.lock().unwrap_or_else(PoisonError::into_inner).get(&identity).cloned();
    if let Some((name, count)) = known {
        let patch = json!({"count": count + 1, "lastTimestamp": event.last_timestamp});
        match api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Ok(_) => {
                remember(seen, identity, name, count + 1);
                return Ok(());
            }
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    let base = event.involved_object.name.clone().unwrap_or_default();
    let name = format!("{base}.{:x}", jiff::Timestamp::now().as_nanosecond());
    event.metadata.name = Some(name.clone());
    api.create(&PostParams::default(), &event).await?;
    remember(seen, identity, name, 1);
    Ok(())
}

fn remember(seen: &Mutex<HashMap<Identity, (String, i32)>>, identity: Identity, name: String, count: i32) {
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    if seen.len() >= REMEMBERED {
        seen.clear();
    }
    seen.insert(identity, (name, count));
}
