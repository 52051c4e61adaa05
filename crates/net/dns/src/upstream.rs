//! Questions about the rest of the world.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use hickory_proto::op::{Edns, Message, OpCode, Query, ResponseCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout};

use crate::message::UDP_PAYLOAD;

/// How long a resolver has to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a resolver has that did not answer the last time: clients give up after five seconds, and their next name
/// must not wait for the same silence again.
const IMPATIENCE: Duration = Duration::from_millis(200);
/// How long a resolver counts as silent after it did not answer.
const SILENCE: Duration = Duration::from_secs(10);
/// How often, at most, the file is looked at for changes; only when there are questions.
const FRESHNESS: Duration = Duration::from_secs(30);
/// Where the resolvers are that a local stub stands for (systemd-resolved).
const BEHIND_STUB: &str = "/run/systemd/resolve/resolv.conf";

/// Where questions about the rest of the world go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstream {
    /// The name servers of a `resolv.conf`. Loopback and our own addresses are left out, since they may lead
    /// back to us.
    File(PathBuf),
    /// These resolvers.
    Servers(Vec<SocketAddr>),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// There is nobody to ask.
    #[error("no upstream resolver is configured")]
    NoServers,
    /// All were asked; this is what the last one did.
    #[error("no upstream resolver answered, the last one being {server}")]
    Failed {
        /// The last one.
        server: SocketAddr,
        /// What happened.
        #[source]
        source: ExchangeError,
    },
}

/// Why one resolver gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The network.
    #[error("exchange failed")]
    Io(#[from] io::Error),
    /// Nothing came in time.
    #[error("no answer in time")]
    TimedOut,
    /// The question cannot be written.
    #[error("question cannot be written")]
    Encode(#[source] hickory_proto::ProtoError),
    /// It has a problem of its own.
    #[error("answered {0}")]
    Refused(ResponseCode),
    /// What came is no answer to the question.
    #[error("answered something else")]
    Nonsense,
}

#[derive(Debug, Default)]
struct Known {
    servers: Arc<[SocketAddr]>,
    checked: Option<Instant>,
    changed: Option<SystemTime>,
}

/// Asks upstream resolvers.
#[derive(Debug)]
pub struct Forwarder {
    upstream: Upstream,
    own: Vec<IpAddr>,
    known: Mutex<Known>,
    /// Resolvers that did not answer in time, and when that was.
    silent: Mutex<HashMap<SocketAddr, Instant>>,
}

impl Forwarder {
    /// A forwarder that never asks `own` addresses.
    pub fn new(upstream: Upstream, own: Vec<IpAddr>) -> Self {
        Self { upstream, own, known: Mutex::default(), silent: Mutex::default() }
    }

    /// Asks one resolver after the other, those that did not answer of late last and not for long.
    ///
    /// # Errors
    /// None of them gave an answer.
    pub async fn ask(&self, query: &Query, dnssec: bool) -> Result<Message, UpstreamError> {
        let mut outcome = Err(UpstreamError::NoServers);
        let (silent, answering): (Vec<_>, Vec<_>) =
            self.servers().iter().copied().partition(|server| self.is_silent(*server));
        let all = answering.iter().map(|server| (server, PATIENCE));
        for (server, patience) in all.chain(silent.iter().map(|server| (server, IMPATIENCE))) {
            let result = exchange(*server, query, dnssec, patience).await;
            self.note(*server, matches!(result, Err(ExchangeError::TimedOut)));
            match result {
                Ok(message) => return Ok(message),
                Err(source) => outcome = Err(UpstreamError::Failed { server: *server, source }),
            }
        }
        outcome
    }

    fn is_silent(&self, server: SocketAddr) -> bool {
        let silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.get(&server).is_some_and(|since| since.elapsed() < SILENCE)
    }

    fn note(&self, server: SocketAddr, is_silent: bool) {
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        // Who is out of the file is forgotten after a while.
        silent.retain(|_, since| since.elapsed() < SILENCE);
        if is_silent {
            silent.insert(server, Instant::now());
        } else {
            silent.remove(&server);
        }
    }

    fn servers(&self) -> Arc<[SocketAddr]> {
        let path = match &self.upstream {
            Upstream::Servers(servers) => return servers.as_slice().into(),
            Upstream::File(path) => path,
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if known.checked.is_some_and(|at| now.duration_since(at) < FRESHNESS) {
            return known.servers.clone();
        }
        let changed = std::fs::metadata(path).and_then(|m| m.modified()).ok();
        if known.checked.is_none() || changed != known.changed {
            known.servers = self.read(path).into();
            known.changed = changed;
        }
        known.checked = Some(now);
        known.servers.clone()
    }

    fn read(&self, path: &Path) -> Vec<SocketAddr> {
        let usable = |path: &Path| {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let mut servers = name_servers(&text);
            servers.retain(|s| !s.ip().is_loopback() && !self.own.contains(&s.ip()));
            servers
        };
        let servers = usable(path);
        if !servers.is_empty() || path != Path::new("/etc/resolv.conf") {
            return servers;
        }
        usable(Path::new(BEHIND_STUB))
    }
}

/// The `nameserver` lines of resolv.conf(5), at most three.
fn name_servers(text: &str) -> Vec<SocketAddr> {
    let addresses = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then(|| words.next()?.parse().ok()).flatten()
    });
    addresses.take(3).map(|ip: IpAddr| SocketAddr::new(ip, 53)).collect()
}

/// One question to one resolver: over UDP, and over TCP if the answer is too long for that.
async fn exchange(
    server: SocketAddr,
    query: &Query,
    dnssec: bool,
    patience: Duration,
) -> Result<Message, ExchangeError> {
    let mut request = Message::query();
    // Unpredictable, with a port of its own for each question: RFC 5452.
    request.metadata.id = rand::random();
    request.metadata.op_code = OpCode::Query;
    request.metadata.recursion_desired = true;
    request.add_query(query.clone());
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_PAYLOAD).set_dnssec_ok(dnssec);
    request.set_edns(edns);
    let bytes = request.to_vec().map_err(ExchangeError::Encode)?;

    let over_udp = timeout(patience, over_udp(server, &request, &bytes));
    let mut message = over_udp.await.map_err(|_| ExchangeError::TimedOut)??;
    if message.metadata.truncation {
        let over_tcp = timeout(patience, over_tcp(server, &request, &bytes));
        message = over_tcp.await.map_err(|_| ExchangeError::TimedOut)??;
    }
    match message.metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => Ok(message),
        other => Err(ExchangeError::Refused(other)),
    }
}

async fn over_udp(server: SocketAddr, request: &Message, bytes: &[u8]) -> Result<Message, ExchangeError> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // What does not answer the question may be forged: the right answer may still come.
        if let Some(message) = matching(request, &buffer[..length]) {
            return Ok(message);
        }
    }
}

async fn over_tcp(server: SocketAddr, request: &Message, bytes: &[u8]) -> Result<Message, ExchangeError> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(bytes.len()).map_err(|_| ExchangeError::Nonsense)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(bytes);
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; usize::from(length)];
    stream.read_exact(&mut buffer).await?;
    matching(request, &buffer).ok_or(ExchangeError::Nonsense)
}

fn matching(request: &Message, bytes: &[u8]) -> Option<Message> {
    let message = Message::from_vec(bytes).ok()?;
    (message.metadata.id == request.metadata.id && message.queries == request.queries).then_some(message)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_lists_name_servers() {
        let text =
            "# c\nsearch a b\nnameserver 10.0.0.2\n nameserver fe80::1%eth0\nnameserver ::1\nnameserver x\n";
        assert_eq!(name_servers(text), ["10.0.0.2:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
    }

    #[tokio::test]
    async fn who_does_not_answer_is_asked_last() {
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let live = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let servers = vec![silent.local_addr().unwrap(), live.local_addr().unwrap()];
        let echo = tokio::spawn(async move {
            let mut buffer = [0; 512];
            loop {
                let (length, from) = live.recv_from(&mut buffer).await.unwrap();
                buffer[2] |= 0x80;
                live.send_to(&buffer[..length], from).await.unwrap();
            }
        });
        let forwarder = Forwarder::new(Upstream::Servers(servers), Vec::new());
        for _ in 0..3 {
            forwarder.ask(&Query::new(), false).await.unwrap();
        }
        echo.abort();
        let mut buffer = [0; 512];
        assert!(silent.try_recv(&mut buffer).is_ok(), "the first question went to the first server");
        assert!(silent.try_recv(&mut buffer).is_err(), "the others did not");
    }

    #[tokio::test]
    async fn loops_and_missing_files_leave_nobody_to_ask() {
        let path = std::env::temp_dir().join(format!("xebec-dns-resolv-{}", std::process::id()));
        std::fs::write(&path, "nameserver 127.0.0.1\nnameserver 10.0.0.10\n").unwrap();
        let own = vec!["10.0.0.10".parse().unwrap()];
        let servers = Forwarder::new(Upstream::File(path.clone()), own).servers();
        std::fs::remove_file(&path).unwrap();
        assert!(servers.is_empty());
        let missing = Forwarder::new(Upstream::File(path), Vec::new());
        assert!(matches!(missing.ask(&Query::new(), false).await, Err(UpstreamError::NoServers)));
    }
}
