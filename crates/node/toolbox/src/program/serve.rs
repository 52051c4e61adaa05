//! Servers that tell who asks: HTTP, and echo over TCP and UDP.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::Answer;
use super::signals::{Stop, reap_orphans};
use super::small::hostname_text;

/// How long running requests may take after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);
/// Connections served at once.
const MAX_CONNECTIONS: usize = 1024;
const MAX_HEAD: u64 = 64 * 1024;
const MAX_BODY: u64 = 16 * 1024 * 1024;

static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);

/// `serve [--http PORT] [--tcp PORT] [--udp PORT]`, or `HTTP_PORT`, `TCP_PORT`, `UDP_PORT` in the environment.
pub fn run(arguments: &[String]) -> Answer {
    let (mut http, mut tcp, mut udp) =
        (port_of("HTTP_PORT", 8080)?, port_of("TCP_PORT", 8081)?, port_of("UDP_PORT", 8082)?);
    let mut rest = arguments.iter();
    while let Some(option) = rest.next() {
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => (option.as_str(), rest.next().ok_or_else(|| format!("{option} wants a port"))?.clone()),
        };
        let port = value.parse().map_err(|_| format!("{value:?} is no port"))?;
        match name {
            "--http" => http = port,
            "--tcp" => tcp = port,
            "--udp" => udp = port,
            other => return Err(format!("unknown option {other:?}: --http, --tcp and --udp are known")),
        }
    }
    reap_orphans();
    let stop = Stop::listen()?;
    let http = listen(http)?;
    let tcp = listen(tcp)?;
    let udp = bind(udp, UdpSocket::bind)?;
    let at = |a: std::io::Result<SocketAddr>| a.map(|a| a.port()).unwrap_or(0);
    log(&format!(
        "serving http on :{}, tcp echo on :{}, udp echo on :{}",
        at(http.local_addr()),
        at(tcp.local_addr()),
        at(udp.local_addr())
    ));
    thread::spawn(move || accept(&http, serve_http));
    thread::spawn(move || accept(&tcp, echo_tcp));
    thread::spawn(move || echo_udp(&udp));
    stop.wait();
    let deadline = Instant::now() + GRACE;
    while CONNECTIONS.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(10));
    }
    log("stopped");
    Ok(0)
}

/// A line for `kubectl logs`. Nobody may be listening.
fn log(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn port_of(variable: &str, default: u16) -> Result<u16, String> {
    match std::env::var(variable) {
        Ok(text) => text.parse().map_err(|_| format!("{variable}={text:?} is no port")),
        Err(_) => Ok(default),
    }
}

fn listen(port: u16) -> Result<TcpListener, String> {
    bind(port, TcpListener::bind)
}

/// On both address families where there are two.
fn bind<T>(port: u16, bind: impl Fn(SocketAddr) -> std::io::Result<T>) -> Result<T, String> {
    let any = |text: &str| SocketAddr::new(text.parse().expect("invariant: an address"), port);
    bind(any("::")).or_else(|_| bind(any("0.0.0.0"))).map_err(|e| format!("port {port}: {e}"))
}

fn accept(listener: &TcpListener, serve: fn(TcpStream) -> std::io::Result<()>) {
    for stream in listener.incoming().flatten() {
        if CONNECTIONS.load(Ordering::Acquire) >= MAX_CONNECTIONS {
            continue;
        }
        thread::spawn(move || {
            // Clients come and go; that is no failure of ours.
            let _ = serve(stream);
        });
    }
}

/// Counts requests that a stop should wait for.
struct Busy;

impl Busy {
    fn new() -> Self {
        CONNECTIONS.fetch_add(1, Ordering::AcqRel);
        Self
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        CONNECTIONS.fetch_sub(1, Ordering::AcqRel);
    }
}

fn echo_tcp(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        let n = stream.read(&mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..n])?;
    }
}

fn echo_udp(socket: &UdpSocket) {
    let mut buffer = vec![0; 65536];
    loop {
        // Errors here are ICMP answers to what was sent before.
        if let Ok((n, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..n], from);
        }
    }
}

struct Request {
    method: String,
    path: String,
    /// `HTTP/1.0` or older: one answer per connection, unless asked otherwise.
    old: bool,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

fn serve_http(stream: TcpStream) -> std::io::Result<()> {
    let (peer, local) = (stream.peer_addr()?, stream.local_addr()?);
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    while let Some(request) = read_request(&mut reader)? {
        let _busy = Busy::new();
        log(&format!("{} {} from {}", request.method, request.path, plain(peer)));
        let close = request.is_last();
        let (status, body) = answer(&request, peer, local);
        let connection = if close { "close" } else { "keep-alive" };
        let mut head = format!("HTTP/1.1 {status} {}\r\nContent-Type: text/plain\r\n", reason(status));
        let _ = write!(head, "Content-Length: {}\r\nConnection: {connection}\r\n\r\n", body.len());
        writer.write_all(head.as_bytes())?;
        if request.method != "HEAD" {
            writer.write_all(&body)?;
        }
        if close {
            break;
        }
    }
    Ok(())
}

impl Request {
    /// Whether the connection ends with the answer (RFC 9112, 9.3).
    fn is_last(&self) -> bool {
        let asked = |option: &str| {
            let options = self.header("connection").unwrap_or_default().split(',');
            options.map(str::trim).any(|found| found.eq_ignore_ascii_case(option))
        };
        asked("close") || (self.old && !asked("keep-alive"))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }
}

fn read_request<R: BufRead>(reader: &mut R) -> std::io::Result<Option<Request>> {
    let bad = |text: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, text.to_owned());
    let mut head = reader.take(MAX_HEAD);
    let mut line = String::new();
    if head.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut parts = line.split_whitespace();
    let (Some(method), Some(path)) = (parts.next(), parts.next()) else { return Err(bad("no request line")) };
    let old = parts.next().is_none_or(|version| version == "HTTP/1.0");
    let mut request =
        Request { method: method.into(), path: path.into(), old, headers: Vec::new(), body: Vec::new() };
    loop {
        let mut line = String::new();
        if head.read_line(&mut line)? == 0 {
            return Err(bad("cut short"));
        }
        match line.trim_end() {
            "" => break,
            text => {
                let (name, value) = text.split_once(':').ok_or_else(|| bad("no header"))?;
                request.headers.push((name.trim().to_owned(), value.trim().to_owned()));
            }
        }
    }
    let length = request.header("content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
    if length > MAX_BODY {
        return Err(bad("body is too large"));
    }
    reader.take(length).read_to_end(&mut request.body)?;
    Ok(Some(request))
}

fn answer(request: &Request, peer: SocketAddr, local: SocketAddr) -> (u16, Vec<u8>) {
    let path = request.path.split('?').next().unwrap_or_default();
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    let text = match parts.as_slice() {
        ["healthz" | "readyz" | "livez"] => "ok\n".to_owned(),
        ["hostname"] => format!("{}\n", hostname_text()),
        ["clientip"] => format!("{}\n", plain(peer)),
        ["headers"] => lines(&request.headers),
        ["env"] => lines(&std::env::vars().collect::<Vec<_>>()),
        ["echo"] => return (200, request.body.clone()),
        ["status", code] => match code.parse() {
            Ok(code @ 200..=599) => return (code, format!("{code}\n").into_bytes()),
            _ => return (400, b"/status/CODE wants a code between 200 and 599\n".to_vec()),
        },
        ["delay", milliseconds] => match milliseconds.parse::<u64>() {
            Ok(ms) if ms <= 600_000 => {
                thread::sleep(Duration::from_millis(ms));
                format!("{ms} ms\n")
            }
            _ => return (400, b"/delay/MS wants at most 600000 milliseconds\n".to_vec()),
        },
        _ => format!(
            "hostname: {}\nclient: {}\nserver: {}\nrequest: {} {}\n{}",
            hostname_text(),
            plain(peer),
            plain(local),
            request.method,
            request.path,
            lines(&request.headers)
        ),
    };
    (200, text.into_bytes())
}

/// IPv4 addresses as such, also on a socket of both families.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn lines(pairs: &[(String, String)]) -> String {
    pairs.iter().fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "{name}: {value}");
        text
    })
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Status",
    }
}
