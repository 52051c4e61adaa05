//! Logs, exec, attach, port-forward and proxy: requests that a pod's kubelet (or the pod) answers.

mod dial;
mod place;

use http::header::{CONNECTION, HOST, UPGRADE};
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use xebec_types::Status;

pub use dial::KubeletDialer;
use place::Place;

use crate::api::{Api, Call, chain};
use crate::body::{Body, BodyError};
use crate::catalog::Target;
use crate::reply::Reply;

/// Headers of one connection, not of the request (RFC 9110 §7.6.1), and those that carry our client's identity.
const NOT_FORWARDED: [&str; 7] =
    ["host", "authorization", "te", "trailer", "transfer-encoding", "content-length", "proxy-authorization"];

/// Bytes of a refusal that are read.
const MAX_REFUSAL: usize = 64 * 1024;

impl Api {
    /// Passes a request on to where the object lives, and the answer back; an upgraded connection byte by byte.
    ///
    /// # Errors
    /// 400 for a container that is not there, 500 when the kubelet cannot be reached.
    pub(crate) async fn to_kubelet(
        &self,
        call: &Call,
        method: &Method,
        target: &Target,
        name: &str,
    ) -> Reply {
        let entry = self.find(target, &call.info.namespace, &call.info.name).await?;
        let place = self.place(call, target, &entry.decode(), name)?;
        let stream = dial::connect(self.kubelets.as_ref(), &place).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| unreachable_status(&place, &error))?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "connection to a kubelet");
            }
        });
        let upgrading = call.headers.contains_key(UPGRADE);
        let client = call.upgrade.lock().ok().and_then(|mut upgrade| upgrade.take());
        if upgrading && client.is_none() {
            return Err(Status::bad_request("this connection cannot be upgraded; connect over HTTP/1.1"));
        }
        let request = forwarded(call, method, &place, upgrading)?;
        let mut response =
            sender.send_request(request).await.map_err(|error| unreachable_status(&place, &error))?;
        let far =
            (response.status() == StatusCode::SWITCHING_PROTOCOLS).then(|| hyper::upgrade::on(&mut response));
        if let (Some(far), Some(near)) = (far, client) {
            tokio::spawn(splice(near, far));
        }
        if name == "log" && !response.status().is_success() {
            return Err(refusal(response, &call.info.name).await);
        }
        Ok(returned(response, upgrading))
    }

    fn place(
        &self,
        call: &Call,
        target: &Target,
        object: &serde_json::Value,
        name: &str,
    ) -> Result<Place, Status> {
        match (target.resource().names.plural.as_str(), name) {
            ("pods", "log") => place::log(self, call, object),
            ("pods", "exec" | "attach") => place::exec(self, call, object, name),
            ("pods", "portforward") => place::port_forward(self, call, object),
            ("pods", "proxy") => place::pod_proxy(call, object),
            ("nodes", "proxy") => place::node_proxy(call, object),
            ("services", "proxy") => place::service_proxy(self, call, object),
            _ => Err(Status::no_such_resource()),
        }
    }
}

/// What a kubelet says against a request for a log, as a Status: upstream's `GenericHttpResponseChecker`.
async fn refusal(response: Response<hyper::body::Incoming>, name: &str) -> Status {
    let code = response.status();
    let text = match Limited::new(response.into_body(), MAX_REFUSAL).collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        Err(error) => return Status::internal(error),
    };
    match code {
        StatusCode::BAD_REQUEST => Status::bad_request(text),
        StatusCode::NOT_FOUND => {
            let message = format!("the server could not find the requested resource ( pods {name})");
            Status::new(404, "NotFound", message)
        }
        _ => Status::internal(text),
    }
}

fn unreachable_status(place: &Place, error: &dyn std::error::Error) -> Status {
    Status::internal(format!("error dialing backend {}: {}", place.address(), chain(error)))
}

fn forwarded(
    call: &Call,
    method: &Method,
    place: &Place,
    upgrading: bool,
) -> Result<Request<Full<bytes::Bytes>>, Status> {
    let mut request = Request::builder().method(method).uri(&place.path);
    if let Some(headers) = request.headers_mut() {
        copy_headers(&call.headers, headers, upgrading);
        if let Ok(host) = place.address().parse() {
            headers.insert(HOST, host);
        }
    }
    request
        .body(Full::new(call.body.clone()))
        .map_err(|error| Status::bad_request(format!("the request cannot be passed on: {error}")))
}

fn copy_headers(from: &HeaderMap, to: &mut HeaderMap, upgrading: bool) {
    for (name, value) in from {
        let hop = *name == CONNECTION || *name == UPGRADE || *name == HeaderName::from_static("keep-alive");
        if !NOT_FORWARDED.contains(&name.as_str()) && (upgrading || !hop) {
            to.append(name, value.clone());
        }
    }
}

fn returned(response: Response<hyper::body::Incoming>, upgrading: bool) -> Response<Body> {
    let (parts, body) = response.into_parts();
    let upgraded = parts.status == StatusCode::SWITCHING_PROTOCOLS;
    let body = match upgraded {
        true => Body::empty(),
        false => Body::stream(futures::StreamExt::map(body.into_data_stream(), |piece| {
            piece.map_err(|error| Box::new(error) as BodyError)
        })),
    };
    let mut answer = Response::new(body);
    *answer.status_mut() = parts.status;
    copy_headers(&parts.headers, answer.headers_mut(), upgrading);
    answer
}

/// Copies bytes in both directions until both ends have closed.
async fn splice(near: OnUpgrade, far: OnUpgrade) {
    match tokio::try_join!(near, far) {
        Ok((near, far)) => {
            let (mut near, mut far) = (TokioIo::new(near), TokioIo::new(far));
            if let Err(error) = tokio::io::copy_bidirectional(&mut near, &mut far).await {
                tracing::debug!(%error, "a stream to a pod broke off");
            }
        }
        Err(error) => tracing::debug!(%error, "a connection was not upgraded"),
    }
}
