//! The protocols as upstream's kubectl speaks them. Skipped where there is no kubectl.
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use xebec_streaming::exec::{self, Options};
use xebec_streaming::{Endpoint, Outcome, Protocol, negotiate, portforward};

const POD: &str = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p","namespace":"default","uid":"u"},
"spec":{"containers":[{"name":"c","image":"i","stdin":true}]},"status":{"phase":"Running"}}"#;
const CORE: &str = r#"{"kind":"APIResourceList","groupVersion":"v1","resources":[
{"name":"pods","singularName":"pod","namespaced":true,"kind":"Pod","verbs":["get","list"],"shortNames":["po"]}]}"#;

/// Just enough of an API server for one pod.
async fn answer(mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let endpoint = match path.rsplit('/').next().unwrap() {
        "exec" => Endpoint::Exec,
        "portforward" => Endpoint::PortForward,
        last => {
            let body = match last {
                "api" => r#"{"kind":"APIVersions","versions":["v1"]}"#,
                "apis" => r#"{"kind":"APIGroupList","apiVersion":"v1","groups":[]}"#,
                "v1" => CORE,
                "p" => POD,
                _ => return Ok(Response::builder().status(404).body(Full::default()).unwrap()),
            };
            let json = Response::builder().header("content-type", "application/json");
            return Ok(json.body(Full::from(body)).unwrap());
        }
    };
    let query = request.uri().query().unwrap_or_default().to_owned();
    let handshake = match negotiate(endpoint, request.headers()) {
        Ok(handshake) => handshake,
        Err(error) => {
            let mut response = Response::new(Full::from(error.to_string()));
            *response.status_mut() = error.status;
            *response.headers_mut() = error.headers();
            return Ok(response);
        }
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let io = TokioIo::new(upgrade.await.unwrap());
        match endpoint {
            Endpoint::Exec => run(io, handshake.protocol, &query).await,
            Endpoint::PortForward => forward(io, handshake.protocol).await,
        }
    });
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = handshake.headers;
    Ok(response)
}

/// A command that copies stdin in capitals, complains, and ends with 3.
async fn run<T: xebec_streaming::Io>(io: T, protocol: Protocol, query: &str) {
    let has = |name: &str| query.split('&').any(|q| q == format!("{name}=true"));
    let options =
        Options { stdin: has("stdin"), stdout: has("stdout"), stderr: has("stderr"), tty: has("tty") };
    let mut streams = exec::serve(io, protocol, options).await.unwrap();
    let (mut stdout, mut text) = (streams.stdout.take().unwrap(), String::new());
    if let Some(mut stdin) = streams.stdin.take() {
        // `kubectl exec -i` closes stdin, which version 4 over WebSocket cannot say: it sends a line.
        BufReader::new(&mut stdin).read_line(&mut text).await.unwrap();
    }
    stdout.write_all(text.to_uppercase().as_bytes()).await.unwrap();
    stdout.write_all(&vec![b'x'; 1 << 20]).await.unwrap();
    streams.stderr.take().unwrap().write_all(b"complaint\n").await.unwrap();
    streams.status.finish(&Outcome::Exited(3)).await;
}

async fn forward<T: xebec_streaming::Io>(io: T, protocol: Protocol) {
    let mut forwards = portforward::serve(io, protocol, &[]).await.unwrap();
    while let Some(mut forward) = forwards.accept().await {
        tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(&mut forward.data);
            // The client may leave at any time.
            let _ = tokio::io::copy(&mut read, &mut write).await;
            let _ = write.shutdown().await;
        });
    }
}

async fn server() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper::service::service_fn(answer);
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection.with_upgrades());
        }
    });
    address
}

fn kubectl(address: SocketAddr, websockets: bool, arguments: &[&str]) -> Command {
    let mut command = Command::new("kubectl");
    let home = std::env::temp_dir();
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", home);
    command.env("KUBECONFIG", "/dev/null");
    command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets.to_string());
    command.env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets.to_string());
    command.args(["--server", &format!("http://{address}"), "--cache-dir", "/nonexistent"]).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

fn has_kubectl() -> bool {
    let found = std::process::Command::new("kubectl").args(["version", "--client"]).output().is_ok();
    if !found {
        eprintln!("skipped: there is no kubectl");
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_execs() {
    if !has_kubectl() {
        return;
    }
    let address = server().await;
    for websockets in [true, false] {
        let mut child = kubectl(address, websockets, &["exec", "-i", "p", "--", "shout"]).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"hello\n").await.unwrap();
        let output =
            tokio::time::timeout(Duration::from_secs(60), child.wait_with_output()).await.unwrap().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.stdout.starts_with(b"HELLO\nxxx"), "websockets {websockets}: {errors}");
        assert_eq!(output.stdout.len(), 6 + (1 << 20), "websockets {websockets}");
        assert!(errors.contains("complaint") && errors.contains("exit code 3"), "{errors}");
        assert_eq!(output.status.code(), Some(3));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_forwards_ports() {
    if !has_kubectl() {
        return;
    }
    let address = server().await;
    for websockets in [true, false] {
        let mut child = kubectl(address, websockets, &["port-forward", "p", ":80"]).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = tokio::time::timeout(Duration::from_secs(60), lines.next_line()).await.unwrap().unwrap();
        let Some(line) = line else {
            let mut errors = String::new();
            child.stderr.take().unwrap().read_to_string(&mut errors).await.unwrap();
            panic!("{errors}");
        };
        let local = line.split_whitespace().find_map(|w| w.strip_prefix("127.0.0.1:")).unwrap().to_owned();
        for _ in 0..3 {
            let mut stream = tokio::net::TcpStream::connect(format!("127.0.0.1:{local}")).await.unwrap();
            let sent = vec![7u8; 1 << 20];
            let (mut read, mut write) = stream.split();
            let send = async {
                write.write_all(&sent).await.unwrap();
                write.shutdown().await.unwrap();
            };
            let mut got = Vec::new();
            let both = async { tokio::join!(send, read.read_to_end(&mut got)).1 };
            tokio::time::timeout(Duration::from_secs(60), both).await.expect("echoes in time").unwrap();
            assert!(got == sent, "websockets {websockets}: {} bytes", got.len());
        }
        child.kill().await.unwrap();
    }
}
