//! The node's HTTPS server: logs, exec, attach and port-forward for the API server and administrators.

mod auth;
mod logs;
mod relay;
mod routes;
mod stats;
mod streams;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::config::ServerConfig;
use crate::kubelet::KubeletError;
use crate::pods::PodTable;
use crate::worker::Shared;

/// Connections served at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 1024;
/// A handshake may take this long.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Pause after a failed accept (no descriptors left).
const PAUSE: Duration = Duration::from_millis(100);

/// What handlers share.
pub(crate) struct Door {
    shared: Arc<Shared>,
    pods: watch::Receiver<Arc<PodTable>>,
    api_server_name: String,
}

/// A server that listens and does not serve yet.
pub(crate) struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    acceptor: TlsAcceptor,
    door: Arc<Door>,
}

/// Takes the port and prepares TLS.
pub(crate) async fn bind(
    shared: Arc<Shared>,
    pods: watch::Receiver<Arc<PodTable>>,
    config: &ServerConfig,
) -> Result<Bound, KubeletError> {
    let listen = |source| KubeletError::Listen { address: config.bind, source };
    let listener = TcpListener::bind(config.bind).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    let acceptor = TlsAcceptor::from(Arc::new(auth::tls(config)?));
    let door = Door { shared, pods, api_server_name: config.api_server_name.clone() };
    Ok(Bound { listener, address, acceptor, door: Arc::new(door) })
}

impl Bound {
    /// Where the server listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until cancelled.
    pub(crate) async fn run(self, cancel: CancellationToken) {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = cancel.cancelled() => return,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "accept");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let (acceptor, door, cancel) = (self.acceptor.clone(), self.door.clone(), cancel.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = serve(stream, acceptor, door) => {}
                    () = cancel.cancelled() => {}
                }
                drop(slot);
            });
        }
    }
}

async fn serve(stream: tokio::net::TcpStream, acceptor: TlsAcceptor, door: Arc<Door>) {
    // Small frames of interactive sessions must not wait for each other.
    let _ = stream.set_nodelay(true);
    let Ok(Ok(tls)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await else { return };
    let caller = auth::caller(tls.get_ref().1);
    let service = hyper::service::service_fn(move |request| {
        let (door, caller) = (door.clone(), caller.clone());
        async move { Ok::<_, std::convert::Infallible>(routes::answer(&door, caller.as_ref(), request).await) }
    });
    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    if let Err(error) = builder.serve_connection_with_upgrades(TokioIo::new(tls), service).await {
        tracing::debug!(error, "connection");
    }
}
