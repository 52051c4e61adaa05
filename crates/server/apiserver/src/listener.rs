//! The HTTPS door: TLS, HTTP/1.1 and HTTP/2 over one port.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use xebec_auth::authn::ClientCertificate;

use crate::filters::Peer;
use crate::server::{ApiServer, Server, ServerError};

/// How long a client may take to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a client may take to send the headers of a request.
const HEADERS: Duration = Duration::from_secs(32);
/// Requests that one HTTP/2 connection may have open; upstream's number.
const STREAMS: u32 = 250;
/// How often idle HTTP/2 connections are checked for a client that is still there.
const PING: Duration = Duration::from_secs(30);
/// How long requests in flight may take once the server stops.
const DRAIN: Duration = Duration::from_secs(2);
/// Pause after a failed accept, which means that the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

impl ApiServer {
    /// Serves connections of `listener` until `cancel`, then lets requests in flight end. `tls` decides about
    /// certificates; see `xebec_auth::pki`.
    ///
    /// # Errors
    /// Never for one connection; kept for listeners that die.
    pub async fn serve(
        &self,
        listener: TcpListener,
        tls: Arc<rustls::ServerConfig>,
        cancel: CancellationToken,
    ) -> Result<(), ServerError> {
        let acceptor = TlsAcceptor::from(tls);
        let graceful = GracefulShutdown::new();
        let mut connections = JoinSet::new();
        loop {
            let stream = tokio::select! {
                () = cancel.cancelled() => break,
                Some(_) = connections.join_next() => continue,
                accepted = listener.accept() => accepted,
            };
            match stream {
                Ok((stream, _)) => {
                    let (server, acceptor, watcher) =
                        (self.server().clone(), acceptor.clone(), graceful.watcher());
                    connections.spawn(connection(server, acceptor, stream, watcher));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection cannot be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        self.server().stop();
        // Streams to pods do not end on their own; they are cut off after the others had their time.
        let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
        Ok(())
    }
}

async fn connection(
    server: Arc<Server>,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    watcher: hyper_util::server::graceful::Watcher,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake"),
        Err(_) => return tracing::debug!("TLS handshake timed out"),
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let certificate =
        certificates.and_then(|chain| chain.first()).map(|der| Arc::new(ClientCertificate::read(der)));
    let peer = Peer::Remote { certificate };
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (server, peer) = (server.clone(), peer.clone());
        async move { Ok::<_, Infallible>(server.handle(request, peer).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .keep_alive_interval(PING)
        .adaptive_window(true);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection.into_owned()).await {
        tracing::debug!(%error, "connection");
    }
}
