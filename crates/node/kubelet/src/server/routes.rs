//! Paths and their handlers.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::Pod;
use xebec_cri::ContainerStatus;

use super::auth::Caller;
use super::{Door, logs, stats, streams};
use crate::spec;
use crate::worker::observe::observe;

/// Bodies of answers.
pub(super) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// An answer of text.
pub(super) fn text(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    content(status, "text/plain; charset=utf-8", text.into())
}

/// An answer of some type.
pub(super) fn content(status: StatusCode, kind: &'static str, body: String) -> Response<Body> {
    let body = Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

/// An upgrade.
pub(super) fn switching(headers: HeaderMap) -> Response<Body> {
    let mut response = text(StatusCode::SWITCHING_PROTOCOLS, "");
    *response.headers_mut() = headers;
    response
}

/// Parameters of a request; a name may come several times.
#[derive(Debug, Default)]
pub(super) struct Params(BTreeMap<String, Vec<String>>);

impl Params {
    fn of(query: &str) -> Self {
        let mut params: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            params.entry(decode(name)).or_default().push(decode(value));
        }
        Self(params)
    }

    /// All values.
    pub fn all(&self, name: &str) -> &[String] {
        self.0.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// The first value that is not empty.
    pub fn one(&self, name: &str) -> Option<&str> {
        self.all(name).iter().map(String::as_str).find(|v| !v.is_empty())
    }

    /// Whether any of these names is set to true.
    pub fn is_true(&self, names: &[&str]) -> bool {
        names.iter().any(|n| matches!(self.one(n), Some("1" | "true" | "t" | "T" | "TRUE" | "True")))
    }
}

/// Percent decoding of forms.
fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let pair = [bytes.next(), bytes.next()];
                let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
                match (digit(pair[0]), digit(pair[1])) {
                    (Some(high), Some(low)) => out.push((high * 16 + low) as u8),
                    _ => out.push(b'%'),
                }
            }
            other => out.push(other),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Answers a request.
pub(super) async fn answer(
    door: &Arc<Door>,
    caller: Option<&Caller>,
    request: Request<Incoming>,
) -> Response<Body> {
    let Some(caller) = caller else { return text(StatusCode::UNAUTHORIZED, "Unauthorized") };
    if !caller.allowed(&door.api_server_name) {
        let message = format!("Forbidden (user={}, resource=nodes, subresource=proxy)", caller.name);
        return text(StatusCode::FORBIDDEN, message);
    }
    let path = request.uri().path().trim_matches('/').to_owned();
    let params = Params::of(request.uri().query().unwrap_or_default());
    let parts: Vec<_> = path.split('/').collect();
    match parts.as_slice() {
        ["healthz" | "livez" | "readyz"] => text(StatusCode::OK, "ok"),
        ["pods"] => pod_list(door),
        ["stats", "summary"] => stats::summary(door).await,
        ["metrics"] => stats::metrics(door).await,
        ["containerLogs", namespace, pod, container] => {
            logs::logs(door, namespace, pod, container, &params).await
        }
        ["exec", namespace, pod, container] | ["exec", namespace, pod, _, container] => {
            streams::exec(door, namespace, pod, container, &params, request).await
        }
        ["attach", namespace, pod, container] | ["attach", namespace, pod, _, container] => {
            streams::attach(door, namespace, pod, container, &params, request).await
        }
        ["portForward", namespace, pod] | ["portForward", namespace, pod, _] => {
            streams::port_forward(door, namespace, pod, &params, request).await
        }
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

fn pod_list(door: &Door) -> Response<Body> {
    let items: Vec<_> = door.pods.borrow().values().map(|p| Pod::clone(p)).collect();
    let list = serde_json::json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items});
    content(StatusCode::OK, "application/json", list.to_string())
}

impl Door {
    /// A pod of this node by name.
    pub(super) fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let pods = self.pods.borrow();
        pods.values().find(|p| spec::namespace(p) == namespace && spec::name(p) == name).cloned()
    }

    /// All attempts of a container of a pod, the latest first.
    pub(super) async fn attempts(
        &self,
        pod: &Pod,
        container: &str,
    ) -> Result<Vec<ContainerStatus>, Response<Body>> {
        let uid = spec::uid(pod);
        let runtime = self.shared.runtime.runtime.as_ref();
        let observed = observe(runtime, uid, &self.shared.message_dir(uid), &mut BTreeMap::new()).await;
        let observed = observed
            .map_err(|e| text(StatusCode::INTERNAL_SERVER_ERROR, format!("container runtime: {e}")))?;
        Ok(observed.attempts(container).map(|c| c.status.clone()).collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn parameters() {
        let params = Params::of("command=echo&command=a%20b&command=%3D&tty=1&x");
        assert_eq!(params.all("command"), ["echo", "a b", "="]);
        assert!(params.is_true(&["tty"]) && !params.is_true(&["x", "y"]));
    }
}
