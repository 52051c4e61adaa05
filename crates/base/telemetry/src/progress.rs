//! One line per component while a cluster starts.

use std::io::{IsTerminal, Write};
use std::time::Instant;

/// Prints `  component   detail   12 ms` lines to stdout.
#[derive(Debug)]
pub struct Progress {
    start: Instant,
    color: bool,
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress {
    /// Starts the clock.
    pub fn new() -> Self {
        let color = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { start: Instant::now(), color }
    }

    /// Milliseconds since the start.
    pub fn elapsed_ms(&self) -> u128 {
        self.start.elapsed().as_millis()
    }

    /// Says that a component is up.
    pub fn done(&self, component: &str, detail: &str) {
        let (on, off) = if self.color { ("\x1b[32m", "\x1b[0m") } else { ("", "") };
        let ms = self.elapsed_ms();
        self.line(&format!("  {on}✓{off} {component:<12} {detail:<58} {ms:>6} ms"));
    }

    /// Prints a line as it is. A closed stdout is no reason to stop a cluster.
    pub fn line(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        drop(writeln!(out, "{text}").and_then(|()| out.flush()));
    }
}
