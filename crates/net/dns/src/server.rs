//! The sockets.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::Message;
use kube::Client;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use xebec_lifecycle::{Readiness, ReadyHandle};

use crate::feed;
use crate::message::{self, TCP_PAYLOAD};
use crate::resolver::{Outcome, Resolver, StatsSnapshot};
use crate::upstream::{Forwarder, Upstream};
use crate::zone::Zone;

/// Questions that wait for upstream at the same time; more are refused with SERVFAIL.
const MOST_FORWARDED: usize = 1000;
/// TCP connections at the same time; more wait to be accepted.
const MOST_CONNECTIONS: usize = 256;
/// How long a TCP connection may be silent (RFC 7766).
const TCP_IDLE: Duration = Duration::from_secs(10);
/// TCP connections that the kernel holds before they are accepted.
const BACKLOG: i32 = 256;

/// What the server is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// The cluster's domain: `cluster.local`.
    pub domain: String,
    /// Who knows the rest of the world.
    pub upstream: Upstream,
    /// Where to listen, over UDP and TCP. The addresses may come to exist later.
    pub listen: Vec<SocketAddr>,
}

impl Config {
    /// The usual configuration: domain `cluster.local`, and the resolvers of a `resolv.conf`.
    pub fn new(resolv_conf: impl Into<PathBuf>, listen: Vec<SocketAddr>) -> Self {
        Self { domain: "cluster.local".into(), upstream: Upstream::File(resolv_conf.into()), listen }
    }
}

/// Why the server cannot run.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The domain is no domain name.
    #[error("cluster domain {0:?} is not a domain name")]
    Domain(String),
    /// A socket cannot be opened.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Serves DNS.
pub struct Server {
    resolver: Arc<Resolver>,
    sockets: Vec<(UdpSocket, TcpListener)>,
    ready: ReadyHandle,
    readiness: Readiness,
    client: Client,
}

impl Server {
    /// Opens the sockets, so that requests wait rather than fail until [`Server::run`]. Must be called within a
    /// runtime.
    ///
    /// # Errors
    /// The domain is none, or a port is taken.
    pub fn new(config: Config, client: Client) -> Result<Self, DnsError> {
        let own: Vec<_> = config.listen.iter().map(SocketAddr::ip).collect();
        let zone = Zone::new(&config.domain, own.clone()).ok_or(DnsError::Domain(config.domain))?;
        let listen = |address: &SocketAddr| {
            open(*address).map_err(|source| DnsError::Listen { address: *address, source })
        };
        let sockets = config.listen.iter().map(listen).collect::<Result<_, _>>()?;
        let (ready, readiness) = Readiness::new();
        let resolver = Arc::new(Resolver::new(zone, Forwarder::new(config.upstream, own)));
        Ok(Self { resolver, sockets, ready, readiness, client })
    }

    /// Ready when all Services and EndpointSlices have been listed: before, names of the cluster get SERVFAIL.
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// A function that reads the counters at any time.
    pub fn stats(&self) -> impl Fn() -> StatsSnapshot + Send + Sync + 'static {
        let resolver = Arc::clone(&self.resolver);
        move || resolver.stats()
    }

    /// Serves until the token is cancelled.
    pub async fn run(self, token: CancellationToken) {
        let mut tasks = JoinSet::new();
        let permits = Arc::new(Semaphore::new(MOST_FORWARDED));
        for (udp, tcp) in self.sockets {
            tasks.spawn(serve_udp(udp, Arc::clone(&self.resolver), permits.clone()));
            tasks.spawn(serve_tcp(tcp, Arc::clone(&self.resolver), permits.clone()));
        }
        let (resolver, ready, client) = (self.resolver, self.ready, self.client);
        tasks.spawn(async move {
            feed::follow(client, &resolver.index, || {
                resolver.set_complete();
                ready.ready();
            })
            .await;
        });
        token.cancelled().await;
        tasks.shutdown().await;
    }
}

/// Both sockets of an address, which need not be there yet: `IP_FREEBIND`, so that nobody has to wait for a bridge.
fn open(address: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let udp: std::net::UdpSocket = socket(address, SocketType::DGRAM)?.into();
    let bound = udp.local_addr()?;
    let tcp = socket(bound, SocketType::STREAM)?;
    rustix::net::listen(&tcp, BACKLOG)?;
    let tcp: std::net::TcpListener = tcp.into();
    Ok((UdpSocket::from_std(udp)?, TcpListener::from_std(tcp)?))
}

fn socket(address: SocketAddr, kind: SocketType) -> io::Result<std::os::fd::OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, kind, flags, None)?;
    if kind == SocketType::STREAM {
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    match address {
        SocketAddr::V4(_) => sockopt::set_ip_freebind(&socket, true)?,
        SocketAddr::V6(_) => {
            sockopt::set_ipv6_v6only(&socket, true)?;
            sockopt::set_ipv6_freebind(&socket, true)?;
        }
    }
    rustix::net::bind(&socket, &address)?;
    Ok(socket)
}

async fn serve_udp(socket: UdpSocket, resolver: Arc<Resolver>, permits: Arc<Semaphore>) {
    let socket = Arc::new(socket);
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; 4096];
    loop {
        while tasks.try_join_next().is_some() {}
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                // What a former answer met on its way is reported here and concerns nobody else.
                tracing::debug!(%error, "receiving failed");
                continue;
            }
        };
        let request = match message::read(&buffer[..length]) {
            Ok(request) => request,
            Err(Some(refusal)) => {
                send(&socket, *refusal, 512, from).await;
                continue;
            }
            Err(None) => continue,
        };
        let limit = message::udp_limit(&request);
        match resolver.begin(&request) {
            Outcome::Done(answer) => send(&socket, answer, limit, from).await,
            Outcome::Ask(name, chain) => {
                let Ok(permit) = permits.clone().try_acquire_owned() else {
                    send(&socket, resolver.failure(&request), limit, from).await;
                    continue;
                };
                let (resolver, socket) = (Arc::clone(&resolver), Arc::clone(&socket));
                tasks.spawn(async move {
                    let answer = resolver.finish(&request, name, chain).await;
                    send(&socket, answer, limit, from).await;
                    drop(permit);
                });
            }
        }
    }
}

async fn send(socket: &UdpSocket, answer: Message, limit: u16, to: SocketAddr) {
    let sent = match message::write(answer, limit) {
        Ok(bytes) => socket.send_to(&bytes, to).await.map(drop),
        Err(error) => Err(io::Error::other(error)),
    };
    if let Err(error) = sent {
        tracing::debug!(%to, %error, "answer not sent");
    }
}

async fn serve_tcp(listener: TcpListener, resolver: Arc<Resolver>, permits: Arc<Semaphore>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= MOST_CONNECTIONS && connections.join_next().await.is_some() {}
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, from)) => {
                let (resolver, permits) = (Arc::clone(&resolver), Arc::clone(&permits));
                connections.spawn(async move {
                    if let Err(error) = converse(stream, &resolver, &permits).await {
                        tracing::debug!(%from, %error, "connection ended");
                    }
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: let some connections end first.
                tracing::warn!(%error, "accepting failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(mut stream: TcpStream, resolver: &Resolver, permits: &Semaphore) -> io::Result<()> {
    loop {
        let Ok(length) = timeout(TCP_IDLE, stream.read_u16()).await else { return Ok(()) };
        let mut buffer = match length {
            Ok(length) => vec![0; usize::from(length)],
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        timeout(TCP_IDLE, stream.read_exact(&mut buffer)).await??;
        let answer = match message::read(&buffer) {
            Ok(request) => match resolver.begin(&request) {
                Outcome::Done(answer) => answer,
                Outcome::Ask(name, chain) => match permits.try_acquire() {
                    Ok(_permit) => resolver.finish(&request, name, chain).await,
                    Err(_) => resolver.failure(&request),
                },
            },
            Err(Some(refusal)) => *refusal,
            Err(None) => return Ok(()),
        };
        let bytes = message::write(answer, TCP_PAYLOAD).map_err(io::Error::other)?;
        let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
        let mut framed = length.to_be_bytes().to_vec();
        framed.extend_from_slice(&bytes);
        timeout(TCP_IDLE, stream.write_all(&framed)).await??;
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
