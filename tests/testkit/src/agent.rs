//! The process under test: `xebec up` in the cluster's namespace.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::oneshot;

/// A debug binary on a busy machine takes a moment.
const READY: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(20);

/// The binary under test: `XEBEC_BIN`, else the `xebec` of the build that made this test.
///
/// # Errors
/// If there is none, with how to make it.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("XEBEC_BIN") {
        let path = std::path::absolute(path).context("XEBEC_BIN")?;
        ensure!(path.is_file(), "XEBEC_BIN {}: there is no such file", path.display());
        return Ok(path);
    }
    let test = std::env::current_exe().context("find the test's own path")?;
    let mut found = test.ancestors().skip(1).take(3).map(|directory| directory.join("xebec"));
    found.find(|path| path.is_file()).with_context(|| {
        format!("no xebec near {}; `cargo build` makes it, or XEBEC_BIN names another", test.display())
    })
}

/// A running `xebec up`. Dropping it kills it.
#[derive(Debug)]
pub struct Agent {
    child: Child,
}

impl Agent {
    /// Starts `words` (a program with its arguments) and waits for its ready line; all it says goes to `log`.
    ///
    /// # Errors
    /// If it ends before it is ready or takes too long.
    pub async fn start(words: &[String], home: &Path, log: &Path) -> Result<Self> {
        let (program, arguments) = words.split_first().context("nothing to run")?;
        let (output, input) = std::io::pipe().context("make a pipe")?;
        let mut command = Command::new(program);
        command.args(arguments).env("HOME", home).env_remove("KUBECONFIG").stdin(Stdio::null());
        command.stdout(input.try_clone().context("make a pipe")?).stderr(input);
        let child = command.spawn().with_context(|| format!("start {program}"))?;
        // The command holds the pipe's other end too: without it the reader below never sees the end.
        drop(command);
        let agent = Self { child };
        let log = File::options().create(true).append(true).open(log).context("open the agent's log")?;
        let (ready, is_ready) = oneshot::channel();
        std::thread::spawn(move || copy(output, log, ready));
        match tokio::time::timeout(READY, is_ready).await {
            Ok(Ok(())) => Ok(agent),
            Ok(Err(_)) => bail!("xebec up ended before it was ready"),
            Err(_) => bail!("xebec up is not ready after {} s", READY.as_secs()),
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it at once, as the kernel would.
    ///
    /// # Errors
    /// If it ended by itself before.
    pub fn kill(mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait().context("look at xebec up")? {
            bail!("xebec up ended by itself: {status}");
        }
        self.child.kill().and_then(|()| self.child.wait()).context("kill xebec up").map(drop)
    }

    /// Asks it to stop, as Ctrl-C and service managers do, and wants it to succeed.
    ///
    /// # Errors
    /// If it fails or takes too long.
    pub async fn stop(mut self) -> Result<()> {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).context("pid of xebec up")?;
        kill_process(pid, Signal::TERM).context("stop xebec up")?;
        let process = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty());
        let process = process.context("open xebec up")?;
        let ended = tokio::task::spawn_blocking(move || {
            use rustix::event::{PollFd, PollFlags, Timespec, poll};
            let limit = Timespec { tv_sec: STOP.as_secs() as i64, tv_nsec: 0 };
            poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&limit))
        });
        let ended = ended.await.context("wait for xebec up")?.context("wait for xebec up")?;
        ensure!(ended > 0, "xebec up does not stop within {} s", STOP.as_secs());
        let status = self.child.wait().context("wait for xebec up")?;
        ensure!(status.success(), "xebec up stopped with {status}");
        Ok(())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended before; then there is nothing to do.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn copy(output: std::io::PipeReader, mut log: File, ready: oneshot::Sender<()>) {
    let mut ready = Some(ready);
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        // A log that cannot be written is missed when it is looked for.
        drop(writeln!(log, "{line}"));
        if line.starts_with("ready in ")
            && let Some(ready) = ready.take()
        {
            let _ = ready.send(());
        }
    }
}
