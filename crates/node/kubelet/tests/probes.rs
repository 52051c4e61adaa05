//! Probes against real local servers.
#![allow(clippy::unwrap_used)]

mod support;

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::{Container, Probe};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use xebec_kubelet::probe::check::{Target, Verdict, check};

async fn verdict(probe: Value) -> Verdict {
    let probe: Probe = serde_json::from_value(probe).unwrap();
    let container = Container::default();
    let target = Target { container: &container, id: "c", ip: "127.0.0.1".parse().unwrap() };
    let runtime = support::runtime::FakeRuntime::new();
    check(&probe, &target, runtime.services().runtime.as_ref(), Duration::from_secs(2)).await
}

async fn web(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let answer = Response::builder();
    let agent = request.headers()["user-agent"].to_str().unwrap().starts_with("kube-probe/");
    let (code, location) = match request.uri().path() {
        "/ok" if agent => (200, None),
        "/moved" => (302, Some("/ok")),
        "/away" => (302, Some("http://other.example/")),
        "/header" => (if request.headers().get("x-a").is_some() { 204 } else { 400 }, None),
        _ => (500, None),
    };
    let answer = answer.status(code);
    let answer = if let Some(to) = location { answer.header("location", to) } else { answer };
    Ok(answer.body(Full::default()).unwrap())
}

#[tokio::test]
async fn http_and_tcp() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(web)),
            );
        }
    });
    let get = |path: &str| verdict(json!({"httpGet": {"path": path, "port": port}}));
    assert_eq!(get("/ok").await, Verdict::Healthy);
    assert_eq!(get("/moved").await, Verdict::Healthy);
    assert!(matches!(get("/away").await, Verdict::Warning(_)));
    assert_eq!(get("/bad").await, Verdict::Unhealthy("HTTP probe failed with statuscode: 500".into()));
    let header = json!({"path": "/header", "port": port, "httpHeaders": [{"name": "X-A", "value": "1"}]});
    assert_eq!(verdict(json!({"httpGet": header})).await, Verdict::Healthy);
    assert_eq!(verdict(json!({"tcpSocket": {"port": port}})).await, Verdict::Healthy);
    assert!(matches!(verdict(json!({"httpGet": {"port": "none"}})).await, Verdict::Broken(_)));
}

#[tokio::test]
async fn grpc_health() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(|request: Request<Incoming>| async move {
                use http_body_util::BodyExt as _;
                let body = request.into_body().collect().await.unwrap().to_bytes();
                // The service "down" is not serving.
                let status = if body.ends_with(b"down") { 2 } else { 1 };
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().unwrap());
                let frames =
                    [Frame::data(Bytes::from(vec![0, 0, 0, 0, 2, 8, status])), Frame::trailers(trailers)];
                let body = StreamBody::new(futures::stream::iter(frames.map(Ok::<_, Infallible>)));
                Ok::<_, Infallible>(Response::new(body))
            });
            tokio::spawn(
                hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    assert_eq!(verdict(json!({"grpc": {"port": port}})).await, Verdict::Healthy);
    let down = verdict(json!({"grpc": {"port": port, "service": "down"}})).await;
    let text = "service unhealthy (responded with \"NOT_SERVING\")";
    assert_eq!(down, Verdict::Unhealthy(text.into()));
}
