//! kubectl's verbs on the kube crate: what users of Kubernetes know by heart, without another binary.
//!
//! One file per verb under `verbs`; what they share stands beside this file: how things are named (`targets`,
//! `discovery`, `manifest`), asked for (`session`) and printed (`output`).

mod cmdline;
mod discovery;
mod duration;
mod error;
mod kubeconfig;
mod manifest;
mod output;
mod query;
mod session;
mod targets;
mod terminal;
mod verbs;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod mock;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::process::ExitCode;

pub use error::{Error, Result};
pub use session::{Session, Streams};

use cmdline::{Cli, Verb};

/// Runs a command line (`args[0]` is the program's name) on this process' terminal. The caller has installed the
/// TLS provider.
pub fn main(args: Vec<String>) -> ExitCode {
    let cli = match cmdline::parse(args) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: async runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(start(cli));
    // A read of standard input may hang on; nobody waits for it.
    runtime.shutdown_background();
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

async fn start(cli: Cli) -> i32 {
    let streams = Streams {
        out: Box::new(std::io::stdout()),
        err: Box::new(std::io::stderr()),
        stdin: Box::new(tokio::io::stdin()),
    };
    let result = if let Verb::Config(args) = &cli.verb {
        verbs::config::run(&cli.globals, args)
    } else {
        match kubeconfig::connect(&cli.globals, streams).await {
            Ok(session) => verbs::run(&session, cli.verb).await,
            Err(error) => Err(error),
        }
    };
    result.unwrap_or_else(|error| {
        // A reader that went away (`kubectl get pods | head`) is no failure worth words.
        let closed = matches!(&error, Error::Io(e) if e.kind() == std::io::ErrorKind::BrokenPipe);
        if !closed {
            eprintln!("{error}");
        }
        1
    })
}

/// Runs a command line against a session: what [`main`] does after it has connected.
///
/// # Errors
/// What the user should read; the exit code is then 1.
pub async fn run(session: &Session, args: Vec<String>) -> Result<i32> {
    let cli = Cli::try_parse_from(args).map_err(|e| Error::Plain(cmdline::refusal(&e)))?;
    verbs::run(session, cli.verb).await
}
