//! Port-forward, server side.

use std::collections::HashMap;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::Role as WsRole;

use crate::channels::Channels;
use crate::spdy::{Incoming, Role, Session, SpdyStream, WINDOW};
use crate::streams::{QueueReader, QueueWriter};
use crate::tunnel::Tunnel;
use crate::{Io, Protocol, StreamError, Wire, WriteStream};

/// How long the second stream of a pair may take; the kubelet's default.
const PAIR_TIMEOUT: Duration = Duration::from_secs(30);
/// Halves of pairs that may wait for the other.
const MAX_HALVES: usize = 1024;
/// Ports one old-style WebSocket may forward: two channels each.
const MAX_PORTS: usize = 100;

/// One connection that the client forwards.
pub struct Forward {
    /// Port in the pod.
    pub port: u16,
    /// The connection's bytes. Shut the writing side down when the pod has closed its side.
    pub data: DataStream,
    /// Takes the text of a failure. Dropping or shutting it down without a word is success; clients wait for that.
    pub error: WriteStream,
}

/// Bytes of a forwarded connection.
pub struct DataStream(Inner);

enum Inner {
    Spdy(Box<SpdyStream>),
    Channel(QueueReader, QueueWriter),
}

impl AsyncRead for DataStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        match &mut self.0 {
            Inner::Spdy(s) => Pin::new(s).poll_read(cx, buf),
            Inner::Channel(r, _) => Pin::new(r).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for DataStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        match &mut self.0 {
            Inner::Spdy(s) => Pin::new(s).poll_write(cx, buf),
            Inner::Channel(_, w) => Pin::new(w).poll_write(cx, buf),
        }
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match &mut self.0 {
            Inner::Spdy(s) => Pin::new(s).poll_shutdown(cx),
            Inner::Channel(_, w) => Pin::new(w).poll_shutdown(cx),
        }
    }
}

/// What a client forwards over one connection.
pub struct Forwards {
    source: Source,
    halves: HashMap<String, Half>,
}

enum Source {
    Session(Session),
    /// The old WebSocket form has all its ports from the start.
    Fixed {
        channels: Channels,
        ready: Vec<Forward>,
    },
}

struct Half {
    stream: SpdyStream,
    is_error: bool,
    port: u16,
    since: Instant,
}

/// Starts on an upgraded connection. `ports` are the `port` and `ports` parameters of the request, which only
/// the old WebSocket protocol needs.
///
/// # Errors
/// The old WebSocket protocol without ports or with too many.
pub async fn serve<T: Io>(io: T, protocol: Protocol, ports: &[u16]) -> Result<Forwards, StreamError> {
    let source = match protocol.wire {
        Wire::Spdy => Source::Session(Session::start(io, Role::Server, WINDOW)),
        Wire::WebSocketTunnel => {
            Source::Session(Session::start(Tunnel::new(io, WsRole::Server).await, Role::Server, WINDOW))
        }
        Wire::WebSocket | Wire::WebSocketBase64 => fixed(io, protocol, ports).await?,
    };
    Ok(Forwards { source, halves: HashMap::new() })
}

/// Two channels a port, data and error, both beginning with the port number in little endian.
async fn fixed<T: Io>(io: T, protocol: Protocol, ports: &[u16]) -> Result<Source, StreamError> {
    if ports.is_empty() {
        return Err(StreamError::Unsupported("query parameter \"port\" is required".to_owned()));
    }
    if ports.len() > MAX_PORTS {
        return Err(StreamError::Unsupported(format!("at most {MAX_PORTS} ports can be forwarded at once")));
    }
    let data_channels: Vec<u8> = (0..ports.len()).map(|i| 2 * i as u8).collect();
    let (channels, mut inbound) = Channels::start(io, WsRole::Server, protocol, &data_channels).await;
    let mut ready = Vec::new();
    for (channel, port) in data_channels.into_iter().zip(ports) {
        for c in [channel, channel + 1] {
            channels.send(c, Bytes::copy_from_slice(&port.to_le_bytes())).await;
        }
        let queue = inbound.remove(&channel).expect("invariant: the channel was asked for above");
        let data = DataStream(Inner::Channel(QueueReader::new(queue), channels.writer(channel)));
        ready.push(Forward { port: *port, data, error: Box::new(channels.writer(channel + 1)) });
    }
    ready.reverse();
    Ok(Source::Fixed { channels, ready })
}

impl Forwards {
    /// The next connection to forward; `None` when the client has left. The old WebSocket form yields each port once
    /// and then waits for the client to leave.
    pub async fn accept(&mut self) -> Option<Forward> {
        loop {
            let incoming = match &mut self.source {
                Source::Fixed { channels, ready } => {
                    if let Some(next) = ready.pop() {
                        return Some(next);
                    }
                    // An error means that the reading task has ended: the client has left.
                    let _ = channels.closed().wait_for(|c| *c).await;
                    return None;
                }
                Source::Session(session) => {
                    let oldest = self.halves.values().map(|h| h.since).min();
                    let expiry = oldest.unwrap_or_else(Instant::now) + PAIR_TIMEOUT;
                    tokio::select! {
                        incoming = session.accept() => incoming?,
                        () = tokio::time::sleep_until(expiry), if oldest.is_some() => {
                            self.expire().await;
                            continue;
                        }
                    }
                }
            };
            if let Some(forward) = self.pair(incoming) {
                return Some(forward);
            }
        }
    }

    /// Whether no further connection can come: the old WebSocket form ends with those that it began with, and says the
    /// end of a pod's side in no other way.
    pub fn is_exhausted(&self) -> bool {
        matches!(&self.source, Source::Fixed { ready, .. } if ready.is_empty())
    }

    /// Closes the connection after what is queued.
    pub async fn close(self) {
        match self.source {
            Source::Session(session) => session.close().await,
            Source::Fixed { channels, .. } => channels.close().await,
        }
    }

    /// Tells when the client has left.
    pub fn closed(&self) -> watch::Receiver<bool> {
        match &self.source {
            Source::Session(session) => session.closed(),
            Source::Fixed { channels, .. } => channels.closed(),
        }
    }

    /// Brings the two streams of a request together; streams without a port or type are refused.
    fn pair(&mut self, incoming: Incoming) -> Option<Forward> {
        let is_error = match incoming.header("streamtype") {
            Some("error") => true,
            Some("data") => false,
            _ => return None,
        };
        let port: u16 = incoming.header("port").and_then(|p| p.parse().ok()).filter(|p| *p > 0)?;
        // Clients of Kubernetes 1.0 open the error stream first, then the data stream, and name no request.
        let unnamed = || incoming.id().saturating_sub(if is_error { 0 } else { 2 }).to_string();
        let request = incoming.header("requestid").map_or_else(unnamed, str::to_owned);
        match self.halves.remove(&request) {
            Some(half) if half.is_error != is_error && half.port == port => {
                let stream = incoming.accept();
                let (data, error) = if is_error { (half.stream, stream) } else { (stream, half.stream) };
                let error = Box::new(error.into_split().1);
                Some(Forward { port, data: DataStream(Inner::Spdy(Box::new(data))), error })
            }
            // Two streams of a kind for one request: neither can be used.
            Some(_) => None,
            None => {
                if self.halves.len() < MAX_HALVES {
                    let stream = incoming.accept();
                    self.halves.insert(request, Half { stream, is_error, port, since: Instant::now() });
                }
                None
            }
        }
    }

    /// Gives up pairs whose second stream does not come.
    async fn expire(&mut self) {
        let old = |h: &mut Half| h.since.elapsed() >= PAIR_TIMEOUT;
        for (request, half) in self.halves.extract_if(|_, h| old(h)) {
            let mut stream = half.stream;
            if half.is_error {
                let text = format!("Error: timed out waiting for streams of request {request:?}");
                // A client that has left does not need to know.
                let _ = stream.write_all(text.as_bytes()).await;
            }
            let _ = stream.shutdown().await;
        }
    }
}
