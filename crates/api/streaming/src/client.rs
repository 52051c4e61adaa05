//! The client side of the same protocols, for our own clients and for tests.

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::protocol::Role as WsRole;

use crate::channels::Channels;
use crate::exec::{ERROR, Options, RESIZE, STDERR, STDIN, STDOUT};
use crate::spdy::{Headers, Role, Session, SpdyStream, WINDOW};
use crate::streams::QueueReader;
use crate::tunnel::Tunnel;
use crate::{
    Io, Outcome, Protocol, ReadStream, StreamError, TerminalSize, Wire, WriteStream, outcome_from_status,
};

/// Longest text of the error stream that is kept, in bytes.
const MAX_STATUS: u64 = 1024 * 1024;

/// A command that runs elsewhere.
pub struct RemoteCommand {
    /// Its input, if asked for. Shutting it down is end of file, where the protocol can say so.
    pub stdin: Option<WriteStream>,
    /// Its output, if asked for.
    pub stdout: Option<ReadStream>,
    /// Its other output, if asked for and there is no terminal.
    pub stderr: Option<ReadStream>,
    resize: Option<WriteStream>,
    error: ReadStream,
    connection: Connection,
}

/// Kept only so that the connection stays open.
enum Connection {
    Spdy(Session),
    WebSocket(Channels),
}

impl RemoteCommand {
    /// Tells the size of the terminal.
    ///
    /// # Errors
    /// A lost connection.
    pub async fn resize(&mut self, size: TerminalSize) -> Result<(), StreamError> {
        let Some(stream) = &mut self.resize else { return Ok(()) };
        let json = format!("{{\"Width\":{},\"Height\":{}}}\n", size.width, size.height);
        Ok(stream.write_all(json.as_bytes()).await?)
    }

    /// Waits for the end. Output must be read meanwhile or taken out before.
    ///
    /// # Errors
    /// A lost connection.
    pub async fn wait(self) -> Result<Outcome, StreamError> {
        let mut status = Vec::new();
        self.error.take(MAX_STATUS).read_to_end(&mut status).await?;
        match self.connection {
            Connection::Spdy(session) => session.close().await,
            Connection::WebSocket(channels) => channels.close().await,
        }
        Ok(outcome_from_status(&status))
    }
}

/// Speaks exec or attach on an upgraded connection.
///
/// # Errors
/// A server that refuses the streams, or a protocol that cannot carry exec.
pub async fn exec<T: Io>(
    io: T,
    protocol: Protocol,
    mut options: Options,
) -> Result<RemoteCommand, StreamError> {
    options.stderr &= !options.tty;
    match protocol.wire {
        Wire::Spdy => exec_spdy(io, protocol.version, options).await,
        Wire::WebSocket | Wire::WebSocketBase64 => Ok(exec_websocket(io, protocol, options).await),
        Wire::WebSocketTunnel => Err(StreamError::Unsupported("exec has no tunnelled protocol".to_owned())),
    }
}

async fn exec_websocket<T: Io>(io: T, protocol: Protocol, options: Options) -> RemoteCommand {
    let mut wanted = vec![ERROR];
    wanted.extend(options.stdout.then_some(STDOUT));
    wanted.extend(options.stderr.then_some(STDERR));
    let (channels, mut inbound) = Channels::start(io, WsRole::Client, protocol, &wanted).await;
    let mut reader = |channel| inbound.remove(&channel).map(|q| Box::new(QueueReader::new(q)) as ReadStream);
    let writer = |channel, wanted: bool| wanted.then(|| Box::new(channels.writer(channel)) as WriteStream);
    RemoteCommand {
        stdin: writer(STDIN, options.stdin),
        stdout: reader(STDOUT),
        stderr: reader(STDERR),
        resize: writer(RESIZE, options.tty),
        error: reader(ERROR).expect("invariant: asked for above"),
        connection: Connection::WebSocket(channels),
    }
}

async fn exec_spdy<T: Io>(io: T, version: u8, options: Options) -> Result<RemoteCommand, StreamError> {
    let session = Session::start(io, Role::Client, WINDOW);
    let error = open(&session, "error", true).await?;
    let stdin = open(&session, "stdin", options.stdin).await?;
    let stdout = open(&session, "stdout", options.stdout).await?;
    let stderr = open(&session, "stderr", options.stderr).await?;
    let resize = open(&session, "resize", options.tty && version >= 3).await?;
    let reader = |s: Option<SpdyStream>| s.map(|s| Box::new(s) as ReadStream);
    let writer = |s: Option<SpdyStream>| s.map(|s| Box::new(s) as WriteStream);
    Ok(RemoteCommand {
        stdin: writer(stdin),
        stdout: reader(stdout),
        stderr: reader(stderr),
        resize: writer(resize),
        error: reader(error).expect("invariant: always opened"),
        connection: Connection::Spdy(session),
    })
}

async fn open(session: &Session, kind: &str, wanted: bool) -> Result<Option<SpdyStream>, StreamError> {
    if !wanted {
        return Ok(None);
    }
    let mut stream = session.open(vec![("streamtype".to_owned(), kind.to_owned())])?;
    stream.accepted().await?;
    Ok(Some(stream))
}

/// Connections through a pod's port.
pub struct PortForwarder {
    session: Session,
    requests: u64,
}

/// One forwarded connection.
pub struct Forwarded {
    /// Its bytes.
    pub data: SpdyStream,
    error: SpdyStream,
}

impl Forwarded {
    /// Waits for the server to say how it went; `None` is success.
    ///
    /// # Errors
    /// A lost connection.
    pub async fn failure(self) -> Result<Option<String>, StreamError> {
        let text = read_limited(self.error).await?;
        Ok((!text.is_empty()).then(|| String::from_utf8_lossy(&text).into_owned()))
    }
}

impl PortForwarder {
    /// Starts on an upgraded connection.
    ///
    /// # Errors
    /// Protocols other than SPDY, plain or tunnelled.
    pub async fn start<T: Io>(io: T, protocol: Protocol) -> Result<Self, StreamError> {
        let session = match protocol.wire {
            Wire::Spdy => Session::start(io, Role::Client, WINDOW),
            Wire::WebSocketTunnel => {
                Session::start(Tunnel::new(io, WsRole::Client).await, Role::Client, WINDOW)
            }
            Wire::WebSocket | Wire::WebSocketBase64 => {
                return Err(StreamError::Unsupported("port-forward needs SPDY or its tunnel".to_owned()));
            }
        };
        Ok(Self { session, requests: 0 })
    }

    /// Opens a connection to a port of the pod.
    ///
    /// # Errors
    /// A lost connection or a server that refuses.
    pub async fn connect(&mut self, port: u16) -> Result<Forwarded, StreamError> {
        let headers = |kind: &str| -> Headers {
            vec![
                ("streamtype".to_owned(), kind.to_owned()),
                ("port".to_owned(), port.to_string()),
                ("requestid".to_owned(), self.requests.to_string()),
            ]
        };
        let mut error = self.session.open(headers("error"))?;
        let mut data = self.session.open(headers("data"))?;
        self.requests += 1;
        error.accepted().await?;
        data.accepted().await?;
        error.shutdown().await?;
        Ok(Forwarded { data, error })
    }

    /// Ends all of it.
    pub async fn close(self) {
        self.session.close().await;
    }
}

async fn read_limited<R: AsyncRead + Unpin>(reader: R) -> Result<Bytes, StreamError> {
    let mut text = Vec::new();
    reader.take(MAX_STATUS).read_to_end(&mut text).await?;
    Ok(text.into())
}
