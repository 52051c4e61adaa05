//! One run of the client: its connection, its namespace and its terminal.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{AsyncBufRead, AsyncBufReadExt, Stream, StreamExt};
use http::{Method, Request};
use kube::Client;
use serde_json::Value;
use tokio::io::AsyncRead;
use tokio::sync::OnceCell;

use crate::discovery::Discovery;
use crate::error::{Error, Result};
use crate::query;

/// Asks the server for a table of a list instead of the list.
pub const AS_TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// Where a run reads and writes.
pub struct Streams {
    /// Standard output.
    pub out: Box<dyn Write + Send>,
    /// Standard error.
    pub err: Box<dyn Write + Send>,
    /// Standard input.
    pub stdin: Box<dyn AsyncRead + Send + Unpin>,
}

/// What every verb works with.
pub struct Session {
    /// The connection.
    pub client: Client,
    /// The namespace of objects that name none.
    pub namespace: String,
    /// Whether the user named the namespace on the command line.
    pub namespace_given: bool,
    /// The server's address, for `cluster-info`.
    pub server: String,
    timeout: Option<Duration>,
    out: Mutex<Box<dyn Write + Send>>,
    err: Mutex<Box<dyn Write + Send>>,
    stdin: Mutex<Option<Box<dyn AsyncRead + Send + Unpin>>>,
    discovery: OnceCell<Arc<Discovery>>,
}

impl Session {
    /// A session that answers on `streams`.
    pub fn new(client: Client, namespace: Option<String>, streams: Streams) -> Self {
        let namespace_given = namespace.is_some();
        Self {
            namespace: namespace.unwrap_or_else(|| client.default_namespace().to_owned()),
            client,
            namespace_given,
            server: String::new(),
            timeout: None,
            out: Mutex::new(streams.out),
            err: Mutex::new(streams.err),
            stdin: Mutex::new(Some(streams.stdin)),
            discovery: OnceCell::new(),
        }
    }

    /// Bounds every single request that is not a stream.
    pub fn with_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.timeout = timeout;
        self
    }

    /// Writes to standard output.
    pub fn print(&self, text: impl AsRef<[u8]>) -> Result<()> {
        write(&self.out, text.as_ref())
    }

    /// Writes a line to standard output.
    pub fn line(&self, text: impl AsRef<str>) -> Result<()> {
        write(&self.out, format!("{}\n", text.as_ref()).as_bytes())
    }

    /// Writes to standard error.
    pub fn eprint(&self, text: impl AsRef<[u8]>) -> Result<()> {
        write(&self.err, text.as_ref())
    }

    /// Writes a line to standard error.
    pub fn warn(&self, text: impl AsRef<str>) -> Result<()> {
        write(&self.err, format!("{}\n", text.as_ref()).as_bytes())
    }

    /// Takes standard input; it can be taken once.
    pub fn stdin(&self) -> Result<Box<dyn AsyncRead + Send + Unpin>> {
        let taken = self.stdin.lock().unwrap_or_else(PoisonError::into_inner).take();
        taken.ok_or_else(|| Error::client("standard input cannot be used for multiple arguments"))
    }

    /// What the server serves; asked once.
    pub async fn discovery(&self) -> Result<Arc<Discovery>> {
        let found =
            self.discovery.get_or_try_init(|| async { Discovery::ask(self).await.map(Arc::new) }).await?;
        Ok(Arc::clone(found))
    }

    /// Sends a request and reads the answer whole.
    pub async fn text(&self, call: Call) -> Result<String> {
        let request = call.build()?;
        let answer = self.client.request_text(request);
        match self.timeout {
            None => Ok(answer.await?),
            Some(limit) => match tokio::time::timeout(limit, answer).await {
                Ok(text) => Ok(text?),
                Err(_) => Err(Error::Plain(format!(
                    "Unable to connect to the server: no answer within the request timeout ({}s)",
                    limit.as_secs()
                ))),
            },
        }
    }

    /// Sends a request and reads the answer as JSON.
    pub async fn json(&self, call: Call) -> Result<Value> {
        let what = call.path.clone();
        let text = self.text(call).await?;
        serde_json::from_str(&text).map_err(|e| Error::client(format!("{what}: the answer is not JSON: {e}")))
    }

    /// Sends a request and streams the answer.
    pub async fn stream(&self, call: Call) -> Result<impl AsyncBufRead + Send + use<>> {
        Ok(self.client.request_stream(call.build()?).await?)
    }

    /// Watches: every item is a watch event, `{"type": …, "object": …}`. The stream ends when the server ends it.
    pub async fn watch(
        &self,
        call: Call,
    ) -> Result<impl Stream<Item = Result<Value>> + Send + Unpin + use<>> {
        let lines = self.stream(call.query("watch", "true")).await?.lines();
        Ok(lines
            .map(|line| {
                let line = line?;
                let event: Value = serde_json::from_str(&line)
                    .map_err(|e| Error::client(format!("watch event is not JSON: {e}")))?;
                if event["type"] == "ERROR" {
                    let status = serde_json::from_value(event["object"].clone())
                        .map_err(|e| Error::client(format!("watch error is not a Status: {e}")))?;
                    return Err(Error::Server { status: Box::new(status), doing: None });
                }
                Ok(event)
            })
            .boxed())
    }
}

fn write(to: &Mutex<Box<dyn Write + Send>>, bytes: &[u8]) -> Result<()> {
    let mut to = to.lock().unwrap_or_else(PoisonError::into_inner);
    to.write_all(bytes)?;
    to.flush()?;
    Ok(())
}

/// One HTTP request.
pub struct Call {
    method: Method,
    path: String,
    query: Vec<(String, String)>,
    body: Vec<u8>,
    content_type: &'static str,
    accept: &'static str,
}

impl Call {
    fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            query: Vec::new(),
            body: Vec::new(),
            content_type: "application/json",
            accept: "application/json",
        }
    }

    /// A read.
    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    /// A creation.
    pub fn post(path: impl Into<String>, body: &Value) -> Self {
        Self { body: body.to_string().into_bytes(), ..Self::new(Method::POST, path) }
    }

    /// A replacement.
    pub fn put(path: impl Into<String>, body: &Value) -> Self {
        Self { body: body.to_string().into_bytes(), ..Self::new(Method::PUT, path) }
    }

    /// A patch of the given media type.
    pub fn patch(path: impl Into<String>, content_type: &'static str, body: &Value) -> Self {
        Self { body: body.to_string().into_bytes(), content_type, ..Self::new(Method::PATCH, path) }
    }

    /// A removal.
    pub fn delete(path: impl Into<String>, options: &Value) -> Self {
        Self { body: options.to_string().into_bytes(), ..Self::new(Method::DELETE, path) }
    }

    /// Adds a query parameter.
    pub fn query(mut self, key: &str, value: impl Into<String>) -> Self {
        self.query.push((key.to_owned(), value.into()));
        self
    }

    /// Adds a query parameter that has a value.
    pub fn maybe(self, key: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) if !value.is_empty() => self.query(key, value),
            _ => self,
        }
    }

    /// Says which media types are wanted.
    pub fn accept(mut self, accept: &'static str) -> Self {
        self.accept = accept;
        self
    }

    fn build(self) -> Result<Request<Vec<u8>>> {
        let uri = query::uri(&self.path, &self.query);
        Request::builder()
            .method(self.method)
            .uri(&uri)
            .header(http::header::ACCEPT, self.accept)
            .header(http::header::CONTENT_TYPE, self.content_type)
            .body(self.body)
            .map_err(|e| Error::client(format!("request {uri}: {e}")))
    }
}
