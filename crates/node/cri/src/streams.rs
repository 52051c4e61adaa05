//! Streams into containers: exec, attach and port-forward.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};

use crate::CriError;

/// A byte stream out of a container.
pub type OutputStream = Box<dyn AsyncRead + Send + Unpin>;
/// A byte stream into a container.
pub type InputStream = Box<dyn AsyncWrite + Send + Unpin>;

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// What to run inside a container, and which streams to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecRequest {
    /// Container.
    pub container_id: String,
    /// Command with its arguments; never empty.
    pub command: Vec<String>,
    /// Give it a terminal; stderr is then part of stdout.
    pub tty: bool,
    /// Connect stdin.
    pub stdin: bool,
    /// Connect stdout.
    pub stdout: bool,
    /// Connect stderr.
    pub stderr: bool,
}

/// Which streams of a running container to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachRequest {
    /// Container.
    pub container_id: String,
    /// Connect stdin; needs a container made with `stdin`.
    pub stdin: bool,
    /// Connect stdout.
    pub stdout: bool,
    /// Connect stderr.
    pub stderr: bool,
}

/// How an exec'd process or an attached container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitStatus {
    /// Exit code; 128+n for death by signal n.
    pub code: i32,
}

/// The connected streams. Dropping the session closes them; the process of an exec is then killed, an attached
/// container runs on.
pub struct StreamSession {
    /// Write end of stdin, if asked for. Shutting it down is end of file.
    pub stdin: Option<InputStream>,
    /// Read end of stdout, if asked for.
    pub stdout: Option<OutputStream>,
    /// Read end of stderr, if asked for and there is no terminal.
    pub stderr: Option<OutputStream>,
    /// Terminal sizes; ignored without a terminal.
    pub resize: mpsc::Sender<TerminalSize>,
    /// How it ended, sent once.
    pub exit: oneshot::Receiver<Result<ExitStatus, CriError>>,
}

/// Output of a command that was run to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutput {
    /// Standard output, at most 16 MiB.
    pub stdout: Vec<u8>,
    /// Standard error, at most 16 MiB.
    pub stderr: Vec<u8>,
    /// Exit code.
    pub code: i32,
}

/// A connection to a port inside a sandbox.
pub trait DuplexStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> DuplexStream for T {}
