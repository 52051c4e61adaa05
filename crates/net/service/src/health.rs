//! `healthCheckNodePort`: tells load balancers whether this node has endpoints of a Service
//! (`externalTrafficPolicy: Local`).

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::input::Name;

/// Time for a whole request and answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a request's head.
const MOST_HEAD: usize = 8 * 1024;
/// Requests of one port at a time; more wait.
const MOST_REQUESTS: usize = 32;

/// The servers of all Services, one port each.
#[derive(Debug, Default)]
pub(crate) struct HealthServers {
    servers: BTreeMap<Name, Server>,
}

#[derive(Debug)]
struct Server {
    port: u16,
    endpoints: Arc<AtomicUsize>,
    _stop: DropGuard,
}

impl HealthServers {
    /// Serves `name` on `port` with so many local endpoints, or no more. A port that cannot be had is tried again
    /// with the next change of the Service.
    pub(crate) async fn set(&mut self, name: &Name, health: Option<(u16, usize)>) {
        let Some((port, endpoints)) = health else {
            self.servers.remove(name);
            return;
        };
        if let Some(server) = self.servers.get(name).filter(|server| server.port == port) {
            server.endpoints.store(endpoints, Ordering::Relaxed);
            return;
        }
        self.servers.remove(name);
        match start(name, port, endpoints).await {
            Ok(server) => {
                self.servers.insert(name.clone(), server);
            }
            Err(error) => {
                tracing::error!(service = %format!("{}/{}", name.0, name.1), port, %error,
                    "cannot listen on healthCheckNodePort: load balancers will take this node for broken");
            }
        }
    }
}

async fn start(name: &Name, port: u16, endpoints: usize) -> io::Result<Server> {
    // Without IPv6 in the kernel only the second works.
    let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let listener = match TcpListener::bind(both).await {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?
        }
        other => other?,
    };
    let endpoints = Arc::new(AtomicUsize::new(endpoints));
    let stop = CancellationToken::new();
    tokio::spawn(stop.clone().run_until_cancelled_owned(serve(
        listener,
        name.clone(),
        Arc::clone(&endpoints),
    )));
    Ok(Server { port, endpoints, _stop: stop.drop_guard() })
}

async fn serve(listener: TcpListener, name: Name, endpoints: Arc<AtomicUsize>) {
    let slots = Arc::new(Semaphore::new(MOST_REQUESTS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let answer = answer(&name, endpoints.load(Ordering::Relaxed));
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(TIMEOUT, respond(stream, answer)).await;
                    drop(slot);
                });
            }
            // Out of descriptors: let others finish before the next try.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn respond(mut stream: TcpStream, answer: String) -> io::Result<()> {
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < MOST_HEAD {
        let len = stream.read(&mut buffer).await?;
        if len == 0 {
            return Ok(());
        }
        head.extend_from_slice(&buffer[..len]);
    }
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

/// The answer that load balancers know from upstream's proxy: 200 with local endpoints, 503 without.
fn answer(name: &Name, endpoints: usize) -> String {
    let status = if endpoints > 0 { "200 OK" } else { "503 Service Unavailable" };
    let body = serde_json::json!({
        "service": { "namespace": name.0, "name": name.1 },
        "localEndpoints": endpoints,
        "serviceProxyHealthy": true,
    })
    .to_string();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nX-Load-Balancing-Endpoint-Weight: {endpoints}\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_follow_the_local_endpoints() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let name = ("ns".to_owned(), "web".to_owned());
        let mut servers = HealthServers::default();
        for (endpoints, status) in [(2, "200 OK"), (0, "503 Service Unavailable"), (1, "200 OK")] {
            servers.set(&name, Some((free, endpoints))).await;
            let mut stream = TcpStream::connect(("127.0.0.1", free)).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
            assert!(answer.contains(&format!("\"localEndpoints\":{endpoints}")), "{answer}");
        }
        servers.set(&name, None).await;
    }
}
