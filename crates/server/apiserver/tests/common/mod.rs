//! A server on a store in memory, and requests in plain JSON.
#![allow(clippy::unwrap_used, dead_code, missing_docs)]

use std::sync::Arc;

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use xebec_admission::Chain;
use xebec_apiserver::{ApiServer, Config, Door, Plain, TokenConfig};
use xebec_auth::pki::Pki;
use xebec_auth::{UserInfo, groups};
use xebec_registry::RegistryConfig;
use xebec_store::Store;
use xebec_store::fake::MemoryStore;

/// A running server; it stops when dropped.
pub struct TestServer {
    pub server: ApiServer,
    pub store: Arc<dyn Store>,
    pub pki: Pki,
    pub cancel: CancellationToken,
    _directory: tempfile::TempDir,
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

pub fn admin() -> UserInfo {
    UserInfo {
        name: "admin".into(),
        groups: vec![groups::MASTERS.into(), groups::AUTHENTICATED.into()],
        ..UserInfo::default()
    }
}

impl TestServer {
    pub async fn start() -> Self {
        Self::on(Arc::new(MemoryStore::new())).await
    }

    pub async fn on(store: Arc<dyn Store>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let pki = Pki::open(directory.path(), jiff::Timestamp::now()).unwrap();
        let issuer = "https://kubernetes.default.svc.cluster.local";
        let config = Config {
            resources: xebec_registry::builtin(&RegistryConfig::default()),
            defaults: Arc::new(xebec_registry::type_defaults()),
            transformer: Arc::new(Plain),
            admission: Chain::standard(),
            tokens: TokenConfig {
                issuer: issuer.into(),
                audiences: vec![issuer.into()],
                signing_key: pki.signing_key(),
                keys: pki.token_keys(),
            },
            advertise: "192.0.2.10:6443".parse().unwrap(),
            service_address: Some("10.96.0.1".parse().unwrap()),
            kubelets: None,
        };
        let (server, tasks) = ApiServer::new(config, store.clone());
        let cancel = CancellationToken::new();
        let running = tokio::spawn(tasks.run(cancel.clone()));
        let mut ready = server.ready();
        if !ready.wait().await {
            panic!("the server did not start: {:?}", running.await);
        }
        Self { server, store, pki, cancel, _directory: directory }
    }

    pub fn door(&self) -> Door {
        self.server.service(admin())
    }

    pub fn client(&self) -> kube::Client {
        kube::Client::new(self.door(), "default")
    }

    pub async fn raw(&self, request: Request<Full<bytes::Bytes>>) -> Response<xebec_apiserver::body::Body> {
        self.door().oneshot(request).await.unwrap()
    }

    pub async fn send(&self, method: Method, path: &str, kind: &str, body: String) -> (StatusCode, Value) {
        let request = Request::builder().method(method).uri(path).header("content-type", kind);
        json(self.raw(request.body(Full::new(body.into())).unwrap()).await).await
    }

    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.send(Method::GET, path, "", String::new()).await
    }

    pub async fn get_as(&self, path: &str, accept: &str) -> (StatusCode, Value) {
        let request = Request::builder().uri(path).header("accept", accept).body(Full::default()).unwrap();
        json(self.raw(request).await).await
    }

    pub async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.send(Method::POST, path, "application/json", body.to_string()).await
    }

    pub async fn put(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.send(Method::PUT, path, "application/json", body.to_string()).await
    }

    pub async fn merge(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.send(Method::PATCH, path, "application/merge-patch+json", body.to_string()).await
    }

    pub async fn delete(&self, path: &str, body: Value) -> (StatusCode, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send(Method::DELETE, path, "application/json", body).await
    }

    pub async fn watch(&self, path: &str) -> Watch {
        let request = Request::builder().uri(path).body(Full::default()).unwrap();
        let response = self.raw(request).await;
        assert_eq!(response.status(), 200);
        Watch { body: response.into_body(), buffer: Vec::new() }
    }
}

pub async fn json(response: Response<xebec_apiserver::body::Body>) -> (StatusCode, Value) {
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let value = serde_json::from_slice(&bytes)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
    (status, value)
}

/// A watch, event by event.
pub struct Watch {
    body: xebec_apiserver::body::Body,
    buffer: Vec<u8>,
}

impl Watch {
    /// The next event; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = tokio::time::timeout(std::time::Duration::from_secs(10), self.body.frame());
            let frame = frame.await.expect("an event within ten seconds")?;
            self.buffer.extend_from_slice(&frame.unwrap().into_data().unwrap());
        }
    }

    /// Type and name of the next event.
    pub async fn told(&mut self) -> String {
        let event = self.next().await.unwrap();
        let name = event["object"]["metadata"]["name"].as_str().unwrap_or("");
        format!("{} {name}", event["type"].as_str().unwrap())
    }
}
