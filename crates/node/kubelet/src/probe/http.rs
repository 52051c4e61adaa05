//! HTTP probes and hooks.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::HTTPGetAction;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::check::{Target, Verdict};
use crate::spec;

/// Redirects that are followed (Go's default).
const MAX_REDIRECTS: usize = 10;
/// Bytes of a body that are read.
const MAX_BODY: usize = 10 << 10;

/// Answers of a GET: status and the beginning of the body.
#[derive(Debug)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Beginning of the body.
    pub body: Bytes,
}

/// Runs an HTTP probe: 200–399 is success, redirects on the same host are followed, one to another host is a success
/// with a warning.
pub async fn probe(action: &HTTPGetAction, target: &Target<'_>) -> Verdict {
    let mut uri = match uri(action, target) {
        Ok(uri) => uri,
        Err(text) => return Verdict::Broken(text),
    };
    let first_host = uri.host().map(str::to_owned);
    for _ in 0..=MAX_REDIRECTS {
        let answer = match get(&uri, action, "kube-probe/1.36").await {
            Ok(answer) => answer,
            Err(text) => return Verdict::Unhealthy(format!("Get \"{uri}\": {text}")),
        };
        if !answer.status.is_redirection() {
            return judge(&answer);
        }
        let Some(next) = answer.headers.get(header::LOCATION).and_then(|l| resolve(&uri, l)) else {
            return judge(&answer);
        };
        if next.host().map(str::to_owned) != first_host {
            return Verdict::Warning("Probe terminated redirects".into());
        }
        uri = next;
    }
    Verdict::Unhealthy(format!("Get \"{uri}\": stopped after {MAX_REDIRECTS} redirects"))
}

fn judge(answer: &Answer) -> Verdict {
    if (200..400).contains(&answer.status.as_u16()) {
        return Verdict::Healthy;
    }
    Verdict::Unhealthy(format!("HTTP probe failed with statuscode: {}", answer.status.as_u16()))
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

fn resolve(base: &Uri, location: &HeaderValue) -> Option<Uri> {
    let text = location.to_str().ok()?;
    let next: Uri = text.parse().ok()?;
    if next.scheme().is_some() {
        return Some(next);
    }
    let path = if text.starts_with('/') {
        text.to_owned()
    } else {
        let directory = base.path().rsplit_once('/').map_or("", |(d, _)| d);
        format!("{directory}/{text}")
    };
    format!("{}://{}{path}", base.scheme_str()?, base.authority()?).parse().ok()
}

/// One GET with the action's headers. Certificates are not checked: probes reach pods by address.
pub async fn get(uri: &Uri, action: &HTTPGetAction, agent: &str) -> Result<Answer, String> {
    let host = uri.host().ok_or("no host")?.trim_matches(['[', ']']).to_owned();
    let https = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
    let stream = TcpStream::connect((host.as_str(), port)).await.map_err(|e| format!("dial tcp: {e}"))?;
    let request = request(uri, action, agent)?;
    if !https {
        return send(stream, request).await;
    }
    let name = ServerName::try_from(host).map_err(|e| e.to_string())?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(unverified()?));
    let stream = connector.connect(name, stream).await.map_err(|e| format!("tls: {e}"))?;
    send(stream, request).await
}

fn request(uri: &Uri, action: &HTTPGetAction, agent: &str) -> Result<Request<Empty<Bytes>>, String> {
    let mut headers = HeaderMap::new();
    for pair in action.http_headers.iter().flatten() {
        let name: HeaderName =
            pair.name.parse().map_err(|_| format!("invalid header name {:?}", pair.name))?;
        let value = HeaderValue::from_str(&pair.value).map_err(|_| format!("invalid value of {name}"))?;
        headers.append(name, value);
    }
    let defaults = [
        (header::USER_AGENT, agent),
        (header::ACCEPT, "*/*"),
        (header::HOST, uri.authority().map_or("", |a| a.as_str())),
        (header::CONNECTION, "close"),
    ];
    for (name, value) in defaults {
        if !headers.contains_key(&name) {
            headers.insert(name, HeaderValue::from_str(value).map_err(|e| e.to_string())?);
        }
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
        // A body that is too long or breaks off does not matter once the status is known.
        let body = Limited::new(body, MAX_BODY).collect().await.map(|b| b.to_bytes()).unwrap_or_default();
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    };
    let mut connection = std::pin::pin!(connection);
    let mut talk = std::pin::pin!(talk);
    tokio::select! {
        answer = &mut talk => answer,
        _ = &mut connection => talk.await,
    }
}

fn unverified() -> Result<rustls::ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(Anyone(provider.clone()));
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    Ok(config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

/// Believes every certificate.
#[derive(Debug)]
struct Anyone(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
