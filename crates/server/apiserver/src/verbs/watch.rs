//! `watch`: a position in a resource's event ring, told as a stream of JSON lines.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use xebec_types::Status;

use crate::api::{Api, Call, cache_status};
use crate::body::{Body, BodyError};
use crate::cache::{Cache, CacheEvent, Entry, Filter, Next, ResourceCache};
use crate::catalog::Target;
use crate::codec::Encoded;
use crate::negotiate::{self, Shape};
use crate::query::ListOptions;
use crate::reply::{self, Reply};
use crate::table::Rows;

/// Events taken from the ring at once.
const BATCH: usize = 256;
/// How often bookmarks are sent; upstream's interval.
const BOOKMARK: Duration = Duration::from_secs(60);
/// How long before its end a watch sends a last bookmark.
const LAST_BOOKMARK: Duration = Duration::from_secs(2);
/// The shortest default duration of a watch; the longest is twice this.
const MIN_TIMEOUT: u64 = 1800;
/// Pieces of at most about this many bytes are sent together.
const PIECE: usize = 64 << 10;

/// The type of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Added,
    Modified,
    Deleted,
}

impl Type {
    fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// How objects are written.
enum Render {
    Object { api_version: String, kind: String, stored: bool },
    Metadata,
    Table(Box<Rows>),
}

struct Watcher {
    cache: Arc<Cache>,
    objects: Arc<ResourceCache>,
    changed: watch::Receiver<u64>,
    filter: Filter,
    render: Render,
    /// Events up to here have been seen.
    position: u64,
    ready: VecDeque<Bytes>,
    /// Objects that exist at the beginning and are not yet sent.
    initial: VecDeque<Arc<Entry>>,
    /// Whether a bookmark ends the initial events.
    mark_initial: bool,
    bookmarks: bool,
    next_bookmark: Instant,
    end: Instant,
    stopping: CancellationToken,
    over: bool,
}

impl Api {
    /// Answers a watch.
    ///
    /// # Errors
    /// 400 and 422 for options, 406. What goes wrong later is told in the stream.
    pub async fn watch(&self, call: &Call, target: &Target) -> Reply {
        let wanted = negotiate::wanted(&call.headers, true)?;
        let mut options = ListOptions::parse(&call.query, target, &call.info.namespace, true)?;
        if !call.info.name.is_empty() {
            let only = format!("metadata.name={}", call.info.name);
            options.filter.fields = xebec_types::FieldSelector::parse(&only)
                .map_err(|error| Status::bad_request(error.to_string()))?;
        }
        let render = match wanted.shape {
            Shape::Object => Render::Object {
                api_version: target.api_version(),
                kind: target.kind().into(),
                stored: target.version().storage,
            },
            Shape::Metadata => Render::Metadata,
            Shape::Table => Render::Table(Box::new(Rows::new(target, &call.query)?)),
        };
        let mut watcher = Watcher::new(self, target, &options, render);
        watcher.begin(&options).await?;
        Ok(reply::stream(Body::stream(stream::unfold(watcher, |mut watcher| async move {
            watcher.next().await.map(|piece| (Ok::<_, BodyError>(piece), watcher))
        }))))
    }
}

impl Watcher {
    fn new(api: &Api, target: &Target, options: &ListOptions, render: Render) -> Self {
        let seconds =
            options.timeout_seconds.unwrap_or_else(|| rand::random_range(MIN_TIMEOUT..2 * MIN_TIMEOUT));
        let now = Instant::now();
        let end = now + Duration::from_secs(seconds);
        Self {
            cache: api.cache.clone(),
            objects: target.cache().clone(),
            changed: target.cache().subscribe(),
            filter: options.filter.clone(),
            render,
            position: options.revision,
            ready: VecDeque::new(),
            initial: VecDeque::new(),
            mark_initial: false,
            bookmarks: options.bookmarks,
            next_bookmark: first_bookmark(now, end),
            end,
            stopping: api.stopping.clone(),
            over: false,
        }
    }

    /// Decides what comes first: everything there is, or the events after a revision.
    async fn begin(&mut self, options: &ListOptions) -> Result<(), Status> {
        let legacy = options.initial_events.is_none() && options.revision == 0;
        if !legacy && options.initial_events != Some(true) {
            if options.revision == 0 {
                // Only what is new from now on.
                self.cache.wait_fresh().await.map_err(cache_status)?;
                self.position = self.cache.revision();
            }
            if let Next::Expired(oldest) = self.objects.next(self.position, 1) {
                self.expire(oldest);
            }
            return Ok(());
        }
        match options.resource_version.as_str() {
            "" => self.cache.wait_fresh().await.map_err(cache_status)?,
            _ => self.cache.wait(options.revision).await.map_err(cache_status)?,
        }
        let applied = self.cache.revision();
        let (items, newest) = self.objects.scan_at(&self.filter.namespace, None, |e| self.filter.matches(e));
        self.initial = items.into();
        self.position = applied.max(newest);
        self.mark_initial = options.initial_events == Some(true) && self.bookmarks;
        Ok(())
    }

    /// The next piece of the stream; `None` ends it.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(piece) = self.take_ready() {
                return Some(piece);
            }
            if self.over || Instant::now() >= self.end {
                return None;
            }
            if self.fill() {
                continue;
            }
            let deadline = if self.bookmarks { self.next_bookmark.min(self.end) } else { self.end };
            tokio::select! {
                changed = self.changed.changed() => self.over |= changed.is_err(),
                () = self.stopping.cancelled() => self.over = true,
                () = tokio::time::sleep_until(deadline) => {
                    if self.bookmarks && Instant::now() >= self.next_bookmark {
                        self.bookmark();
                    }
                }
            }
        }
    }

    /// Lines that wait, joined when they are small.
    fn take_ready(&mut self) -> Option<Bytes> {
        let first = self.ready.pop_front()?;
        let mut size = first.len();
        if self.ready.front().is_none_or(|next| size + next.len() > PIECE) {
            return Some(first);
        }
        let mut joined = Vec::with_capacity(PIECE);
        joined.extend_from_slice(&first);
        while self.ready.front().is_some_and(|next| size + next.len() <= PIECE) {
            let next = self.ready.pop_front()?;
            size += next.len();
            joined.extend_from_slice(&next);
        }
        Some(joined.into())
    }

    /// Turns what is there into lines; `false` if there was nothing.
    fn fill(&mut self) -> bool {
        if !self.initial.is_empty() {
            let count = self.initial.len().min(BATCH);
            for entry in self.initial.drain(..count).collect::<Vec<_>>() {
                let line = self.line(Type::Added, &entry, &entry.encoded);
                self.ready.push_back(line);
            }
            return true;
        }
        if self.mark_initial {
            self.mark_initial = false;
            let line = self.bookmark_line(true);
            self.ready.push_back(line);
            return true;
        }
        // Marked before looking: a change after the look wakes the wait.
        self.changed.mark_unchanged();
        let before = self.cache.revision();
        match self.objects.next(self.position, BATCH) {
            Next::Events(events, last) => {
                for event in &events {
                    if let Some(line) = self.tell(event) {
                        self.ready.push_back(line);
                    }
                }
                self.position = last;
                true
            }
            Next::Wait => {
                self.position = self.position.max(before);
                false
            }
            Next::Expired(oldest) => {
                self.expire(oldest);
                true
            }
            Next::Closed => {
                self.over = true;
                true
            }
        }
    }

    /// What this watcher is to hear of an event: its type depends on what the selectors saw before and see now.
    fn tell(&mut self, event: &CacheEvent) -> Option<Bytes> {
        let matches =
            |entry: &Option<Arc<Entry>>| entry.as_ref().filter(|entry| self.filter.matches(entry)).cloned();
        let (old, new) = (matches(&event.old), matches(&event.new));
        let (kind, entry) = match (old, new) {
            (None, None) => return None,
            (None, Some(new)) => (Type::Added, new),
            (Some(_), Some(new)) => (Type::Modified, new),
            (Some(old), None) => (Type::Deleted, old),
        };
        let natural = match (&event.old, &event.new) {
            (None, _) => Type::Added,
            (Some(_), Some(_)) => Type::Modified,
            (Some(_), None) => Type::Deleted,
        };
        // The last state of an object is told at the revision that ended it.
        let encoded =
            || if kind == Type::Deleted { entry.encoded.at(event.revision) } else { entry.encoded.clone() };
        match &self.render {
            Render::Object { stored: true, .. } if kind == natural => {
                Some(event.line.get_or_init(|| object_line(kind, &encoded().bytes)).clone())
            }
            _ => Some(self.line(kind, &entry, &encoded())),
        }
    }

    fn line(&mut self, kind: Type, entry: &Entry, encoded: &Encoded) -> Bytes {
        match &mut self.render {
            Render::Object { api_version, kind: name, .. } => {
                object_line(kind, &encoded.as_version(api_version, name))
            }
            Render::Metadata => object_line(kind, &crate::table::metadata_of(encoded)),
            Render::Table(rows) => object_line(kind, rows.table(entry, encoded).to_string().as_bytes()),
        }
    }

    fn bookmark(&mut self) {
        let now = Instant::now();
        self.next_bookmark = first_bookmark(now, self.end);
        let line = self.bookmark_line(false);
        self.ready.push_back(line);
    }

    fn bookmark_line(&self, initial_end: bool) -> Bytes {
        let annotations = match initial_end {
            true => ",\"annotations\":{\"k8s.io/initial-events-end\":\"true\"}",
            false => "",
        };
        let (api_version, kind) = match &self.render {
            Render::Object { api_version, kind, .. } => (api_version.as_str(), kind.as_str()),
            Render::Metadata => ("meta.k8s.io/v1", "PartialObjectMetadata"),
            Render::Table(_) => ("meta.k8s.io/v1", "Table"),
        };
        let revision = self.position;
        let rows = if matches!(self.render, Render::Table(_)) {
            ",\"columnDefinitions\":[],\"rows\":[]"
        } else {
            ""
        };
        format!(
            "{{\"type\":\"BOOKMARK\",\"object\":{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":\
             {{\"resourceVersion\":\"{revision}\",\"creationTimestamp\":null{annotations}}}{rows}}}}}\n"
        )
        .into()
    }

    /// Ends the stream: the client is too far behind, or asked for what is gone.
    fn expire(&mut self, oldest: u64) {
        let status = Status::expired(format!("too old resource version: {} ({oldest})", self.position));
        self.ready.push_back(format!("{{\"type\":\"ERROR\",\"object\":{}}}\n", status.to_json()).into());
        self.over = true;
    }
}

/// After a minute, or shortly before the end if that is sooner.
fn first_bookmark(now: Instant, end: Instant) -> Instant {
    let last = end.checked_sub(LAST_BOOKMARK).unwrap_or(now);
    let jittered = BOOKMARK.mul_f64(rand::random_range(0.75..1.0));
    // Past the end is never.
    if now < last { (now + jittered).min(last) } else { end + BOOKMARK }
}

fn object_line(kind: Type, object: &[u8]) -> Bytes {
    let head = format!("{{\"type\":\"{}\",\"object\":", kind.as_str());
    [head.as_bytes(), object, b"}\n"].concat().into()
}
