//! Programs that go on while a test talks to them: through pipes, or through a terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::PATIENCE;
use crate::command::code;

/// A running program. It is killed when it is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    shown: String,
    said: watch::Receiver<String>,
    input: Option<File>,
    /// The test's side of its terminal.
    terminal: Option<File>,
}

impl Running {
    /// Starts a program with pipes; what it writes to either stream is collected together.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(program: &mut Command) -> Result<Self> {
        let (output, write) = std::io::pipe().context("make a pipe")?;
        let (read, input) = std::io::pipe().context("make a pipe")?;
        program.stdin(read).stdout(write.try_clone().context("make a pipe")?).stderr(write);
        let input = File::from(OwnedFd::from(input));
        Self::spawn(program, OwnedFd::from(output).into(), Some(input), None)
    }

    /// Starts a program with a terminal of this size of its own.
    ///
    /// # Errors
    /// If the terminal cannot be made or the program cannot be started.
    pub fn start_in_terminal(program: &Command, rows: u16, columns: u16) -> Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).context("make a terminal")?;
        grantpt(&master).and_then(|()| unlockpt(&master)).context("make a terminal")?;
        tcsetwinsize(&master, size(rows, columns)).context("size the terminal")?;
        let name = ptsname(&master, Vec::new()).context("name the terminal")?;
        let open = || File::options().read(true).write(true).open(name.to_str().unwrap_or_default());
        let slave = open().context("open the terminal")?;
        // A terminal signals its size to the session that it controls.
        let mut session = Command::new("setsid");
        session.args(["--ctty", "--wait"]).arg(program.as_std().get_program());
        session.args(program.as_std().get_args());
        for (key, value) in program.as_std().get_envs() {
            match value {
                Some(value) => session.env(key, value),
                None => session.env_remove(key),
            };
        }
        let clone = |file: &File| file.try_clone().context("open the terminal");
        session.stdin(clone(&slave)?).stdout(clone(&slave)?).stderr(slave);
        let master = File::from(master);
        Self::spawn(&mut session, clone(&master)?, Some(clone(&master)?), Some(master))
    }

    fn spawn(
        program: &mut Command,
        output: File,
        input: Option<File>,
        terminal: Option<File>,
    ) -> Result<Self> {
        let shown = format!("{:?}", program.as_std());
        let child = program.kill_on_drop(true).spawn().with_context(|| format!("start {shown}"))?;
        // The command holds the other ends too: without them the reader below sees the end.
        program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let (say, said) = watch::channel(String::new());
        std::thread::spawn(move || collect(output, &say));
        Ok(Self { child, shown, said, input, terminal })
    }

    /// All that it said so far.
    pub fn said(&self) -> String {
        self.said.borrow().clone()
    }

    /// Waits until what it said has a property; `what` names it in the error. Answers what it said.
    ///
    /// # Errors
    /// If it ends or time is up before; with what it said.
    pub async fn until(&self, what: &str, condition: impl Fn(&str) -> bool) -> Result<String> {
        let mut said = self.said.clone();
        let found = tokio::time::timeout(PATIENCE, said.wait_for(|text| condition(text))).await;
        match found {
            Ok(Ok(text)) => return Ok(text.clone()),
            Ok(Err(_)) => {}
            Err(_) => bail!("{}: {what}: not within {PATIENCE:?}; it said:\n{}", self.shown, self.said()),
        }
        bail!("{}: {what}: it ended before; it said:\n{}", self.shown, self.said())
    }

    /// Writes to its standard input or terminal.
    ///
    /// # Errors
    /// If that was closed.
    pub fn write(&mut self, text: &str) -> Result<()> {
        let input = self.input.as_mut().context("its input is closed")?;
        input.write_all(text.as_bytes()).with_context(|| format!("write to {}", self.shown))
    }

    /// Closes its standard input.
    pub fn close_input(&mut self) {
        self.input = None;
    }

    /// Changes the size of its terminal.
    ///
    /// # Errors
    /// If it has none.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        let terminal = self.terminal.as_ref().context("it has no terminal")?;
        tcsetwinsize(terminal, size(rows, columns)).context("resize the terminal")
    }

    /// Sends Ctrl-C's signal and waits for the end. Answers the exit code as shells count.
    ///
    /// # Errors
    /// If it does not end in time.
    pub async fn interrupt(mut self) -> Result<i32> {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        if let Some(pid) = pid {
            kill_process(pid, Signal::INT).with_context(|| format!("interrupt {}", self.shown))?;
        }
        self.ended().await
    }

    /// Waits for the end. Answers the exit code as shells count; all that it said is there then.
    ///
    /// # Errors
    /// If it does not end in time.
    pub async fn ended(&mut self) -> Result<i32> {
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let Ok(status) = ended else {
            bail!("{}: does not end within {PATIENCE:?}; it said:\n{}", self.shown, self.said())
        };
        let status = status.with_context(|| format!("wait for {}", self.shown))?;
        // The channel closes when the reader has read all.
        drop(tokio::time::timeout(PATIENCE, self.said.wait_for(|_| false)).await);
        Ok(code(status))
    }

    /// Waits for the end and wants it to be a good one. Answers all that it said.
    ///
    /// # Errors
    /// If it does not end in time, or not with 0.
    pub async fn succeeds(mut self) -> Result<String> {
        let code = self.ended().await?;
        ensure!(code == 0, "{}: exit code {code}; it said:\n{}", self.shown, self.said());
        Ok(self.said())
    }
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// Reads until the other end is closed; a terminal says so by an error.
fn collect(mut output: File, say: &watch::Sender<String>) {
    let mut piece = [0; 4096];
    while let Ok(length @ 1..) = output.read(&mut piece) {
        let text = String::from_utf8_lossy(&piece[..length]);
        say.send_modify(|said| said.push_str(&text));
    }
}
