//! The store: layers in directories, images in one file.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::fs::{Mode, OFlags};
use tempfile::TempDir;
use tracing::{info, warn};
use xebec_cri::{Image, ImageConfig};

use crate::manifest::{Config, chain_ids};
use crate::pull::Pulls;
use crate::state::{Hold, LayerInfo, Record, State};
use crate::{ImageError, unpack};

/// How the store works.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Registries (`host:port`) that are spoken to over plain HTTP. Those on loopback addresses always are.
    pub insecure_registries: Vec<String>,
}

/// How an archive is imported.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// The images are never removed.
    pub pinned: bool,
    /// References for an archive that names none; needs an archive of one image.
    pub tags: Vec<String>,
}

/// What a container's root file system is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rootfs {
    /// Lower directories for overlayfs, top first. Empty for an image without layers.
    pub lowerdirs: Vec<PathBuf>,
    /// What the container starts from.
    pub config: ImageConfig,
}

/// The node's images. Clones share one store.
#[derive(Clone)]
pub struct ImageStore {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) root: PathBuf,
    pub(crate) options: Options,
    state: Mutex<State>,
    /// One lock for each layer that is being unpacked, by chain id.
    building: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    pub(crate) pulls: Pulls,
}

/// The file of all images, in the store's directory.
pub(crate) const IMAGES: &str = "images.json";

impl ImageStore {
    /// Opens the store in a directory, which is made when it is missing. Throws away what a crash left behind.
    ///
    /// # Errors
    /// A directory that cannot be used, or was written by a newer version.
    pub fn open(root: impl Into<PathBuf>, options: Options) -> Result<Self, ImageError> {
        let root = root.into();
        for dir in ["layers", "holds"] {
            let path = root.join(dir);
            std::fs::create_dir_all(&path).map_err(ImageError::io("create", &path))?;
        }
        let tmp = root.join("tmp");
        if tmp.exists() {
            std::fs::remove_dir_all(&tmp).map_err(ImageError::io("empty", &tmp))?;
        }
        std::fs::create_dir_all(&tmp).map_err(ImageError::io("create", &tmp))?;
        let mut state = State { images: State::load(&root.join(IMAGES))?, ..State::default() };
        state.layers = load_layers(&root)?;
        state.holds = load_holds(&root)?;
        let layers = &state.layers;
        state.images.retain(|id, record| {
            let whole = record.layers.iter().all(|l| layers.contains_key(l));
            if !whole {
                warn!(image = %id, "layers of the image are missing; it has to be pulled again");
            }
            whole
        });
        let inner = Inner {
            root,
            options,
            state: Mutex::new(state),
            building: Mutex::default(),
            pulls: Pulls::default(),
        };
        inner.collect();
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The image with this id or reference.
    pub fn get(&self, reference: &str) -> Option<Image> {
        let state = self.inner.lock();
        state.find(reference).map(|r| state.show(r))
    }

    /// All images.
    pub fn list(&self) -> Vec<Image> {
        let state = self.inner.lock();
        state.images.values().map(|r| state.show(r)).collect()
    }

    /// What a container of the image is made of.
    ///
    /// # Errors
    /// No such image.
    pub fn rootfs(&self, image: &str) -> Result<Rootfs, ImageError> {
        let state = self.inner.lock();
        let record = state.find(image).ok_or_else(|| ImageError::NotFound(image.to_owned()))?;
        Ok(self.inner.rootfs(record))
    }

    /// Like [`ImageStore::rootfs`], and keeps the layers for this container until [`ImageStore::release`], over
    /// restarts as well. Repeating it is harmless.
    ///
    /// # Errors
    /// No such image, or a store that cannot be written.
    pub fn hold(&self, container: &str, image: &str) -> Result<Rootfs, ImageError> {
        let mut state = self.inner.lock();
        let record = state.find(image).ok_or_else(|| ImageError::NotFound(image.to_owned()))?;
        let rootfs = self.inner.rootfs(record);
        let hold = Hold { image: record.id.clone(), layers: record.layers.clone() };
        let path = self.inner.hold_path(container)?;
        let bytes = serde_json::to_vec(&hold).expect("invariant: plain data serialises");
        // After a power failure no container runs, so that this needs to survive only us.
        let new = self.inner.root.join("tmp").join(format!("hold-{container}"));
        std::fs::write(&new, bytes).map_err(ImageError::io("write", &new))?;
        std::fs::rename(&new, &path).map_err(ImageError::io("write", &path))?;
        state.holds.insert(container.to_owned(), hold);
        Ok(rootfs)
    }

    /// Ends a container's hold. Not an error when there is none.
    ///
    /// # Errors
    /// A store that cannot be written.
    pub fn release(&self, container: &str) -> Result<(), ImageError> {
        let path = self.inner.hold_path(container)?;
        {
            let mut state = self.inner.lock();
            if state.holds.remove(container).is_none() {
                return Ok(());
            }
            std::fs::remove_file(&path).map_err(ImageError::io("remove", &path))?;
        }
        self.inner.collect();
        Ok(())
    }

    /// Containers that hold images.
    pub fn holders(&self) -> Vec<String> {
        self.inner.lock().holds.keys().cloned().collect()
    }

    /// Bytes and inodes of all layers.
    pub fn usage(&self) -> (u64, u64) {
        self.inner.lock().layers.values().fold((0, 0), |(b, i), l| (b + l.bytes, i + l.inodes))
    }
}

/// Where the blobs of an image come from.
pub(crate) trait Blobs: Send {
    /// The blob of the layer at this position, bottom first, as a file.
    fn layer(&mut self, index: usize) -> impl Future<Output = Result<PathBuf, ImageError>> + Send;
}

/// References and flags an image gets.
pub(crate) struct Names {
    pub(crate) tags: BTreeSet<String>,
    pub(crate) digests: BTreeSet<String>,
    pub(crate) pinned: bool,
}

impl ImageStore {
    /// Whether a layer is here.
    pub(crate) fn has_layer(&self, chain_id: &str) -> bool {
        self.inner.lock().layers.contains_key(chain_id)
    }

    /// Unpacks what is missing of an image and adds it.
    pub(crate) async fn install<B: Blobs>(
        &self,
        id: String,
        config: Config,
        mut blobs: B,
        names: Names,
    ) -> Result<Image, ImageError> {
        let diff_ids = config.rootfs.diff_ids.clone();
        let chain = chain_ids(&diff_ids);
        let pending = Pending::new(&self.inner, &chain);
        for (index, chain_id) in chain.iter().enumerate() {
            let building = self.inner.building(chain_id);
            let unpacking = building.lock().await;
            if !self.has_layer(chain_id) {
                let blob = blobs.layer(index).await?;
                let (inner, chain, diff_id) =
                    (self.inner.clone(), chain[..=index].to_vec(), diff_ids[index].clone());
                tokio::task::spawn_blocking(move || inner.unpack(&blob, &chain, &diff_id)).await??;
            }
            drop(unpacking);
            drop(building);
            self.inner.built(chain_id);
        }
        let (inner, layers) = (self.inner.clone(), chain);
        let image = tokio::task::spawn_blocking(move || {
            let mut state = inner.lock();
            let Names { tags, digests, pinned } = names;
            state.add(Record {
                id: id.clone(),
                config: config.into_config(),
                layers,
                repo_tags: tags,
                repo_digests: digests,
                pinned,
            });
            state.save(&inner.root.join(IMAGES))?;
            Ok::<_, ImageError>(state.show(&state.images[&id]))
        })
        .await??;
        drop(pending);
        Ok(image)
    }
}

impl Inner {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn building(&self, chain_id: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut building = self.building.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        building.entry(chain_id.to_owned()).or_default().clone()
    }

    /// Forgets the lock of a layer when nobody else uses it.
    fn built(&self, chain_id: &str) {
        let mut building = self.building.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if building.get(chain_id).is_some_and(|l| Arc::strong_count(l) == 1) {
            building.remove(chain_id);
        }
    }

    pub(crate) fn temp_dir(&self) -> Result<TempDir, ImageError> {
        let tmp = self.root.join("tmp");
        TempDir::new_in(&tmp).map_err(ImageError::io("create a directory in", tmp))
    }

    fn layer_dir(&self, chain_id: &str) -> PathBuf {
        self.root.join("layers").join(chain_id.trim_start_matches("sha256:"))
    }

    fn hold_path(&self, container: &str) -> Result<PathBuf, ImageError> {
        let plain = !container.is_empty()
            && container.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        if !plain {
            return Err(ImageError::Manifest(format!("{container:?} is no container id")));
        }
        Ok(self.root.join("holds").join(container))
    }

    fn rootfs(&self, record: &Record) -> Rootfs {
        let lowerdirs = record.layers.iter().rev().map(|l| self.layer_dir(l).join("fs")).collect();
        Rootfs { lowerdirs, config: record.config.clone() }
    }

    /// Unpacks the last layer of a chain. Its directory appears at once, when all of it is on disk.
    fn unpack(&self, blob: &Path, chain: &[String], diff_id: &str) -> Result<(), ImageError> {
        let (chain_id, below) = chain.split_last().expect("invariant: a chain has a layer");
        let fail = |source| ImageError::Unpack { layer: diff_id.to_owned(), source };
        let temp = self.temp_dir()?;
        let fs = temp.path().join("fs");
        std::fs::create_dir(&fs).map_err(fail)?;
        let open = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&fs, open, Mode::empty()).map_err(|e| fail(e.into()))?;
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o755)).map_err(|e| fail(e.into()))?;
        let lowers: Vec<PathBuf> = below.iter().rev().map(|l| self.layer_dir(l).join("fs")).collect();
        let (unpacked, actual) = unpack::unpack(blob, &fs, &lowers).map_err(fail)?;
        if actual != diff_id {
            return Err(ImageError::Digest {
                what: "uncompressed layer",
                expected: diff_id.to_owned(),
                actual,
            });
        }
        let layer = LayerInfo { bytes: unpacked.bytes, inodes: unpacked.inodes };
        let meta = serde_json::to_vec(&layer).expect("invariant: plain data serialises");
        std::fs::write(temp.path().join("layer.json"), meta).map_err(fail)?;
        rustix::fs::syncfs(&fd).map_err(|e| fail(e.into()))?;
        let target = self.layer_dir(chain_id);
        // A pull that was given up on may have finished the same layer unseen.
        if !target.exists() {
            std::fs::rename(temp.path(), &target).map_err(ImageError::io("create", &target))?;
        }
        self.lock().layers.insert(chain_id.clone(), layer);
        Ok(())
    }

    /// Deletes the layers that nothing needs.
    pub(crate) fn collect(&self) {
        let trash = {
            let mut state = self.lock();
            let unused = state.unused_layers();
            let Ok(trash) = self.temp_dir() else { return };
            for chain_id in unused {
                let dir = self.layer_dir(&chain_id);
                match std::fs::rename(&dir, trash.path().join(chain_id.trim_start_matches("sha256:"))) {
                    Ok(()) => {
                        state.layers.remove(&chain_id);
                    }
                    Err(error) => warn!(?dir, %error, "layer that nothing uses cannot be removed"),
                }
            }
            trash
        };
        // Deleting takes time and needs no lock.
        let path = trash.path().to_owned();
        if let Err(error) = trash.close() {
            info!(?path, %error, "removed layers are deleted at the next start");
        }
    }
}

/// Keeps layers from being collected while they are pulled.
struct Pending {
    inner: Arc<Inner>,
    layers: Vec<String>,
}

impl Pending {
    fn new(inner: &Arc<Inner>, layers: &[String]) -> Self {
        let mut state = inner.lock();
        for layer in layers {
            *state.pending.entry(layer.clone()).or_default() += 1;
        }
        Self { inner: inner.clone(), layers: layers.to_vec() }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let mut state = self.inner.lock();
        for layer in &self.layers {
            if let Some(users) = state.pending.get_mut(layer) {
                *users -= 1;
                if *users == 0 {
                    state.pending.remove(layer);
                }
            }
        }
    }
}

fn load_layers(root: &Path) -> Result<HashMap<String, LayerInfo>, ImageError> {
    let dir = root.join("layers");
    let mut layers = HashMap::new();
    for entry in std::fs::read_dir(&dir).map_err(ImageError::io("read", &dir))? {
        let entry = entry.map_err(ImageError::io("read", &dir))?;
        let meta = entry.path().join("layer.json");
        let info = File::open(&meta).ok().and_then(|f| serde_json::from_reader(f).ok());
        let Some(info) = info else {
            std::fs::remove_dir_all(entry.path()).map_err(ImageError::io("remove", entry.path()))?;
            continue;
        };
        layers.insert(format!("sha256:{}", entry.file_name().to_string_lossy()), info);
    }
    Ok(layers)
}

fn load_holds(root: &Path) -> Result<HashMap<String, Hold>, ImageError> {
    let dir = root.join("holds");
    let mut holds = HashMap::new();
    for entry in std::fs::read_dir(&dir).map_err(ImageError::io("read", &dir))? {
        let entry = entry.map_err(ImageError::io("read", &dir))?;
        let bytes = std::fs::read(entry.path()).map_err(ImageError::io("read", entry.path()))?;
        let hold =
            serde_json::from_slice(&bytes).map_err(|e| ImageError::io("read", entry.path())(e.into()))?;
        holds.insert(entry.file_name().to_string_lossy().into_owned(), hold);
    }
    Ok(holds)
}
