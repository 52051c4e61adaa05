//! Connections to kubelets (TLS with the server's client certificate) and to pods.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use xebec_types::Status;

use super::place::{Place, Via};

/// How long a connection may take; upstream's dial timeout.
const DIAL: Duration = Duration::from_secs(30);

/// How to reach kubelets.
#[derive(Clone)]
pub struct KubeletDialer {
    connector: TlsConnector,
}

impl KubeletDialer {
    /// With the server's client certificate and trust in the kubelets' CA: `xebec_auth::pki::client_config`.
    pub fn new(tls: Arc<rustls::ClientConfig>) -> Self {
        Self { connector: TlsConnector::from(tls) }
    }
}

/// A connection to a kubelet or a pod.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Connects.
pub(super) async fn connect(kubelets: Option<&KubeletDialer>, place: &Place) -> Result<Stream, Status> {
    let failed = |error: &dyn std::fmt::Display| {
        Status::internal(format!("error dialing backend {}: {error}", place.address()))
    };
    let connecting = async {
        let tcp = TcpStream::connect((place.host.as_str(), place.port)).await.map_err(|e| failed(&e))?;
        tcp.set_nodelay(true).map_err(|e| failed(&e))?;
        if place.via == Via::Plain {
            return Ok(Stream::Plain(tcp));
        }
        let dialer = kubelets.ok_or_else(|| failed(&"this server has no client certificate for kubelets"))?;
        let name = ServerName::try_from(place.host.clone()).map_err(|e| failed(&e))?;
        let tls = dialer.connector.connect(name, tcp).await.map_err(|e| failed(&e))?;
        Ok(Stream::Tls(Box::new(tls)))
    };
    tokio::time::timeout(DIAL, connecting).await.unwrap_or_else(|_| Err(failed(&"timed out")))
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
