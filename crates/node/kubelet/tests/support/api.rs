//! An API server in memory: as much of one as the kubelet talks to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

struct Watcher {
    query: Query,
    events: mpsc::UnboundedSender<Value>,
}

#[derive(Clone, Default)]
struct Query {
    /// `pods` or `namespaces/n/pods`, with the group's prefix.
    collection: Collection,
    selector: Option<(String, String)>,
}

#[derive(Clone, Default, PartialEq)]
struct Collection {
    group: String,
    namespace: Option<String>,
    resource: String,
}

#[derive(Default)]
struct State {
    revision: u64,
    objects: BTreeMap<(String, String, String, String), Value>,
    watchers: Vec<Watcher>,
}

#[derive(Clone)]
pub struct FakeApi {
    state: Arc<Mutex<State>>,
    changes: watch::Sender<u64>,
}

impl Default for FakeApi {
    fn default() -> Self {
        Self { state: Arc::default(), changes: watch::Sender::new(0) }
    }
}

struct Target {
    collection: Collection,
    name: Option<String>,
    subresource: Option<String>,
}

fn target(path: &str) -> Target {
    let mut parts: Vec<_> = path.trim_matches('/').split('/').collect();
    let group_len = if parts[0] == "api" { 2 } else { 3 };
    let group = parts.drain(..group_len).collect::<Vec<_>>().join("/");
    let mut namespace = None;
    if parts[0] == "namespaces" && parts.len() > 2 {
        namespace = Some(parts[1].to_owned());
        parts.drain(..2);
    }
    let part = |i: usize| parts.get(i).map(|p| (*p).to_owned());
    let collection = Collection { group, namespace, resource: part(0).unwrap() };
    Target { collection, name: part(1), subresource: part(2) }
}

fn matches(query: &Query, object: &Value) -> bool {
    let in_namespace =
        query.collection.namespace.as_deref().is_none_or(|n| object["metadata"]["namespace"] == n);
    in_namespace
        && query.selector.as_ref().is_none_or(|(path, value)| {
            let pointer = format!("/{}", path.replace('.', "/"));
            object.pointer(&pointer).and_then(Value::as_str) == Some(value)
        })
}

/// Merge patch, with conditions merged by type as strategic merge patch does.
fn merge(into: &mut Value, patch: &Value, key: &str) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    into.remove(key);
                } else {
                    merge(into.entry(key.clone()).or_insert(Value::Null), value, key);
                }
            }
        }
        (Value::Array(into), Value::Array(patch)) if key == "conditions" => {
            for item in patch {
                match into.iter_mut().find(|c| c["type"] == item["type"]) {
                    Some(old) => *old = item.clone(),
                    None => into.push(item.clone()),
                }
            }
        }
        (into, Value::Array(patch)) => {
            *into = patch.iter().filter(|i| i.get("$patch").is_none()).cloned().collect();
        }
        (into @ Value::Null, Value::Object(_)) => {
            *into = json!({});
            merge(into, patch, key);
        }
        (into, patch) => *into = patch.clone(),
    }
}

fn full(code: StatusCode, value: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(value.to_string())).map_err(|never| match never {}).boxed_unsync();
    Response::builder().status(code).header("content-type", "application/json").body(body).unwrap()
}

fn failure(code: u16, reason: &str) -> Response<Body> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "reason": reason, "message": reason, "code": code});
    full(StatusCode::from_u16(code).unwrap(), &status)
}

impl FakeApi {
    pub fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let api = api.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let value = serde_json::from_slice(&body).unwrap_or(Value::Null);
                Ok::<_, std::io::Error>(api.serve(&parts, value))
            }
        });
        kube::Client::new(service, "default")
    }

    /// Changes with every write.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Reason and message of all events.
    pub fn events(&self) -> Vec<(String, String)> {
        let state = self.state.lock().unwrap();
        let all = state.objects.iter().filter(|((_, r, _, _), _)| r == "events");
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        all.map(|(_, e)| (text(&e["reason"]), text(&e["message"]))).collect()
    }

    /// Puts an object there as it is.
    pub fn put(&self, path: &str, object: Value) {
        let t = target(path);
        self.store(&t, object);
    }

    fn store(&self, t: &Target, mut object: Value) -> Value {
        let mut state = self.state.lock().unwrap();
        state.revision += 1;
        let revision = state.revision;
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let namespace = t.collection.namespace.clone().unwrap_or_default();
        if !namespace.is_empty() {
            object["metadata"]["namespace"] = namespace.clone().into();
        }
        object["metadata"]["resourceVersion"] = revision.to_string().into();
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = format!("uid-{name}-{revision}").into();
        }
        let key = (t.collection.group.clone(), t.collection.resource.clone(), namespace, name);
        let known = state.objects.insert(key, object.clone()).is_some();
        Self::tell(&mut state, t, if known { "MODIFIED" } else { "ADDED" }, &object);
        drop(state);
        self.changes.send_replace(revision);
        object
    }

    fn tell(state: &mut State, t: &Target, kind: &str, object: &Value) {
        state.watchers.retain(|w| {
            let same = w.query.collection.group == t.collection.group
                && w.query.collection.resource == t.collection.resource;
            if same && matches(&w.query, object) {
                return w.events.send(json!({"type": kind, "object": object})).is_ok();
            }
            true
        });
    }

    fn serve(&self, parts: &http::request::Parts, body: Value) -> Response<Body> {
        let t = target(parts.uri.path());
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let Some(name) = t.name.clone() else {
            return match parts.method {
                Method::POST => full(StatusCode::CREATED, &self.store(&t, body)),
                _ => self.list(&t, &query),
            };
        };
        if t.subresource.as_deref() == Some("token") {
            let expires = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(3600);
            let mut answer = body;
            answer["status"] = json!({"token": "tok", "expirationTimestamp": expires.to_string()});
            return full(StatusCode::CREATED, &answer);
        }
        let namespace = t.collection.namespace.clone().unwrap_or_default();
        let key = (t.collection.group.clone(), t.collection.resource.clone(), namespace, name);
        let Some(mut object) = self.state.lock().unwrap().objects.get(&key).cloned() else {
            return failure(404, "NotFound");
        };
        match parts.method {
            Method::GET => full(StatusCode::OK, &object),
            Method::DELETE => self.delete(&t, &key, object, &body),
            _ => {
                let uid = body["metadata"]["uid"].as_str();
                if uid.is_some_and(|u| object["metadata"]["uid"] != u) {
                    return failure(409, "Conflict");
                }
                merge(&mut object, &body, "");
                full(StatusCode::OK, &self.store(&t, object))
            }
        }
    }

    fn delete(
        &self,
        t: &Target,
        key: &(String, String, String, String),
        mut object: Value,
        options: &Value,
    ) -> Response<Body> {
        let grace = options["gracePeriodSeconds"].as_i64();
        let grace = grace.unwrap_or(if t.collection.resource == "pods" { 30 } else { 0 });
        if grace > 0 {
            object["metadata"]["deletionTimestamp"] = jiff::Timestamp::now().to_string().into();
            object["metadata"]["deletionGracePeriodSeconds"] = grace.into();
            return full(StatusCode::OK, &self.store(t, object));
        }
        let mut state = self.state.lock().unwrap();
        state.objects.remove(key);
        state.revision += 1;
        let revision = state.revision;
        Self::tell(&mut state, t, "DELETED", &object);
        drop(state);
        self.changes.send_replace(revision);
        full(StatusCode::OK, &object)
    }

    fn list(&self, t: &Target, query: &str) -> Response<Body> {
        let decoded = query.replace("%3D", "=");
        let selector = decoded.split('&').find_map(|p| p.strip_prefix("fieldSelector="));
        let selector = selector.and_then(|s| s.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned()));
        let query = Query { collection: t.collection.clone(), selector };
        let mut state = self.state.lock().unwrap();
        if decoded.contains("watch=true") {
            let (events, receiver) = mpsc::unbounded_channel();
            let since: u64 = decoded
                .split('&')
                .find_map(|p| p.strip_prefix("resourceVersion="))
                .and_then(|v| v.parse().ok())
                .unwrap_or(0);
            // What changed between list and watch.
            for ((group, resource, _, _), object) in &state.objects {
                let revision: u64 = object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
                let same = *group == t.collection.group && *resource == t.collection.resource;
                if same && revision > since && matches(&query, object) {
                    events.send(json!({"type": "MODIFIED", "object": object})).unwrap();
                }
            }
            state.watchers.push(Watcher { query, events });
            let stream = futures::stream::unfold(receiver, |mut r| async move {
                let value = r.recv().await?;
                Some((Ok(http_body::Frame::data(Bytes::from(format!("{value}\n")))), r))
            });
            return Response::new(StreamBody::new(stream).boxed_unsync());
        }
        let items: Vec<_> = state
            .objects
            .iter()
            .filter(|((g, r, _, _), o)| {
                *g == t.collection.group && *r == t.collection.resource && matches(&query, o)
            })
            .map(|(_, o)| o.clone())
            .collect();
        let revision = state.revision.to_string();
        full(
            StatusCode::OK,
            &json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": revision}, "items": items}),
        )
    }
}
