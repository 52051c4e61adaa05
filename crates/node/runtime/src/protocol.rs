//! What agent and supervisor say to each other: JSON messages, one per packet of a `SOCK_SEQPACKET` unix socket,
//! with descriptors beside them (`SCM_RIGHTS`). Packets keep message and descriptors together and need no framing.
//!
//! Specifications are large and travel as files in the state directory; messages stay small.

use serde::{Deserialize, Serialize};

/// Largest message in bytes; an exec's arguments are the only thing that can come near.
pub const MAX_MESSAGE: usize = 2 << 20;

/// A request with its number.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the agent, repeated in the response.
    pub id: u64,
    /// What to do.
    pub call: Call,
}

/// What the agent can ask for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Call {
    /// Who are you?
    Hello,
    /// All runs, one [`Message::Run`] each before the response; later changes follow on this connection.
    Subscribe,
    /// Makes the namespaces of a sandbox.
    CreateSandbox(SandboxSpec),
    /// Releases the namespaces of a sandbox and ends its pause process. Idempotent.
    StopSandbox {
        /// Sandbox.
        id: String,
    },
    /// Starts the container whose `spec.json` is in place. Answered when its process has passed `execve`.
    Start {
        /// Container.
        id: String,
    },
    /// Sends a signal to a container's first process. Not running is not an error.
    Signal {
        /// Container.
        id: String,
        /// Signal number.
        signal: i32,
    },
    /// Kills everything in a container's cgroup.
    KillAll {
        /// Container.
        id: String,
    },
    /// Forgets a container that does not run.
    Remove {
        /// Container.
        id: String,
    },
    /// Runs a command in a container. With a terminal one descriptor comes along, a socket over which the pty
    /// master is sent back; without, those of stdin, stdout and stderr that are asked for, in this order.
    Exec(ExecCall),
    /// Kills an exec'd process and its descendants.
    KillExec {
        /// Number chosen by the agent in [`ExecCall::exec`].
        exec: u64,
    },
    /// Copies a container's output to the write ends that come along: stdout, then stderr, as asked for. The
    /// response carries the pty master if it has a terminal.
    Attach {
        /// Container.
        id: String,
        /// A descriptor for stdout comes along.
        stdout: bool,
        /// A descriptor for stderr comes along.
        stderr: bool,
    },
    /// Closes the supervisor's own end of a container's stdin, so that the last client's leaving is end of file.
    ReleaseStdin {
        /// Container.
        id: String,
    },
    /// Opens the log again.
    ReopenLog {
        /// Container.
        id: String,
    },
    /// Replaces the supervisor's program, keeping children and descriptors.
    Reexec {
        /// The new program.
        exe: std::path::PathBuf,
    },
    /// Ends the supervisor; containers still running are killed first.
    Shutdown,
}

/// The namespaces of a sandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// Sandbox.
    pub id: String,
    /// Its own network and UTS namespaces.
    pub net: bool,
    /// Its own IPC namespace.
    pub ipc: bool,
    /// A pause process as process 1 of a shared PID namespace.
    pub pause: bool,
    /// Host name.
    pub hostname: String,
    /// Sysctls of those namespaces, dotted name and value.
    pub sysctls: Vec<(String, String)>,
    /// cgroup directories for the pause process.
    pub cgroups: Vec<std::path::PathBuf>,
}

/// An exec.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecCall {
    /// Number by which [`Message::ExecExited`] and [`Call::KillExec`] name it; unique per connection.
    pub exec: u64,
    /// Container.
    pub id: String,
    /// Command with arguments.
    pub argv: Vec<String>,
    /// With a terminal.
    pub tty: bool,
    /// A descriptor for stdin comes along.
    pub stdin: bool,
    /// A descriptor for stdout comes along.
    pub stdout: bool,
    /// A descriptor for stderr comes along.
    pub stderr: bool,
}

/// What the supervisor sends.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Message {
    /// The answer to a request.
    Response {
        /// Number of the request.
        id: u64,
        /// What came of it.
        result: Result<Answer, Failure>,
    },
    /// A run is, or became, this.
    Run(Box<Run>),
    /// An exec'd process ended.
    ExecExited {
        /// Its number.
        exec: u64,
        /// Exit code; 128+n for death by signal n.
        code: i32,
    },
}

/// Answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Answer {
    /// Done.
    Done,
    /// To [`Call::Hello`].
    Hello {
        /// Fingerprint of the running program.
        build: String,
        /// Process id.
        pid: i32,
    },
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Failure {
    /// No such container.
    #[error("container {0:?} not found")]
    NotFound(String),
    /// Not in this state.
    #[error("{0}")]
    State(String),
    /// The process could not be started.
    #[error("{0}")]
    Start(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// What is known of a container that was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Container.
    pub id: String,
    /// Sandbox.
    pub sandbox_id: String,
    /// Its process while running, as seen by the node.
    pub pid: i32,
    /// Start time of that process in clock ticks since boot: with the boot id it tells a process from a later one
    /// of the same number.
    pub start_ticks: u64,
    /// Boot id.
    pub boot_id: String,
    /// Nanoseconds since the epoch.
    pub started_at: u64,
    /// How it ended; `None` while it runs.
    pub exit: Option<Exit>,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Nanoseconds since the epoch.
    pub at: u64,
    /// Exit code; 128+n for death by signal n.
    pub code: i32,
    /// Signal that ended it.
    pub signal: Option<i32>,
    /// Reason as the kubelet shows it.
    pub reason: String,
    /// Details.
    pub message: String,
}

/// Identity of a program: changes whenever the file is replaced.
pub fn fingerprint(exe: &std::path::Path) -> std::io::Result<String> {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(exe)?;
    Ok(format!("{}-{}-{}-{}.{}", meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
}
