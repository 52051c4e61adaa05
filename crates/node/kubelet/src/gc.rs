//! Rare chores: log rotation and removal of unused images when their file system fills.
//!
//! They run when a container has died (that is when there may be something to do), at most once a minute, and
//! otherwise every five minutes with jitter, as upstream looks after its images, because a log also grows and an
//! image also appears while nothing dies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use xebec_cri::{ContainerFilter, CriError, Image, ImageService, RuntimeService};

use crate::logs::rotate;
use crate::worker::Shared;

const AT_MOST: Duration = Duration::from_secs(60);
const AT_LEAST: Duration = Duration::from_secs(300);
/// An image that was seen for the first time less than this ago may be about to be used (`imageMinimumGCAge`).
const MIN_AGE: Duration = Duration::from_secs(120);

/// Does the chores until cancelled.
pub(crate) async fn run(shared: Arc<Shared>, cancel: CancellationToken) {
    let mut collector =
        Collector::new(shared.config.image_gc_high_percent, shared.config.image_gc_low_percent);
    let (runtime, images) = (shared.runtime.runtime.as_ref(), shared.runtime.images.as_ref());
    // How long the images that are here already have been here is not known: long enough.
    if let Err(error) = collector.detect(runtime, images, None, Instant::now()).await {
        tracing::warn!(%error, "images cannot be looked through");
    }
    loop {
        let jitter = 1.0 + rand::random::<f64>() * 0.2;
        tokio::select! {
            () = cancel.cancelled() => return,
            () = shared.died.notified() => {}
            () = tokio::time::sleep(AT_LEAST.mul_f64(jitter)) => {}
        }
        let config = &shared.config;
        rotate::rotate_all(runtime, config.log_max_bytes, config.log_max_files).await;
        match collector.collect(runtime, images, disk, Instant::now()).await {
            Ok(None) => {}
            Ok(Some(short)) => {
                let message = format!(
                    "Failed to garbage collect required amount of images. Attempted to free {} bytes, but only \
                     found {} bytes eligible to free.",
                    short.wanted, short.freed
                );
                shared.events.node(&config.node_name, true, "FreeDiskSpaceFailed", message);
            }
            Err(error) => tracing::warn!(%error, "images cannot be collected"),
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(AT_MOST) => {}
        }
    }
}

/// A file system in bytes.
#[derive(Debug, Clone, Copy)]
struct Disk {
    capacity: u64,
    available: u64,
}

/// The file system of a path.
fn disk(path: &std::path::Path) -> Option<Disk> {
    let stat = rustix::fs::statvfs(path).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Some(Disk { capacity: bytes(stat.f_blocks), available: bytes(stat.f_bavail.min(stat.f_blocks)) })
}

impl Disk {
    /// Bytes to free for `low` percent, if it is at least `high` percent full. 100 percent is never full enough, which
    /// is how collection is turned off.
    fn excess(self, high: u8, low: u8) -> Option<u64> {
        let (capacity, available) = (u128::from(self.capacity), u128::from(self.available));
        // Rounded up, as upstream does by rounding what is free down.
        let full = 100 - (available * 100).checked_div(capacity)?;
        if full < u128::from(high) || high >= 100 {
            return None;
        }
        let free = capacity * u128::from(100 - low.min(100)) / 100;
        u64::try_from(free.saturating_sub(available)).ok()
    }
}

/// What is known of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Record {
    /// When a container was last seen that is made of it.
    last_used: Option<Instant>,
    /// When it was first seen; nothing if it was here before us.
    detected: Option<Instant>,
    size: u64,
    pinned: bool,
}

/// Less was freed than was wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Short {
    wanted: u64,
    freed: u64,
}

/// Remembers when images were used, and removes those first that nobody has used for the longest time
/// (`pkg/kubelet/images/image_gc_manager.go` upstream). Nothing of it outlives the process.
struct Collector {
    high_percent: u8,
    low_percent: u8,
    records: BTreeMap<String, Record>,
}

impl Collector {
    fn new(high_percent: u8, low_percent: u8) -> Self {
        Self { high_percent, low_percent, records: BTreeMap::new() }
    }

    /// Looks which images are here and which of them have containers, running or not. Answers the latter. An image
    /// that was not known is `detected` then.
    async fn detect(
        &mut self,
        runtime: &dyn RuntimeService,
        images: &dyn ImageService,
        detected: Option<Instant>,
        now: Instant,
    ) -> Result<BTreeSet<String>, CriError> {
        let all = images.list_images().await?;
        let containers = runtime.list_containers(&ContainerFilter::default()).await?;
        let used: BTreeSet<String> = containers.into_iter().map(|c| c.image_id).collect();
        self.note(&all, &used, detected, now);
        Ok(used)
    }

    fn note(&mut self, all: &[Image], used: &BTreeSet<String>, detected: Option<Instant>, now: Instant) {
        let seen: BTreeSet<&String> = all.iter().map(|image| &image.id).collect();
        self.records.retain(|id, _| seen.contains(id));
        for image in all {
            let new = Record { last_used: None, detected, size: 0, pinned: false };
            let record = self.records.entry(image.id.clone()).or_insert(new);
            (record.size, record.pinned) = (image.size, image.pinned);
            if used.contains(&image.id) {
                record.last_used = Some(now);
            }
        }
    }

    /// Images that may go, in the order in which they go: the last use decides, then when they were first seen.
    fn order(&self, used: &BTreeSet<String>, now: Instant) -> Vec<String> {
        let old = |record: &Record| {
            record.detected.is_none_or(|detected| now.saturating_duration_since(detected) >= MIN_AGE)
        };
        let mut order: Vec<_> = self
            .records
            .iter()
            .filter(|(id, record)| !used.contains(*id) && !record.pinned && old(record))
            .map(|(id, record)| (record.last_used, record.detected, id.clone()))
            .collect();
        order.sort();
        order.into_iter().map(|(_, _, id)| id).collect()
    }

    /// Removes unused images if their file system is too full. Answers whether that was not enough.
    async fn collect(
        &mut self,
        runtime: &dyn RuntimeService,
        images: &dyn ImageService,
        disk: impl Fn(&std::path::Path) -> Option<Disk>,
        now: Instant,
    ) -> Result<Option<Short>, CriError> {
        let used = self.detect(runtime, images, Some(now), now).await?;
        let mountpoint = images.image_fs_info().await?.mountpoint;
        let excess = disk(&mountpoint).and_then(|disk| disk.excess(self.high_percent, self.low_percent));
        let Some(wanted) = excess else { return Ok(None) };
        let freed = self.free(images, &used, wanted, now).await;
        Ok((freed < wanted).then_some(Short { wanted, freed }))
    }

    /// Removes images until their sizes amount to what is wanted. Answers to what they amount.
    async fn free(
        &mut self,
        images: &dyn ImageService,
        used: &BTreeSet<String>,
        wanted: u64,
        now: Instant,
    ) -> u64 {
        let mut freed = 0;
        for id in self.order(used, now) {
            if freed >= wanted {
                break;
            }
            match images.remove_image(&id).await {
                Ok(()) => {
                    tracing::info!(image = id, "unused image removed");
                    freed += self.records.remove(&id).map_or(0, |record| record.size);
                }
                Err(error) => tracing::debug!(%error, image = id, "image stays"),
            }
        }
        freed
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use xebec_cri::{AuthConfig, FilesystemUsage};

    use super::*;

    /// Images as a runtime lists them: id, size, pinned.
    fn images(list: &[(&str, u64, bool)]) -> Vec<Image> {
        let image = |(id, size, pinned): &(&str, u64, bool)| Image {
            id: (*id).to_owned(),
            repo_tags: Vec::new(),
            repo_digests: Vec::new(),
            size: *size,
            uid: None,
            username: String::new(),
            pinned: *pinned,
            config: xebec_cri::ImageConfig::default(),
        };
        list.iter().map(image).collect()
    }

    fn used(list: &[&str]) -> BTreeSet<String> {
        list.iter().map(ToString::to_string).collect()
    }

    /// A clock that is `minutes` after a beginning.
    fn clock() -> impl Fn(u64) -> Instant {
        let beginning = Instant::now();
        move |minutes| beginning + Duration::from_secs(60 * minutes)
    }

    #[test]
    fn the_longest_unused_goes_first() {
        let at = clock();
        let all = images(&[("big", 900, false), ("b", 1, false), ("c", 1, false), ("pinned", 1, true)]);
        let mut collector = Collector::new(85, 80);
        // "c" was used at 5 minutes, "big" at 10, "b" never.
        for (minute, names) in [(0, &[][..]), (5, &["c"]), (10, &["big"])] {
            collector.note(&all, &used(names), None, at(minute));
        }
        assert_eq!(collector.order(&used(&[]), at(11)), ["b", "c", "big"]);
        assert_eq!(collector.order(&used(&["b"]), at(11)), ["c", "big"], "what is used stays");
    }

    #[test]
    fn of_images_never_used_the_one_that_came_first_goes_first() {
        let at = clock();
        let mut collector = Collector::new(85, 80);
        let mut note = |list: &[(&str, u64, bool)], minute: u64| {
            let detected = (minute > 0).then(|| at(minute));
            collector.note(&images(list), &used(&[]), detected, at(minute));
            collector.order(&used(&[]), at(minute))
        };
        let all = [("z", 1, false), ("y", 1, false), ("x", 1, false)];
        assert_eq!(note(&all[..1], 0), ["z"], "what was here before us is old enough");
        assert_eq!(note(&all[..2], 1), ["z"]);
        assert_eq!(note(&all, 4), ["z", "y"], "a new one may be about to be used");
        assert_eq!(note(&all, 5), ["z", "y"], "for two minutes");
        assert_eq!(note(&all, 6), ["z", "y", "x"]);
        // One that went and came back is new.
        assert_eq!(note(&all[1..], 7), ["y", "x"]);
        assert_eq!(note(&all, 8), ["y", "x"]);
        assert_eq!(note(&all, 10), ["y", "x", "z"]);
    }

    /// Notes what is removed; `stuck` cannot be.
    #[derive(Default)]
    struct FakeImages(std::sync::Mutex<Vec<String>>);

    #[async_trait::async_trait]
    impl ImageService for FakeImages {
        async fn list_images(&self) -> Result<Vec<Image>, CriError> {
            Ok(Vec::new())
        }

        async fn image_status(&self, _: &str) -> Result<Option<Image>, CriError> {
            Ok(None)
        }

        async fn pull_image(&self, _: &str, _: Option<&AuthConfig>) -> Result<Image, CriError> {
            Err(CriError::State("nothing is pulled here".into()))
        }

        async fn remove_image(&self, id: &str) -> Result<(), CriError> {
            if id == "stuck" {
                return Err(CriError::State("it is stuck".into()));
            }
            self.0.lock().unwrap().push(id.to_owned());
            Ok(())
        }

        async fn image_fs_info(&self) -> Result<FilesystemUsage, CriError> {
            Err(CriError::State("there is no file system".into()))
        }
    }

    #[tokio::test]
    async fn as_much_is_removed_as_is_wanted() {
        let at = clock();
        let mut collector = Collector::new(85, 80);
        let all = [("stuck", 9, false), ("a", 2, false), ("b", 2, false), ("c", 2, false), ("d", 2, false)];
        for minute in 0..all.len() {
            let names: Vec<&str> = all[minute..].iter().map(|(id, ..)| *id).collect();
            collector.note(&images(&all), &used(&names), None, at(minute as u64));
        }
        let fake = FakeImages::default();
        assert_eq!(collector.free(&fake, &used(&["d"]), 3, at(9)).await, 4);
        assert_eq!(*fake.0.lock().unwrap(), ["a", "b"], "what stays counts for nothing");
        assert_eq!(collector.free(&fake, &used(&["d"]), 3, at(9)).await, 2, "no more is unused");
        assert_eq!(*fake.0.lock().unwrap(), ["a", "b", "c"]);
        assert_eq!(collector.free(&fake, &used(&[]), 0, at(9)).await, 0);
    }

    #[test]
    fn thresholds_are_upstreams() {
        let disk = |available| Disk { capacity: 1_000, available };
        assert_eq!(disk(151).excess(85, 80), Some(49), "15.1% free are 15%");
        assert_eq!(disk(150).excess(85, 80), Some(50));
        assert_eq!(disk(160).excess(85, 80), None);
        assert_eq!(disk(0).excess(85, 80), Some(200));
        assert_eq!(disk(1_000).excess(0, 0), Some(0));
        assert_eq!(disk(0).excess(100, 80), None, "turned off");
        assert_eq!(Disk { capacity: 0, available: 0 }.excess(85, 80), None);
        let huge = Disk { capacity: u64::MAX, available: 0 };
        assert_eq!(huge.excess(85, 80), Some(u64::MAX / 5));
    }
}
