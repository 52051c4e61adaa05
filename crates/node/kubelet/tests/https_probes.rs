//! HTTPS probes against local servers: self-signed certificates, redirects, headers, and servers that misbehave.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use xebec_kubelet::probe::check::{Target, Verdict, check};

/// How a server answers the path of a request: the bytes of its answer. No answer at all keeps the client waiting.
type Answers = fn(path: &str) -> Option<String>;

/// A server on loopback that says goodbye properly or just hangs up.
struct Server {
    port: u16,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(answers: Answers, tls: Option<TlsAcceptor>, polite: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = heads.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, tls) = (seen.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => drop(answer(stream, answers, &seen, polite).await),
                        Some(tls) => {
                            // The client may have its reasons not to shake hands.
                            if let Ok(stream) = tls.accept(stream).await {
                                drop(answer(stream, answers, &seen, polite).await);
                            }
                        }
                    }
                });
            }
        });
        Self { port, heads }
    }

    /// Heads of the requests so far, in order.
    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    async fn get(&self, path: &str) -> Verdict {
        self.get_with(path, &json!([])).await
    }

    async fn get_with(&self, path: &str, headers: &Value) -> Verdict {
        let action = json!({"path": path, "port": self.port, "scheme": "HTTPS", "httpHeaders": headers});
        verdict(json!({"httpGet": action})).await
    }
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    answers: Answers,
    seen: &Mutex<Vec<String>>,
    polite: bool,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    seen.lock().unwrap().push(head);
    match answers(&path) {
        Some(text) => stream.write_all(text.as_bytes()).await?,
        None => std::future::pending().await,
    }
    stream.flush().await?;
    if polite { stream.shutdown().await } else { Ok(()) }
}

/// A certificate for a name that no probe uses. `old` is one of X.509 version 1, as many a tutorial makes them.
fn acceptor(old: bool) -> TlsAcceptor {
    let signed = rcgen::generate_simple_self_signed(["elsewhere.example".to_owned()]).unwrap();
    let mut certificate = signed.cert.der().to_vec();
    if old {
        let version = [0xa0, 0x03, 0x02, 0x01, 0x02];
        let at = certificate.windows(5).position(|part| part == version).unwrap();
        certificate[at + 4] = 0;
    }
    let key = PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
    let key = rustls::crypto::ring::sign::any_supported_type(&key).unwrap();
    let certified = rustls::sign::CertifiedKey::new(vec![CertificateDer::from(certificate)], key);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
    TlsAcceptor::from(Arc::new(config))
}

async fn verdict(probe: Value) -> Verdict {
    // Longer than any machine is busy: only the servers that never answer are to run into it.
    verdict_within(probe, Duration::from_secs(30)).await
}

async fn verdict_within(probe: Value, limit: Duration) -> Verdict {
    let probe: Probe = serde_json::from_value(probe).unwrap();
    let container = Container::default();
    let target = Target { container: &container, id: "c", ip: "127.0.0.1".parse().unwrap() };
    let runtime = support::runtime::FakeRuntime::new();
    check(&probe, &target, runtime.services().runtime.as_ref(), limit).await
}

fn reply(status: u16, headers: &str, body: &str) -> Option<String> {
    let length = body.len();
    Some(format!("HTTP/1.1 {status} Some words\r\nContent-Length: {length}\r\n{headers}\r\n{body}"))
}

fn to(status: u16, location: &str) -> Option<String> {
    reply(status, &format!("Location: {location}\r\n"), "moved")
}

fn web(path: &str) -> Option<String> {
    match path {
        "/ok" | "/ok?a=b" => reply(200, "", "fine"),
        "/created" => reply(201, "", ""),
        "/sub/moved" => to(302, "../ok?a=b"),
        "/gone" => to(308, "//other.example/ok"),
        "/away" => to(301, "https://other.example/ok"),
        "/round" => to(307, "/round"),
        "/nowhere" => to(302, "https://[::1/"),
        "/silent" => reply(302, "", ""),
        "/choices" => reply(300, "Location: /ok\r\n", "a or b"),
        "/old" => reply(404, "", "unknown"),
        "/endless" => None,
        _ => reply(500, "", "oh no"),
    }
}

fn unhealthy(text: &str) -> Verdict {
    Verdict::Unhealthy(text.to_owned())
}

fn warning(body: &str) -> Verdict {
    Verdict::Warning(format!("Probe terminated redirects, Response body: {body}"))
}

#[tokio::test]
async fn any_certificate_will_do_and_the_status_decides() {
    for old in [false, true] {
        let server = Server::start(web, Some(acceptor(old)), true).await;
        assert_eq!(server.get("/ok").await, Verdict::Healthy, "version 1: {old}");
        assert_eq!(server.get("/created").await, Verdict::Healthy);
        assert_eq!(server.get("/bad").await, unhealthy("HTTP probe failed with statuscode: 500"));
        assert_eq!(server.get("/old").await, unhealthy("HTTP probe failed with statuscode: 404"));
    }
}

#[tokio::test]
async fn redirects_on_the_same_host_are_followed() {
    let server = Server::start(web, Some(acceptor(false)), true).await;
    assert_eq!(server.get("/sub/moved").await, Verdict::Healthy);
    let paths: Vec<_> =
        server.heads().iter().map(|head| head.split(' ').nth(1).unwrap().to_owned()).collect();
    assert_eq!(paths, ["/sub/moved", "/ok?a=b"]);
    // Elsewhere is not asked.
    assert_eq!(server.get("/away").await, warning("moved"));
    assert_eq!(server.get("/gone").await, warning("moved"));
    // Nor is anybody without a redirect that says where to.
    assert_eq!(server.get("/silent").await, warning(""));
    assert_eq!(server.get("/choices").await, warning("a or b"));
    let Verdict::Unhealthy(text) = server.get("/nowhere").await else { panic!("it has nowhere to go") };
    assert!(text.contains("failed to parse Location header"), "{text}");
    let before = server.heads().len();
    let round =
        unhealthy(&format!("Get \"https://127.0.0.1:{}/round\": stopped after 10 redirects", server.port));
    assert_eq!(server.get("/round").await, round);
    assert_eq!(server.heads().len() - before, 10);
}

#[tokio::test]
async fn headers_are_the_probes_own() {
    let server = Server::start(web, Some(acceptor(false)), true).await;
    let lines = |head: &str| -> Vec<String> {
        let mut lines: Vec<_> =
            head.trim_end().lines().skip(1).map(str::to_lowercase).map(|l| l.replace(": ", ":")).collect();
        lines.sort();
        lines
    };
    assert_eq!(server.get("/ok").await, Verdict::Healthy);
    let host = format!("host:127.0.0.1:{}", server.port);
    let usual = ["accept:*/*", "connection:close", &host, "user-agent:kube-probe/1.36"];
    assert_eq!(lines(&server.heads()[0]), usual);

    let own = json!([
        {"name": "host", "value": "app.example"},
        {"name": "Host", "value": "second.example"},
        {"name": "X-Twice", "value": "1"},
        {"name": "X-Twice", "value": "2"},
        {"name": "User-Agent", "value": "me"},
        {"name": "Accept", "value": ""},
        {"name": "Content-Length", "value": "7"},
        {"name": "Transfer-Encoding", "value": "chunked"},
    ]);
    assert_eq!(server.get_with("/sub/moved", &own).await, Verdict::Healthy);
    let wanted = ["connection:close", "host:app.example", "user-agent:me", "x-twice:1", "x-twice:2"];
    let heads = server.heads();
    assert_eq!(heads.len(), 3);
    assert_eq!(lines(&heads[1]), wanted);
    assert_eq!(lines(&heads[2]), wanted, "a relative redirect stays with the probe's host");
    let silent = json!([{"name": "User-Agent", "value": ""}]);
    assert_eq!(server.get_with("/ok", &silent).await, Verdict::Healthy);
    assert!(!server.heads()[3].to_lowercase().contains("user-agent"), "{}", server.heads()[3]);
}

/// The port of the server that `back` redirects to.
static BACK: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(0);

fn back(path: &str) -> Option<String> {
    let port = BACK.load(std::sync::atomic::Ordering::SeqCst);
    match path {
        "/plain" => to(302, &format!("http://127.0.0.1:{port}/ok")),
        "/odd" => to(302, "ftp://127.0.0.1/ok"),
        _ => reply(500, "", ""),
    }
}

#[tokio::test]
async fn a_redirect_to_another_port_or_scheme_of_the_host_is_followed() {
    let plain = Server::start(web, None, true).await;
    BACK.store(plain.port, std::sync::atomic::Ordering::SeqCst);
    let server = Server::start(back, Some(acceptor(false)), true).await;
    let own = json!([{"name": "Host", "value": "app.example"}]);
    assert_eq!(server.get_with("/plain", &own).await, Verdict::Healthy);
    assert!(server.heads()[0].to_lowercase().contains("host: app.example\r\n"), "{}", server.heads()[0]);
    let second = plain.heads()[0].to_lowercase();
    let host = format!("host: 127.0.0.1:{}\r\n", plain.port);
    assert!(second.contains(&host), "the probe's host is not for the other server: {second}");
    let odd = server.get("/odd").await;
    assert_eq!(odd, unhealthy("Get \"ftp://127.0.0.1/ok\": unsupported protocol scheme \"ftp\""));
}

#[tokio::test]
async fn servers_that_never_answer_run_into_the_limit() {
    let text = |port: u16, path: &str| {
        let why = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
        unhealthy(&format!("Get \"https://127.0.0.1:{port}{path}\": {why}"))
    };
    let server = Server::start(web, Some(acceptor(false)), true).await;
    // One that does not even shake hands: its queue accepts the connection, nobody takes it.
    let deaf = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = deaf.local_addr().unwrap().port();
    let second = Duration::from_secs(1);
    let probe = |port: u16, path: &str| {
        verdict_within(json!({"httpGet": {"path": path, "port": port, "scheme": "HTTPS"}}), second)
    };
    let (endless, unheard) = tokio::join!(probe(server.port, "/endless"), probe(port, "/ok"));
    assert_eq!(endless, text(server.port, "/endless"));
    assert_eq!(unheard, text(port, "/ok"));
}

#[tokio::test]
async fn other_protocols_are_told_apart() {
    // A server of plain HTTP does not wait for the end of a request that it cannot read.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut piece = [0; 1024];
            let _ = stream.read(&mut piece).await;
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await;
            // All is read, so that the end is no reset that would overtake the answer.
            let _ = stream.shutdown().await;
            while let Ok(1..) = stream.read(&mut piece).await {}
        }
    });
    let probe = json!({"httpGet": {"path": "/ok", "port": port, "scheme": "HTTPS"}});
    let why = "tls: first record does not look like a TLS handshake";
    let wanted = unhealthy(&format!("Get \"https://127.0.0.1:{port}/ok\": {why}"));
    assert_eq!(verdict(probe).await, wanted);
    // And the other way round.
    let server = Server::start(web, Some(acceptor(false)), true).await;
    let probe = json!({"httpGet": {"path": "/ok", "port": server.port}});
    assert!(matches!(verdict(probe).await, Verdict::Unhealthy(_)));
    // Nobody there: a port that was taken just now and is not listened on.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port();
    let probe = json!({"httpGet": {"path": "/ok", "port": port, "scheme": "HTTPS"}});
    let Verdict::Unhealthy(text) = verdict(probe).await else { panic!("nobody is healthy") };
    assert!(text.contains("Connection refused"), "{text}");
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
}

fn hangs_up(path: &str) -> Option<String> {
    match path {
        "/undelimited" => Some("HTTP/1.1 200 OK\r\n\r\nall that there is".to_owned()),
        "/short" => Some("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nnot so much".to_owned()),
        "/long" => reply(200, "", &"x".repeat(1 << 20)),
        _ => Some("HTTP/1.1 2".to_owned()),
    }
}

#[tokio::test]
async fn answers_that_break_off() {
    let server = Server::start(hangs_up, Some(acceptor(false)), false).await;
    assert_eq!(server.get("/undelimited").await, Verdict::Healthy, "it ends where the connection does");
    assert!(matches!(server.get("/short").await, Verdict::Broken(_)));
    assert_eq!(server.get("/long").await, Verdict::Healthy, "nobody reads all of it");
    assert!(matches!(server.get("/head").await, Verdict::Unhealthy(_)));
}
