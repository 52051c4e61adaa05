//! HTTP probes and hooks.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::HTTPGetAction;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::check::{Target, Verdict};
use super::{redirect, tls};
use crate::spec;

/// Requests of one probe, redirects included (Go's default).
const MAX_REQUESTS: usize = 10;
/// Bytes of a body that are read.
const MAX_BODY: usize = 10 << 10;
/// Who asks, as upstream's kubelet of this version says it.
const AGENT: &str = "kube-probe/1.36";

/// Answer to a GET.
#[derive(Debug)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Beginning of the body, or why it broke off.
    pub body: Result<Bytes, String>,
}

/// Runs an HTTP probe: 200–299 is success, redirects on the same host are followed, one to another host is a success
/// with a warning, as is another answer of 300–399 (`pkg/probe/http` upstream).
pub async fn probe(action: &HTTPGetAction, target: &Target<'_>, limit: Duration) -> Verdict {
    let mut uri = match uri(action, target) {
        Ok(uri) => uri,
        Err(text) => return Verdict::Broken(text),
    };
    let probed = tokio::time::timeout(limit, follow(&mut uri, action)).await;
    let failure = match probed {
        Ok(Ok(answer)) => return judge(answer),
        Ok(Err(text)) => text,
        Err(_) => "context deadline exceeded (Client.Timeout exceeded while awaiting headers)".into(),
    };
    Verdict::Unhealthy(format!("Get \"{uri}\": {failure}"))
}

/// The answer at the end of all redirects on the same host. `uri` is the last one that was asked.
async fn follow(uri: &mut Uri, action: &HTTPGetAction) -> Result<Answer, String> {
    let first_host = uri.host().map(str::to_owned);
    let mut own_host = true;
    for _ in 0..MAX_REQUESTS {
        let answer = send_to(uri, headers(action, AGENT, own_host)?).await?;
        // The others of 300–399 are no redirects to Go's client either.
        if !matches!(answer.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Ok(answer);
        }
        let Some(location) = answer.headers.get(header::LOCATION).filter(|l| !l.is_empty()) else {
            return Ok(answer);
        };
        let (next, relative) = redirect::resolve(uri, location)
            .ok_or_else(|| format!("failed to parse Location header {location:?}"))?;
        if next.host().map(str::to_owned) != first_host {
            return Ok(answer);
        }
        // A `Host` of the probe's own is for the server that the probe names.
        own_host = relative;
        *uri = next;
    }
    Err(format!("stopped after {MAX_REQUESTS} redirects"))
}

fn judge(answer: Answer) -> Verdict {
    let status = answer.status.as_u16();
    match (answer.body, status) {
        (Err(text), _) => Verdict::Broken(text),
        (Ok(_), 200..300) => Verdict::Healthy,
        (Ok(body), 300..400) => {
            let body = String::from_utf8_lossy(&body);
            Verdict::Warning(format!("Probe terminated redirects, Response body: {body}"))
        }
        _ => Verdict::Unhealthy(format!("HTTP probe failed with statuscode: {status}")),
    }
}

/// Address that an action asks for.
pub fn uri(action: &HTTPGetAction, target: &Target<'_>) -> Result<Uri, String> {
    let port = spec::resolve_port(target.container, &action.port)
        .ok_or_else(|| format!("port {:?} not found", action.port))?;
    let host = action.host.clone().filter(|h| !h.is_empty()).unwrap_or_else(|| spec::bracketed(target.ip));
    let scheme = action.scheme.as_deref().unwrap_or("HTTP").to_lowercase();
    let path = action.path.as_deref().unwrap_or("/");
    let slash = if path.starts_with('/') { "" } else { "/" };
    format!("{scheme}://{host}:{port}{slash}{path}").parse().map_err(|e| format!("invalid address: {e}"))
}

/// One GET with the action's headers. Certificates are not checked: probes reach pods by address.
pub async fn get(uri: &Uri, action: &HTTPGetAction, agent: &str) -> Result<Answer, String> {
    send_to(uri, headers(action, agent, true)?).await
}

async fn send_to(uri: &Uri, headers: HeaderMap) -> Result<Answer, String> {
    let host = uri.host().ok_or("no host")?.trim_matches(['[', ']']).to_owned();
    let https = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        other => return Err(format!("unsupported protocol scheme {:?}", other.unwrap_or_default())),
    };
    let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
    let stream = TcpStream::connect((host.as_str(), port)).await.map_err(|e| format!("dial tcp: {e}"))?;
    let request = request(uri, headers)?;
    if !https {
        return send(stream, request).await;
    }
    send(tls::connect(host, stream).await?, request).await
}

/// The headers of an action, with those that a probe always has. The first `Host` is the request's, if it may be.
fn headers(action: &HTTPGetAction, agent: &str, own_host: bool) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for pair in action.http_headers.iter().flatten() {
        let name: HeaderName =
            pair.name.parse().map_err(|_| format!("invalid header name {:?}", pair.name))?;
        let value = HeaderValue::from_str(&pair.value).map_err(|_| format!("invalid value of {name}"))?;
        // What describes the body is the client's to say; Go's drops it as well.
        let framing = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::TRAILER].contains(&name);
        let host = name == header::HOST && (!own_host || headers.contains_key(&name) || value.is_empty());
        if !framing && !host {
            headers.append(name, value);
        }
    }
    let defaults = [(header::USER_AGENT, agent), (header::ACCEPT, "*/*")];
    for (name, value) in defaults {
        match headers.get(&name) {
            None => drop(headers.insert(name, HeaderValue::from_str(value).map_err(|e| e.to_string())?)),
            // An empty one is how a probe does without.
            Some(value) if value.is_empty() => drop(headers.remove(name)),
            Some(_) => {}
        }
    }
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    Ok(headers)
}

fn request(uri: &Uri, mut headers: HeaderMap) -> Result<Request<Empty<Bytes>>, String> {
    if !headers.contains_key(header::HOST) {
        let authority = uri.authority().map_or("", |a| a.as_str());
        headers.insert(header::HOST, HeaderValue::from_str(authority).map_err(|e| e.to_string())?);
    }
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    let mut request = Request::new(Empty::new());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = path.parse().map_err(|_| "invalid path".to_owned())?;
    *request.headers_mut() = headers;
    Ok(request)
}

async fn send<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let talk = async {
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let (parts, body) = response.into_parts();
        let body = beginning(body, &parts.headers).await;
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    };
    let mut connection = std::pin::pin!(connection);
    let mut talk = std::pin::pin!(talk);
    tokio::select! {
        answer = &mut talk => answer,
        _ = &mut connection => talk.await,
    }
}

/// Reads as much of a body as is wanted. One that only the connection's end delimits may end in any way.
async fn beginning(mut body: Incoming, headers: &HeaderMap) -> Result<Bytes, String> {
    let delimited =
        headers.contains_key(header::CONTENT_LENGTH) || headers.contains_key(header::TRANSFER_ENCODING);
    let mut text = BytesMut::new();
    while text.len() < MAX_BODY {
        match body.frame().await {
            Some(Ok(frame)) => text.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
            Some(Err(error)) if delimited => return Err(format!("read body: {error}")),
            Some(Err(_)) | None => break,
        }
    }
    text.truncate(MAX_BODY);
    Ok(text.freeze())
}
