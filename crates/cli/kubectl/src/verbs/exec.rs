//! `exec`: a command in a container, with a terminal if wanted.

use clap::Args;
use futures::SinkExt;
use futures::channel::mpsc::Sender;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{AttachParams, AttachedProcess, TerminalSize};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};

use super::pods;
use crate::discovery::{items, text};
use crate::duration;
use crate::error::{Error, Result};
use crate::session::Session;
use crate::terminal;

/// Flags of `exec`.
#[derive(Clone, Debug, Default, Args)]
pub struct ExecArgs {
    /// POD or TYPE/NAME.
    pub pod: Option<String>,
    /// Words before `--`; refused, for they would be flags of kubectl.
    #[arg(hide = true)]
    pub stray: Vec<String>,
    /// Container.
    #[arg(short = 'c', long)]
    pub container: Option<String>,
    /// Pass standard input on.
    #[arg(short = 'i', long)]
    pub stdin: bool,
    /// Standard input is a terminal.
    #[arg(short = 't', long)]
    pub tty: bool,
    /// Only the output of the command.
    #[arg(short = 'q', long)]
    pub quiet: bool,
    /// How long to wait for a running pod.
    #[arg(long, default_value = "1m")]
    pub pod_running_timeout: String,
    /// The command.
    #[arg(last = true)]
    pub command: Vec<String>,
}

/// Runs `exec`; the exit code is the command's.
pub async fn run(session: &Session, args: ExecArgs) -> Result<i32> {
    if !args.stray.is_empty() {
        return Err(Error::client(
            "exec [POD] [COMMAND] is not supported anymore. Use exec [POD] -- [COMMAND] instead",
        ));
    }
    let Some(word) = &args.pod else {
        return Err(Error::client("pod, type/name or --filename must be specified"));
    };
    if args.command.is_empty() {
        return Err(Error::client("you must specify at least one command for the container"));
    }
    let limit = duration::parse(&args.pod_running_timeout)
        .map_err(|e| Error::client(format!("--pod-running-timeout: {e}")))?;
    let target = pods::named(session, word).await?;
    let pod = pods::one_running(session, &target, limit).await?;
    let container = pods::container(&pod.object, args.container.as_deref())?;
    if args.container.is_none() && !args.quiet && items(&pod.object["spec"]["containers"]).count() > 1 {
        let all = pods::containers(&pod.object).join(", ");
        session.warn(format!("Defaulted container {container:?} out of: {all}"))?;
    }
    let raw = if args.tty && args.stdin { terminal::Raw::enter() } else { None };
    let mut tty = args.tty;
    if tty && raw.is_none() && !terminal::stdin_is_terminal() {
        session.warn("Unable to use a TTY - input is not a terminal or the right kind of file")?;
        tty = false;
    }
    let params = AttachParams {
        container: Some(container.clone()),
        stdin: args.stdin,
        stdout: true,
        // A terminal has one stream of output.
        stderr: !tty,
        tty,
        ..AttachParams::default()
    };
    let namespace = pod.namespace.as_deref().unwrap_or(&session.namespace);
    let api: Api<Pod> = Api::namespaced(session.client.clone(), namespace);
    let process = api.exec(&pod.name, &args.command, &params).await?;
    let code = talk(session, process, args.stdin).await;
    drop(raw);
    match code? {
        Outcome::Exit(0) => Ok(0),
        Outcome::Exit(code) => {
            session.warn(format!("command terminated with exit code {code}"))?;
            Ok(code)
        }
        Outcome::Failed(message) => Err(Error::client(message)),
    }
}

/// How a remote command ended.
enum Outcome {
    Exit(i32),
    Failed(String),
}

async fn talk(session: &Session, mut process: AttachedProcess, with_stdin: bool) -> Result<Outcome> {
    let status = process.take_status();
    let (out, err) = (process.stdout(), process.stderr());
    let input = if with_stdin { process.stdin() } else { None };
    if let Some(sizes) = process.terminal_size() {
        tokio::spawn(resize(sizes));
    }
    if let Some(mut to) = input {
        let mut from = session.stdin()?;
        // Not awaited: a terminal's input ends with the session, not the session with it.
        tokio::spawn(async move {
            let copied = tokio::io::copy(&mut from, &mut to).await;
            // Whatever ended it, the command sees the end of its input.
            drop(to.shutdown().await);
            copied
        });
    }
    tokio::try_join!(pump(out, |bytes| session.print(bytes)), pump(err, |bytes| session.eprint(bytes)),)?;
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    let ended = process.join().await;
    match status {
        Some(status) => {
            let status =
                serde_json::to_value(status).map_err(|e| Error::client(format!("exit status: {e}")))?;
            Ok(outcome(&status))
        }
        None => Ok(Outcome::Failed(match ended {
            Ok(()) => "the connection ended before the command did".into(),
            Err(error) => format!("error reading from error stream: {error}"),
        })),
    }
}

/// The exit code stands in the details of the status (`remotecommand` protocol v4).
fn outcome(status: &Value) -> Outcome {
    if status["status"] == "Success" {
        return Outcome::Exit(0);
    }
    let code = items(&status["details"]["causes"])
        .find(|cause| cause["reason"] == "ExitCode")
        .and_then(|cause| cause["message"].as_str()?.parse().ok());
    match code {
        Some(code) => Outcome::Exit(code),
        None => Outcome::Failed(text(&status["message"])),
    }
}

async fn pump(from: Option<impl AsyncRead + Unpin>, to: impl Fn(&[u8]) -> Result<()>) -> Result<()> {
    let Some(mut from) = from else { return Ok(()) };
    let mut buffer = vec![0; 16 << 10];
    loop {
        match from.read(&mut buffer).await? {
            0 => return Ok(()),
            n => to(&buffer[..n])?,
        }
    }
}

/// Tells the size of the window now and whenever it changes.
async fn resize(mut sizes: Sender<TerminalSize>) {
    let Ok(mut changed) = signal(SignalKind::window_change()) else { return };
    loop {
        if let Some(size) = terminal::size()
            && sizes.send(size).await.is_err()
        {
            return;
        }
        changed.recv().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn exit_codes() {
        let status = json!({"status": "Failure", "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": "42"}]}});
        assert!(matches!(outcome(&status), Outcome::Exit(42)));
        assert!(matches!(outcome(&json!({"status": "Success"})), Outcome::Exit(0)));
        let failed = json!({"status": "Failure", "message": "no such file"});
        assert!(matches!(outcome(&failed), Outcome::Failed(text) if text == "no such file"));
    }
}
