//! Reading and following a container's log. Following is driven by inotify(7) and by the container's end.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use bytes::{BufMut as _, Bytes, BytesMut};
use jiff::Timestamp;
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt as _, AsyncSeekExt as _, BufReader};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::line;

/// Bytes read at once when looking for the last lines.
const BLOCK: u64 = 64 << 10;
/// Longest line of a log file; runtimes cut at 16 KiB.
const MAX_LINE: usize = 1 << 20;

/// What to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Go on with what is written later.
    pub follow: bool,
    /// Begin with the last so many lines.
    pub tail: Option<u64>,
    /// Leave out what is older.
    pub since: Option<Timestamp>,
    /// Put the time before each line.
    pub timestamps: bool,
    /// Stop after so many bytes.
    pub limit: Option<u64>,
    /// Only `stdout` or `stderr`.
    pub stream: Option<String>,
}

/// Reads a log into the channel; ends when the reader has gone, or at the end of the file (with `follow`: its end
/// after `ended`).
///
/// # Errors
/// The file cannot be opened or read.
pub async fn read(
    path: PathBuf,
    options: Options,
    ended: CancellationToken,
    out: mpsc::Sender<std::io::Result<Bytes>>,
) -> std::io::Result<()> {
    let mut file = fs::File::open(&path)?;
    let start = options.tail.map_or(Ok(0), |lines| tail_offset(&mut file, lines))?;
    let changes = if options.follow { Some(Changes::of(&path)?) } else { None };
    let mut reader = open(&path, start).await?;
    let mut writer = Writer { options, out, left: None, open_line: false };
    writer.left = writer.options.limit;
    let mut raw = Vec::new();
    loop {
        // Looked at before the read, so that nothing written before the end is missed.
        let last = ended.is_cancelled();
        if !writer.drain(&mut reader, &mut raw).await? {
            return Ok(());
        }
        let Some(changes) = &changes else { return Ok(()) };
        if replaced(&path, reader.get_ref()).await {
            reader = open(&path, 0).await?;
            continue;
        }
        if last {
            return Ok(());
        }
        tokio::select! {
            () = ended.cancelled() => {}
            changed = changes.wait() => changed?,
            () = writer.out.closed() => return Ok(()),
        }
    }
}

async fn open(path: &Path, offset: u64) -> std::io::Result<BufReader<tokio::fs::File>> {
    let mut file = tokio::fs::File::open(path).await?;
    file.seek(SeekFrom::Start(offset)).await?;
    Ok(BufReader::new(file))
}

/// Whether the path names another file by now: the log was rotated.
async fn replaced(path: &Path, file: &tokio::fs::File) -> bool {
    match (file.metadata().await, tokio::fs::metadata(path).await) {
        (Ok(open), Ok(named)) => open.ino() != named.ino(),
        _ => false,
    }
}

/// Offset of the last `lines` lines.
fn tail_offset(file: &mut fs::File, lines: u64) -> std::io::Result<u64> {
    let mut end = file.metadata()?.len();
    let mut seen = 0;
    let mut block = Vec::new();
    let size = end;
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(start))?;
        block.clear();
        file.by_ref().take(end - start).read_to_end(&mut block)?;
        for (at, byte) in block.iter().enumerate().rev() {
            let position = start + at as u64;
            // The newline that ends the last line does not begin another one.
            if *byte == b'\n' && position + 1 != size {
                seen += 1;
                if seen >= lines {
                    return Ok(if lines == 0 { size } else { position + 1 });
                }
            }
        }
        end = start;
    }
    Ok(if lines == 0 { size } else { 0 })
}

struct Writer {
    options: Options,
    out: mpsc::Sender<std::io::Result<Bytes>>,
    left: Option<u64>,
    /// The last line written was partial.
    open_line: bool,
}

impl Writer {
    /// Sends all whole lines; `false` when nothing more is wanted.
    async fn drain(
        &mut self,
        reader: &mut BufReader<tokio::fs::File>,
        raw: &mut Vec<u8>,
    ) -> std::io::Result<bool> {
        let mut batch = BytesMut::new();
        loop {
            let read = reader.read_until(b'\n', raw).await?;
            let whole = raw.last() == Some(&b'\n');
            if whole {
                raw.pop();
                self.line(raw, &mut batch);
                raw.clear();
            }
            if raw.len() > MAX_LINE {
                return Err(std::io::Error::other("a line of the log is too long"));
            }
            let done = self.left == Some(0);
            if (read == 0 || !whole || done || batch.len() >= 32 << 10) && !batch.is_empty() {
                let chunk = batch.split().freeze();
                if self.out.send(Ok(chunk)).await.is_err() {
                    return Ok(false);
                }
            }
            if done {
                return Ok(false);
            }
            if read == 0 || !whole {
                return Ok(true);
            }
        }
    }

    fn line(&mut self, raw: &[u8], batch: &mut BytesMut) {
        let Some(line) = line::parse(raw) else { return };
        if self.options.stream.as_deref().is_some_and(|s| s != line.stream) {
            return;
        }
        if self.options.since.is_some_and(|since| line.at().is_some_and(|at| at < since)) {
            return;
        }
        let begin = batch.len();
        if self.options.timestamps && !self.open_line {
            batch.put_slice(line.time.as_bytes());
            batch.put_u8(b' ');
        }
        batch.put_slice(line.text);
        if !line.partial {
            batch.put_u8(b'\n');
        }
        self.open_line = line.partial;
        if let Some(left) = &mut self.left {
            let added = (batch.len() - begin) as u64;
            let take = added.min(*left);
            batch.truncate(begin + usize::try_from(take).unwrap_or(usize::MAX));
            *left -= take;
        }
    }
}

/// Changes in the directory of a log.
struct Changes(AsyncFd<OwnedFd>);

impl Changes {
    fn of(path: &Path) -> std::io::Result<Self> {
        let inotify = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        let dir = path.parent().unwrap_or(Path::new("/"));
        let flags = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::DELETE_SELF;
        inotify::add_watch(&inotify, dir, flags)?;
        // Deprecated for types whose descriptor may change while registered; an `OwnedFd` keeps its own to the end.
        #[allow(deprecated)]
        Ok(Self(AsyncFd::new(inotify)?))
    }

    /// Waits for a change and forgets all that are queued.
    async fn wait(&self) -> std::io::Result<()> {
        let mut guard = self.0.readable().await?;
        let mut buffer = [0u8; 4096];
        loop {
            match rustix::io::read(self.0.get_ref(), &mut buffer) {
                Ok(_) => {}
                Err(rustix::io::Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        guard.clear_ready();
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::Write as _;

    async fn all(path: &Path, options: Options) -> String {
        let (out, mut chunks) = mpsc::channel(8);
        let task = tokio::spawn(read(path.to_path_buf(), options, CancellationToken::new(), out));
        let mut text = Vec::new();
        while let Some(chunk) = chunks.recv().await {
            text.extend(chunk.unwrap());
        }
        task.await.unwrap().unwrap();
        String::from_utf8(text).unwrap()
    }

    fn log(dir: &Path) -> PathBuf {
        let path = dir.join("0.log");
        let text = "2026-01-01T00:00:01Z stdout F one\n2026-01-01T00:00:02Z stderr F two\n\
            2026-01-01T00:00:03Z stdout P thr\n2026-01-01T00:00:03Z stdout F ee\n";
        fs::write(&path, text).unwrap();
        path
    }

    #[tokio::test]
    async fn options() {
        let dir = tempfile::tempdir().unwrap();
        let path = log(dir.path());
        let base = Options::default();
        assert_eq!(all(&path, base.clone()).await, "one\ntwo\nthree\n");
        assert_eq!(all(&path, Options { tail: Some(3), ..base.clone() }).await, "two\nthree\n");
        assert_eq!(all(&path, Options { tail: Some(0), ..base.clone() }).await, "");
        assert_eq!(all(&path, Options { limit: Some(5), ..base.clone() }).await, "one\nt");
        let since = "2026-01-01T00:00:02Z".parse().ok();
        assert_eq!(all(&path, Options { since, ..base.clone() }).await, "two\nthree\n");
        let stream = Some("stderr".to_owned());
        assert_eq!(
            all(&path, Options { stream, timestamps: true, ..base }).await,
            "2026-01-01T00:00:02Z two\n"
        );
    }

    #[tokio::test]
    async fn following_sees_writes_rotation_and_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = log(dir.path());
        let (out, mut chunks) = mpsc::channel(8);
        let ended = CancellationToken::new();
        let options = Options { follow: true, tail: Some(1), ..Options::default() };
        let task = tokio::spawn(read(path.clone(), options, ended.clone(), out));
        let text = |b: Bytes| String::from_utf8(b.to_vec()).unwrap();
        assert_eq!(text(chunks.recv().await.unwrap().unwrap()), "ee\n");
        let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"2026-01-01T00:00:04Z stdout F four\n").unwrap();
        assert_eq!(text(chunks.recv().await.unwrap().unwrap()), "four\n");
        fs::rename(&path, dir.path().join("0.log.1")).unwrap();
        fs::write(&path, "2026-01-01T00:00:05Z stdout F five\n").unwrap();
        assert_eq!(text(chunks.recv().await.unwrap().unwrap()), "five\n");
        ended.cancel();
        assert!(chunks.recv().await.is_none());
        task.await.unwrap().unwrap();
    }
}
