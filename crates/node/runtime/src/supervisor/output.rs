//! Output of containers: into logs in CRI's format, and to those who are attached.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

/// Longest part of a line in one log entry.
const MAX_LINE: usize = 16 * 1024;

/// One of a container's two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Turns a stream's bytes into log entries (`<RFC 3339 time> <stream> <P|F> <text>`).
#[derive(Debug, Default)]
pub struct LineSplitter {
    partial: Vec<u8>,
}

impl LineSplitter {
    /// Goes on with the beginning of a line that an earlier supervisor had read.
    pub fn resume(partial: Vec<u8>) -> Self {
        Self { partial }
    }

    /// The beginning of a line that has no end yet.
    pub fn partial(&self) -> &[u8] {
        &self.partial
    }

    /// Appends the entries that `data` completes to `out`.
    pub fn push(&mut self, stream: Stream, time: &str, mut data: &[u8], out: &mut Vec<u8>) {
        while !data.is_empty() {
            let room = MAX_LINE - self.partial.len();
            let end = data.iter().take(room + 1).position(|b| *b == b'\n');
            match end {
                Some(end) => {
                    self.entry(stream, time, 'F', &data[..end], out);
                    data = &data[end + 1..];
                }
                None if data.len() > room => {
                    self.entry(stream, time, 'P', &data[..room], out);
                    data = &data[room..];
                }
                None => {
                    self.partial.extend_from_slice(data);
                    return;
                }
            }
        }
    }

    /// Appends what is left at the end of the stream.
    pub fn finish(&mut self, stream: Stream, time: &str, out: &mut Vec<u8>) {
        if !self.partial.is_empty() {
            self.entry(stream, time, 'F', &[], out);
        }
    }

    fn entry(&mut self, stream: Stream, time: &str, tag: char, data: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(format!("{time} {} {tag} ", stream.name()).as_bytes());
        out.extend_from_slice(&self.partial);
        out.extend_from_slice(data);
        out.push(b'\n');
        self.partial = Vec::new();
    }
}

/// Now, in the log's format.
pub fn timestamp() -> String {
    format!("{:.9}", jiff::Timestamp::now())
}

/// Opens a log for appending.
pub fn open_log(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().append(true).create(true).mode(0o640).open(path)
}

/// Someone attached.
#[derive(Debug)]
pub struct Listener {
    /// Which stream.
    pub stream: Stream,
    /// Write end of its pipe, non-blocking.
    pub pipe: OwnedFd,
}

/// Writes to a log and to listeners. A listener that has gone or that lags behind by a whole pipe is dropped: one slow
/// client must not stop the container.
pub fn deliver(
    log: Option<&mut File>,
    entries: &[u8],
    listeners: &mut Vec<Listener>,
    stream: Stream,
    raw: &[u8],
) {
    if let Some(log) = log
        && !entries.is_empty()
        && let Err(error) = log.write_all(entries)
    {
        eprintln!("write container log: {error}");
    }
    listeners.retain(|listener| {
        listener.stream != stream || matches!(rustix::io::write(&listener.pipe, raw), Ok(n) if n == raw.len())
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]]) -> Vec<(char, usize)> {
        let (mut splitter, mut out) = (LineSplitter::default(), Vec::new());
        for chunk in chunks {
            splitter.push(Stream::Stdout, "T", chunk, &mut out);
        }
        splitter.finish(Stream::Stdout, "T", &mut out);
        let text = String::from_utf8_lossy(&out).into_owned();
        text.lines()
            .map(|line| {
                let rest = line.strip_prefix("T stdout ").unwrap_or_default();
                (rest.chars().next().unwrap_or('?'), rest.len() - 2)
            })
            .collect()
    }

    #[test]
    fn lines_and_parts() {
        assert_eq!(split(&[b"a\nbb\n"]), [('F', 1), ('F', 2)]);
        assert_eq!(split(&[b"a", b"b\n\nc"]), [('F', 2), ('F', 0), ('F', 1)]);
        let long = vec![b'x'; MAX_LINE];
        assert_eq!(split(&[&long, b"\n"]), [('F', MAX_LINE)]);
        assert_eq!(split(&[&long, b"yz\n"]), [('P', MAX_LINE), ('F', 2)]);
        let longer = vec![b'x'; 2 * MAX_LINE + 5];
        assert_eq!(split(&[&longer]), [('P', MAX_LINE), ('P', MAX_LINE), ('F', 5)]);
    }
}
