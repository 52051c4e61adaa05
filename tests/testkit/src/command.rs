//! Running programs to their end.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::AsyncWriteExt;

/// No program that a test runs takes longer.
const LIMIT: Duration = Duration::from_secs(240);

/// What a program said.
#[derive(Debug, Clone, Default)]
pub struct Output {
    /// Exit code; 128 + signal if a signal ended it, as shells count.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Whether it exited with 0.
    pub fn success(&self) -> bool {
        self.code == 0
    }

    /// Both streams, for looking for words in either.
    pub fn both(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// Runs a program with text on its standard input.
///
/// # Errors
/// If it cannot be started or takes too long. Its exit code is part of the answer.
pub async fn run(program: &mut tokio::process::Command, input: &str) -> Result<Output> {
    let shown = format!("{:?}", program.as_std());
    program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = program.spawn().with_context(|| format!("start {shown}"))?;
    let mut stdin = child.stdin.take().expect("invariant: piped");
    let feed = async {
        // Programs may end without reading all.
        drop(stdin.write_all(input.as_bytes()).await);
        drop(stdin);
    };
    let all = async { tokio::join!(feed, child.wait_with_output()).1 };
    match tokio::time::timeout(LIMIT, all).await {
        Ok(output) => Ok(convert(&output.with_context(|| format!("run {shown}"))?)),
        Err(_) => bail!("{shown} takes longer than {} s", LIMIT.as_secs()),
    }
}

/// Runs a program while no runtime is there to wait in, and wants it to succeed.
///
/// # Errors
/// If it cannot be started or fails.
pub fn run_blocking(words: &[&str]) -> Result<String> {
    let shown = words.join(" ");
    let (program, arguments) = words.split_first().context("nothing to run")?;
    let output = std::process::Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = convert(&output.with_context(|| format!("start {shown}"))?);
    if !output.success() {
        bail!("{shown}: exit code {}: {}", output.code, output.both().trim());
    }
    Ok(output.stdout)
}

/// A program's exit code; 128 + signal if a signal ended it, as shells count.
pub fn code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

fn convert(output: &std::process::Output) -> Output {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Output { code: code(output.status), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}
