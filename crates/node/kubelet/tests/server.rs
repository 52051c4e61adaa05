//! The HTTPS server: who may call, logs, exec and port-forward.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use rcgen::{CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use serde_json::json;
use support::{Node, phase};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use xebec_kubelet::ServerConfig;

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    fn issue(&self, name: &str, group: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".into()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, group);
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        (certificate, PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())))
    }

    fn roots(&self) -> Arc<rustls::RootCertStore> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        Arc::new(roots)
    }

    fn server(&self) -> ServerConfig {
        let (certificate, key) = self.issue("node1", "system:nodes");
        let key = rustls::crypto::ring::sign::any_supported_type(&key).unwrap();
        let certified = rustls::sign::CertifiedKey::new(vec![certificate], key);
        ServerConfig {
            bind: "127.0.0.1:0".parse().unwrap(),
            certificate: Arc::new(rustls::sign::SingleCertAndKey::from(certified)),
            client_ca: self.roots(),
            api_server_name: "kube-apiserver-kubelet-client".into(),
        }
    }
}

struct Caller<'a> {
    authority: &'a Authority,
    identity: Option<(&'a str, &'a str)>,
    address: std::net::SocketAddr,
}

impl Caller<'_> {
    async fn connect(&self) -> TlsStream<TcpStream> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.authority.roots());
        let config = match self.identity {
            Some((name, group)) => {
                let (certificate, key) = self.authority.issue(name, group);
                builder.with_client_auth_cert(vec![certificate], key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        let stream = TcpStream::connect(self.address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap()
    }

    /// Status line and body of a GET.
    async fn get(&self, path: &str) -> (String, String) {
        let mut stream = self.connect().await;
        let request = format!("GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap_or_default();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    }

    /// A connection after its upgrade.
    async fn upgrade(&self, path: &str, protocol: &str) -> TlsStream<TcpStream> {
        let mut stream = self.connect().await;
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             sec-websocket-protocol: {protocol}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        stream
    }
}

#[tokio::test]
async fn callers_are_told_apart_and_logs_are_read() {
    let authority = Authority::new();
    let mut node = Node::new();
    node.config.server = Some(authority.server());
    node.up().await;
    node.create("web", json!({"containers": [{"name": "a", "image": "run:1"}]})).await;
    node.wait("web", "running", |p| phase(p) == "Running").await;
    let address = node.address.unwrap();
    let caller = |identity| Caller { authority: &authority, identity, address };
    let api_server = caller(Some(("kube-apiserver-kubelet-client", "x")));
    assert!(caller(None).get("/pods").await.0.contains("401"));
    assert!(caller(Some(("joe", "users"))).get("/pods").await.0.contains("403"));
    assert!(caller(Some(("root", "system:masters"))).get("/healthz").await.0.contains("200"));
    assert!(api_server.get("/pods").await.1.contains("\"web\""));
    let (_, log) = api_server.get("/containerLogs/n/web/a?tailLines=1&timestamps=true").await;
    assert_eq!(log, "2026-01-01T00:00:00.000000001Z hello\n");
    let (status, text) = api_server.get("/containerLogs/n/web/a?previous=true").await;
    assert!(status.contains("400") && text.contains("previous terminated container"), "{status} {text}");
    assert!(api_server.get("/containerLogs/n/web/a?tailLines=x").await.0.contains("400"));
    assert!(api_server.get("/containerLogs/n/no/a").await.0.contains("404"));
    // Following ends with the container.
    let mut stream = api_server.connect().await;
    let request = b"GET /containerLogs/n/web/a?follow=true HTTP/1.0\r\nhost: localhost\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut log = Vec::new();
    while !log.ends_with(b"hello\n") {
        log.push(stream.read_u8().await.unwrap());
    }
    node.runtime.exit("a", 0);
    stream.read_to_end(&mut log).await.unwrap_or_default();
    node.down().await;
}

#[tokio::test]
async fn exec_and_port_forward_reach_the_container() {
    let authority = Authority::new();
    let mut node = Node::new();
    node.config.server = Some(authority.server());
    node.up().await;
    node.create("web", json!({"containers": [{"name": "a", "image": "run:1"}]})).await;
    node.wait("web", "running", |p| phase(p) == "Running").await;
    let identity = Some(("kube-apiserver-kubelet-client", "x"));
    let caller = Caller { authority: &authority, identity, address: node.address.unwrap() };

    let path = "/exec/n/web/a?command=cat&input=1&output=1";
    let io = caller.upgrade(path, "v5.channel.k8s.io").await;
    let protocol = xebec_streaming::Protocol { wire: xebec_streaming::Wire::WebSocket, version: 5 };
    let options = xebec_streaming::exec::Options { stdin: true, stdout: true, ..Default::default() };
    let mut command = xebec_streaming::client::exec(io, protocol, options).await.unwrap();
    let mut stdin = command.stdin.take().unwrap();
    stdin.write_all(b"hi").await.unwrap();
    stdin.shutdown().await.unwrap();
    let mut out = String::new();
    command.stdout.take().unwrap().read_to_string(&mut out).await.unwrap();
    assert_eq!(out, "> hi");
    assert_eq!(command.wait().await.unwrap(), xebec_streaming::Outcome::Exited(7));

    let io = caller.upgrade("/portForward/n/web", "SPDY/3.1+portforward.k8s.io").await;
    let protocol = xebec_streaming::Protocol { wire: xebec_streaming::Wire::WebSocketTunnel, version: 1 };
    let mut forwarder = xebec_streaming::client::PortForwarder::start(io, protocol).await.unwrap();
    let mut connection = forwarder.connect(80).await.unwrap();
    connection.data.write_all(b"ping").await.unwrap();
    let mut answer = [0; 4];
    connection.data.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"ping");

    // The old form has no end of a stream: the connection ends when the pod has closed its side.
    let mut io = caller.upgrade("/portForward/n/web?port=81", "v4.channel.k8s.io").await;
    // A final binary frame with a mask of zeros: channel 0, and what the pod ends upon.
    io.write_all(&[0x82, 0x85, 0, 0, 0, 0, 0, b'q', b'u', b'i', b't']).await.unwrap();
    let mut all = Vec::new();
    io.read_to_end(&mut all).await.unwrap_or_default();
    let has = |part: &[u8]| all.windows(part.len()).any(|window| window == part);
    // Port 81 on both channels, the echo, and a close frame with code 1000.
    assert!(has(&[0x82, 3, 0, 81, 0]) && has(&[0x82, 3, 1, 81, 0]) && has(&[0x82, 5, 0, b'q']), "{all:?}");
    assert!(has(&[0x88, 2, 0x03, 0xe8]), "{all:?}");
    node.down().await;
}
