//! A client whose API server is a closure: for tests of what a component asks, and of what it makes of the answers.

use std::sync::Arc;

use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// A request as the closure and the test see it.
#[derive(Debug)]
pub struct Asked {
    /// Method in capitals.
    pub method: String,
    /// Path without its query.
    pub path: String,
    /// The body; null if there is none, or none in JSON.
    pub body: Value,
}

/// Requests in the order in which they were made.
pub type Requests = mpsc::UnboundedReceiver<Asked>;

/// A client in `default` whose requests `answer` answers with an HTTP status and a body, and which come out of the
/// channel.
pub fn client(answer: impl Fn(&Asked) -> (u16, Value) + Send + Sync + 'static) -> (Client, Requests) {
    let (tx, rx) = mpsc::unbounded_channel();
    let answer = Arc::new(answer);
    let service = tower::service_fn(move |request: Request<Body>| {
        let (tx, answer) = (tx.clone(), answer.clone());
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await?;
            let asked = Asked {
                method: parts.method.to_string(),
                path: parts.uri.path().to_owned(),
                body: serde_json::from_slice(&body).unwrap_or_default(),
            };
            let (code, value) = answer(&asked);
            // A test that has seen enough does not listen any more.
            let _ = tx.send(asked);
            let mut response = Response::new(Body::from(value.to_string().into_bytes()));
            *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or_default();
            Ok::<_, kube::Error>(response)
        }
    });
    (Client::new(service, "default"), rx)
}

/// The body of a 404.
pub fn not_found() -> Value {
    json!({"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound"})
}
