//! A played API server for tests: answers by method and path, and what it was asked.

use std::convert::Infallible;
use std::io::Write;
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

use crate::error::Result;
use crate::session::{Session, Streams};

/// A text that several hands write.
#[derive(Clone, Default)]
pub struct Text(Arc<Mutex<Vec<u8>>>);

impl Text {
    /// What was written.
    pub fn read(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Text {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Answers: method and path with query, status, body.
pub type Answers = Vec<(&'static str, u16, Value)>;

/// What a command did.
pub struct Ran {
    /// Exit code or refusal.
    pub result: Result<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
    /// Requests that were not for discovery: method, path with query, body.
    pub asked: Vec<(String, String)>,
}

/// Runs a command line against played answers. The first answer whose key begins the request's `METHOD path` serves.
pub async fn run(line: &[&str], stdin: &str, answers: Answers) -> Ran {
    let asked: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
    let log = Arc::clone(&asked);
    let answers = Arc::new(answers);
    let service = tower::service_fn(move |request: Request<Body>| {
        let (log, answers) = (Arc::clone(&log), Arc::clone(&answers));
        async move {
            let key = format!("{} {}", request.method(), request.uri());
            let body = request.into_body().collect_bytes().await.unwrap();
            let discovered = discovery(&key);
            if discovered.is_none() {
                log.lock().unwrap().push((key.clone(), String::from_utf8(body.to_vec()).unwrap()));
            }
            let found = answers.iter().find(|(prefix, ..)| key.starts_with(prefix));
            let (status, body) = match (discovered, found) {
                (Some(answer), _) => (200, answer.to_string()),
                (None, Some((_, status, Value::String(text)))) => (*status, text.clone()),
                (None, Some((_, status, answer))) => (*status, answer.to_string()),
                (None, None) => (404, not_found(&key).to_string()),
            };
            Ok::<_, Infallible>(
                Response::builder().status(status).body(Body::from(body.into_bytes())).unwrap(),
            )
        }
    });
    let (out, err) = (Text::default(), Text::default());
    let streams = Streams {
        out: Box::new(out.clone()),
        err: Box::new(err.clone()),
        stdin: Box::new(std::io::Cursor::new(stdin.as_bytes().to_vec())),
    };
    let session = Session::new(Client::new(service, "default"), None, streams);
    let args = std::iter::once("kubectl").chain(line.iter().copied()).map(str::to_owned).collect();
    let result = crate::run(&session, args).await;
    let asked = asked.lock().unwrap().clone();
    Ran { result, out: out.read(), err: err.read(), asked }
}

/// The server's words for an object that it does not have.
pub fn not_found(key: &str) -> Value {
    let path = key.split(['?', ' ']).nth(1).unwrap_or_default();
    let mut parts = path.rsplit('/');
    let (name, kind) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404, "reason": "NotFound",
        "message": format!("{kind} {name:?} not found"), "details": {"name": name, "kind": kind}})
}

fn discovery(key: &str) -> Option<Value> {
    let resource = |plural: &str, kind: &str, short: &[&str], categories: &[&str], scope: &str| {
        json!({"resource": plural, "responseKind": {"kind": kind}, "singularResource": kind.to_lowercase(),
            "shortNames": short, "categories": categories, "scope": scope, "verbs": ["get", "list", "watch"]})
    };
    let group = |name: &str, resources: Vec<Value>| {
        let versions = [json!({"version": "v1", "resources": resources})];
        json!({"metadata": {"name": name}, "versions": versions})
    };
    let list = |groups: Vec<Value>| json!({"kind": "APIGroupDiscoveryList", "items": groups});
    match key {
        "GET /api" => Some(list(vec![group(
            "",
            vec![
                resource("pods", "Pod", &["po"], &["all"], "Namespaced"),
                resource("services", "Service", &["svc"], &["all"], "Namespaced"),
                resource("configmaps", "ConfigMap", &["cm"], &[], "Namespaced"),
                resource("events", "Event", &["ev"], &[], "Namespaced"),
                resource("nodes", "Node", &["no"], &[], "Cluster"),
            ],
        )])),
        "GET /apis" => Some(list(vec![
            group(
                "apps",
                vec![
                    resource("deployments", "Deployment", &["deploy"], &["all"], "Namespaced"),
                    resource("replicasets", "ReplicaSet", &["rs"], &["all"], "Namespaced"),
                ],
            ),
            group("example.com", vec![resource("widgets", "Widget", &[], &[], "Namespaced")]),
        ])),
        _ => None,
    }
}
