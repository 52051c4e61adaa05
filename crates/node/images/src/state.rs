//! What the store remembers, and the one file that holds it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};
use xebec_cri::{Image, ImageConfig};

use crate::{ImageError, Reference};

/// An image with its references.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) config: ImageConfig,
    /// Chain ids, bottom first.
    pub(crate) layers: Vec<String>,
    pub(crate) repo_tags: BTreeSet<String>,
    pub(crate) repo_digests: BTreeSet<String>,
    pub(crate) pinned: bool,
}

/// Size of an unpacked layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerInfo {
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
}

/// A container's hold on an image. Keeps the layers even when the image is removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hold {
    pub(crate) image: String,
    pub(crate) layers: Vec<String>,
}

/// Everything in memory.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) images: BTreeMap<String, Record>,
    pub(crate) layers: HashMap<String, LayerInfo>,
    pub(crate) holds: HashMap<String, Hold>,
    /// Layers of pulls under way, with their number of users.
    pub(crate) pending: HashMap<String, usize>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    images: Vec<Record>,
}

const VERSION: u32 = 1;
/// Fewer digits of an id name no image: they are too easily something else that was mistyped.
const SHORTEST_ID: usize = 4;

impl State {
    /// The image with this id, tag or digest.
    pub(crate) fn find(&self, text: &str) -> Option<&Record> {
        let id = text.strip_prefix("sha256:").unwrap_or(text);
        if crate::reference::is_hex_digest(id) {
            return self.images.get(&format!("sha256:{id}"));
        }
        let reference: Reference = text.parse().ok()?;
        match &reference.digest {
            Some(digest) => {
                let full = reference.with_digest(digest);
                self.images.values().find(|r| r.repo_digests.contains(&full))
            }
            None => self.images.values().find(|r| r.repo_tags.contains(&reference.to_string())),
        }
    }

    /// The image with this id, tag or digest, or else the only one whose id begins so.
    pub(crate) fn find_short(&self, text: &str) -> Result<Option<&Record>, ImageError> {
        if let Some(record) = self.find(text) {
            return Ok(Some(record));
        }
        let short = text.strip_prefix("sha256:").unwrap_or(text);
        if short.len() < SHORTEST_ID {
            return Ok(None);
        }
        let begins = |record: &&Record| record.id.trim_start_matches("sha256:").starts_with(short);
        let mut found = self.images.values().filter(begins);
        match (found.next(), found.next()) {
            (_, Some(_)) => Err(ImageError::Ambiguous(text.to_owned())),
            (found, None) => Ok(found),
        }
    }

    /// Containers that hold an image.
    pub(crate) fn holders(&self, id: &str) -> Vec<String> {
        let mut all: Vec<_> =
            self.holds.iter().filter(|(_, hold)| hold.image == id).map(|(name, _)| name.clone()).collect();
        all.sort();
        all
    }

    /// The image as CRI shows it.
    pub(crate) fn show(&self, record: &Record) -> Image {
        let user = record.config.user.split(':').next().unwrap_or_default();
        let uid = user.parse().ok();
        Image {
            id: record.id.clone(),
            repo_tags: record.repo_tags.iter().cloned().collect(),
            repo_digests: record.repo_digests.iter().cloned().collect(),
            size: record.layers.iter().filter_map(|l| self.layers.get(l)).map(|l| l.bytes).sum(),
            uid,
            username: if uid.is_none() { user.to_owned() } else { String::new() },
            pinned: record.pinned,
            config: record.config.clone(),
        }
    }

    /// Adds an image, or references to it. A tag moves here from the image that had it.
    pub(crate) fn add(&mut self, record: Record) {
        for other in self.images.values_mut().filter(|r| r.id != record.id) {
            other.repo_tags.retain(|t| !record.repo_tags.contains(t));
        }
        match self.images.get_mut(&record.id) {
            Some(existing) => {
                existing.repo_tags.extend(record.repo_tags);
                existing.repo_digests.extend(record.repo_digests);
                existing.pinned |= record.pinned;
            }
            None => {
                self.images.insert(record.id.clone(), record);
            }
        }
    }

    /// Layers that no image, container or pull needs.
    pub(crate) fn unused_layers(&self) -> Vec<String> {
        let used: BTreeSet<&String> = self
            .images
            .values()
            .flat_map(|r| &r.layers)
            .chain(self.holds.values().flat_map(|h| &h.layers))
            .chain(self.pending.keys())
            .collect();
        self.layers.keys().filter(|l| !used.contains(l)).cloned().collect()
    }

    /// Reads the images; none when the file does not exist yet.
    pub(crate) fn load(path: &Path) -> Result<BTreeMap<String, Record>, ImageError> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(e) => return Err(ImageError::io("read", path)(e)),
        };
        let stored: Stored =
            serde_json::from_slice(&bytes).map_err(|e| ImageError::io("read", path)(e.into()))?;
        if stored.version != VERSION {
            return Err(ImageError::Manifest(format!(
                "{path:?} has version {}, this program knows {VERSION}: start the version that wrote it",
                stored.version
            )));
        }
        Ok(stored.images.into_iter().map(|r| (r.id.clone(), r)).collect())
    }

    /// Writes the images, all or nothing, and to the disk.
    pub(crate) fn save(&self, path: &Path) -> Result<(), ImageError> {
        let stored = Stored { version: VERSION, images: self.images.values().cloned().collect() };
        let bytes = serde_json::to_vec(&stored).expect("invariant: plain data serialises");
        replace(path, &bytes).map_err(ImageError::io("write", path))
    }
}

/// Replaces a file atomically and durably.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    std::fs::rename(&new, path)?;
    let parent = path.parent().expect("invariant: the file is in the store's directory");
    File::open(parent)?.sync_all()
}
