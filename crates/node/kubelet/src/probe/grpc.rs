//! gRPC probes: `grpc.health.v1.Health/Check` by hand, because one string in and one enum out need no code generator.

use std::net::IpAddr;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::GRPCAction;
use tokio::net::TcpStream;

use super::check::Verdict;
use crate::spec;

/// An answer is two bytes; nothing reasonable is longer than this.
const MAX_ANSWER: usize = 64 << 10;
/// `HealthCheckResponse.ServingStatus.SERVING`.
const SERVING: u64 = 1;

/// Asks the health service.
pub async fn probe(action: &GRPCAction, ip: IpAddr) -> Verdict {
    let Ok(port) = u16::try_from(action.port) else {
        return Verdict::Broken(format!("port {} is out of range", action.port));
    };
    let authority = format!("{}:{port}", spec::bracketed(ip));
    match ask(&authority, action.service.as_deref().unwrap_or_default()).await {
        Ok(Reply { status: Some(SERVING), code: 0 }) => Verdict::Healthy,
        Ok(Reply { code: 12, .. }) => Verdict::Unhealthy(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health)".into(),
        ),
        Ok(Reply { code: 0, status }) => {
            let name = match status {
                Some(2) => "NOT_SERVING",
                Some(3) => "SERVICE_UNKNOWN",
                _ => "UNKNOWN",
            };
            Verdict::Unhealthy(format!("service unhealthy (responded with \"{name}\")"))
        }
        Ok(Reply { code, .. }) => {
            Verdict::Unhealthy(format!("error: health rpc probe failed with code {code}"))
        }
        Err(text) => {
            Verdict::Unhealthy(format!("timeout: failed to connect service \"{authority}\": {text}"))
        }
    }
}

struct Reply {
    status: Option<u64>,
    code: u32,
}

async fn ask(authority: &str, service: &str) -> Result<Reply, String> {
    let stream = TcpStream::connect(authority).await.map_err(|e| e.to_string())?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|e| e.to_string())?;
    let request = Request::post(format!("http://{authority}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.36")
        .body(Full::new(message(service)))
        .map_err(|e| e.to_string())?;
    let talk = async {
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let code = |headers: Option<&http::HeaderMap>| -> Option<u32> {
            headers?.get("grpc-status")?.to_str().ok()?.parse().ok()
        };
        let early = code(Some(response.headers()));
        let body =
            Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(|e| e.to_string())?;
        let code = code(body.trailers()).or(early).unwrap_or(2);
        Ok(Reply { status: serving_status(&body.to_bytes()), code })
    };
    let mut connection = std::pin::pin!(connection);
    let mut talk = std::pin::pin!(talk);
    tokio::select! {
        reply = &mut talk => reply,
        _ = &mut connection => talk.await,
    }
}

/// gRPC frame (flag, length) around `HealthCheckRequest { string service = 1 }`.
fn message(service: &str) -> Bytes {
    let mut body = Vec::new();
    if !service.is_empty() {
        body.push(0x0a);
        put_varint(&mut body, service.len() as u64);
        body.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend(body);
    frame.into()
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Field 1 of the answer (`HealthCheckResponse { ServingStatus status = 1 }`); absent is 0.
fn serving_status(frame: &[u8]) -> Option<u64> {
    let body = frame.get(5..)?;
    match body {
        [] => Some(0),
        [0x08, value, ..] if *value < 0x80 => Some(u64::from(*value)),
        _ => None,
    }
}
