//! Images out of archives: OCI image layouts and what `docker save` writes.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tempfile::TempDir;
use xebec_cri::Image;

use crate::manifest::{Config, Descriptor, Document, digest};
use crate::store::{Blobs, ImportOptions, Names};
use crate::{ImageError, ImageStore, Reference, unpack};

/// Documents in an archive are not larger than this many bytes.
const MAX_DOCUMENT: u64 = 8 * 1024 * 1024;
/// Indexes may be nested this deep.
const MAX_DEPTH: usize = 4;
/// The archive's image names, as containerd and as the OCI specification have them.
const NAME: &str = "io.containerd.image.name";
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// An image that came out of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The image as it is now, with the references that it had before.
    pub image: Image,
    /// The references that the import gave it.
    pub names: Vec<String>,
}

impl ImageStore {
    /// Imports all images of an archive file. It may be compressed with gzip or zstd.
    ///
    /// # Errors
    /// Files that are no image archive, damaged ones, and images without a name when none is given.
    pub async fn import_file(
        &self,
        path: &Path,
        options: &ImportOptions,
    ) -> Result<Vec<Imported>, ImageError> {
        let (inner, path) = (self.inner.clone(), path.to_owned());
        let archive = tokio::task::spawn_blocking(move || {
            let reader = unpack::decompress(&path).map_err(ImageError::io("open", &path))?;
            Archive::read(reader, inner.temp_dir()?)
        });
        self.import(archive.await??, options).await
    }

    /// Imports all images of an uncompressed archive.
    ///
    /// # Errors
    /// As [`ImageStore::import_file`].
    pub async fn import_reader<R: Read + Send + 'static>(
        &self,
        reader: R,
        options: &ImportOptions,
    ) -> Result<Vec<Imported>, ImageError> {
        let inner = self.inner.clone();
        let archive = tokio::task::spawn_blocking(move || Archive::read(reader, inner.temp_dir()?));
        self.import(archive.await??, options).await
    }

    async fn import(&self, archive: Archive, options: &ImportOptions) -> Result<Vec<Imported>, ImageError> {
        let mut found =
            if archive.files.contains_key("index.json") { archive.oci()? } else { archive.docker()? };
        let ids: BTreeSet<&String> = found.iter().map(|image| &image.id).collect();
        match ids.len() {
            0 => return Err(ImageError::Archive("it holds no image".to_owned())),
            1 if !options.tags.is_empty() => {
                found.truncate(1);
                found[0].tags = options.tags.clone();
            }
            several if !options.tags.is_empty() => {
                let text = format!("it holds {several} images, a name can be given for one");
                return Err(ImageError::Archive(text));
            }
            _ => {}
        }
        // All names are read before the first image is added.
        let named: Vec<(Found, Names)> = found
            .into_iter()
            .map(|image| image.names(options.pinned).map(|names| (image, names)))
            .collect::<Result<_, _>>()?;
        let mut all: Vec<Imported> = Vec::new();
        for (found, names) in named {
            let given = if names.tags.is_empty() { &names.digests } else { &names.tags };
            let given: Vec<String> = given.iter().cloned().collect();
            let image = self.install(found.id, found.config, Files(found.layers), names).await?;
            // One image under several names is an entry for each in some archives.
            match all.iter_mut().find(|one| one.image.id == image.id) {
                Some(one) => {
                    one.image = image;
                    one.names.extend(given);
                }
                None => all.push(Imported { image, names: given }),
            }
        }
        Ok(all)
    }
}

struct Files(Vec<PathBuf>);

impl Blobs for Files {
    async fn layer(&mut self, index: usize) -> Result<PathBuf, ImageError> {
        self.0.get(index).cloned().ok_or_else(|| ImageError::Archive("a layer is missing".to_owned()))
    }
}

/// An image in an archive.
struct Found {
    id: String,
    config: Config,
    layers: Vec<PathBuf>,
    tags: Vec<String>,
    manifest_digest: Option<String>,
}

impl Found {
    /// The references it gets.
    fn names(&self, pinned: bool) -> Result<Names, ImageError> {
        let (mut tags, mut digests) = (BTreeSet::new(), BTreeSet::new());
        for name in &self.tags {
            let reference: Reference = name.parse()?;
            if reference.digest.is_some() && reference.digest != self.manifest_digest {
                return Err(ImageError::Archive(format!(
                    "the name {name:?} has a digest that is not the image's: give a name with a tag"
                )));
            }
            digests.extend(self.manifest_digest.as_ref().map(|d| reference.with_digest(d)));
            tags.extend(reference.digest.is_none().then(|| reference.to_string()));
        }
        if tags.is_empty() && digests.is_empty() {
            return Err(ImageError::Archive(
                "an image in it has no name: give one (`xebec images import --name`)".to_owned(),
            ));
        }
        Ok(Names { tags, digests, pinned })
    }
}

/// The files of an archive, by their names in it, in a directory of ours under names of ours.
struct Archive {
    files: HashMap<String, PathBuf>,
    _temp: TempDir,
}

/// An entry of `docker save`'s `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Archive {
    fn read<R: Read>(reader: R, temp: TempDir) -> Result<Self, ImageError> {
        let damaged = |e: io::Error| ImageError::Archive(format!("cannot be read: {e}"));
        let mut files = HashMap::new();
        let mut links = Vec::new();
        let mut archive = tar::Archive::new(reader);
        for (number, entry) in archive.entries().map_err(damaged)?.enumerate() {
            let mut entry = entry.map_err(damaged)?;
            let name = normal(&entry.path().map_err(damaged)?.to_string_lossy());
            let kind = entry.header().entry_type();
            if kind.is_file() {
                let path = temp.path().join(number.to_string());
                let mut file = File::create(&path).map_err(ImageError::io("create", &path))?;
                io::copy(&mut entry, &mut file).map_err(damaged)?;
                files.insert(name, path);
            } else if let (true, Some(target)) =
                (kind.is_symlink() || kind.is_hard_link(), entry.link_name().map_err(damaged)?)
            {
                // Old versions of Docker write layers that occur twice as links.
                let target = target.to_string_lossy();
                let parent = name.rsplit_once('/').map_or("", |(p, _)| p);
                let full = if kind.is_symlink() { format!("{parent}/{target}") } else { target.into_owned() };
                links.push((name, normal(&full)));
            }
        }
        for (name, target) in links {
            if let Some(path) = files.get(&target).cloned() {
                files.insert(name, path);
            }
        }
        Ok(Self { files, _temp: temp })
    }

    fn path(&self, name: &str) -> Result<&PathBuf, ImageError> {
        self.files.get(name).ok_or_else(|| ImageError::Archive(format!("{name:?} is missing in it")))
    }

    fn document(&self, name: &str) -> Result<Vec<u8>, ImageError> {
        let path = self.path(name)?;
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(ImageError::io("read", path))?;
        file.take(MAX_DOCUMENT).read_to_end(&mut bytes).map_err(ImageError::io("read", path))?;
        Ok(bytes)
    }

    fn blob_name(descriptor: &Descriptor) -> String {
        format!("blobs/{}", descriptor.digest.replacen(':', "/", 1))
    }

    /// A document of the layout, checked against its digest.
    fn checked(&self, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError> {
        let bytes = self.document(&Self::blob_name(descriptor))?;
        let actual = digest(&bytes);
        if actual != descriptor.digest {
            return Err(ImageError::Digest { what: "archive", expected: descriptor.digest.clone(), actual });
        }
        Ok(bytes)
    }

    fn oci(&self) -> Result<Vec<Found>, ImageError> {
        let index = Document::parse(&self.document("index.json")?)?;
        let mut found: Vec<Found> = Vec::new();
        for top in &index.manifests {
            let tag = top.annotations.get(NAME).or_else(|| top.annotations.get(REF_NAME)).cloned();
            // Attestations and the like are no images.
            if top.platform.as_ref().is_some_and(|p| p.os == "unknown") {
                continue;
            }
            let mut document = Document::parse(&self.checked(top)?)?;
            let mut depth = 0;
            while document.config.is_none() {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(ImageError::Archive("indexes are nested too deep".to_owned()));
                }
                let next = self.checked(document.for_this_platform()?)?;
                document = Document::parse(&next)?;
            }
            let config_at = document.config.as_ref().expect("invariant: the loop ends with one");
            let layers: Result<Vec<PathBuf>, _> =
                document.layers.iter().map(|l| self.path(&Self::blob_name(l)).cloned()).collect();
            found.push(Found {
                id: config_at.digest.clone(),
                config: Config::parse(&self.checked(config_at)?)?,
                layers: layers?,
                tags: tag.into_iter().collect(),
                manifest_digest: Some(top.digest.clone()),
            });
        }
        Ok(found)
    }

    fn docker(&self) -> Result<Vec<Found>, ImageError> {
        if !self.files.contains_key("manifest.json") {
            return Err(ImageError::Archive(
                "it has neither index.json (OCI) nor manifest.json (Docker)".to_owned(),
            ));
        }
        let entries: Vec<DockerImage> = serde_json::from_slice(&self.document("manifest.json")?)
            .map_err(|e| ImageError::Archive(format!("manifest.json: {e}")))?;
        let image = |entry: DockerImage| {
            let bytes = self.document(&normal(&entry.config))?;
            let layers: Result<Vec<PathBuf>, _> =
                entry.layers.iter().map(|l| self.path(&normal(l)).cloned()).collect();
            Ok(Found {
                id: digest(&bytes),
                config: Config::parse(&bytes)?,
                layers: layers?,
                tags: entry.repo_tags.unwrap_or_default(),
                manifest_digest: None,
            })
        };
        entries.into_iter().map(image).collect()
    }
}

/// A name in an archive without `.`, `..` and empty parts.
fn normal(name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}
