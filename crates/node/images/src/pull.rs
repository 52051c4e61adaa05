//! Pulling from a registry.

use std::collections::{BTreeSet, HashMap};
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt, Shared, WeakShared};
use oci_client::Client;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use ring::digest::{Context, SHA256};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use xebec_cri::{AuthConfig, Image};

use crate::manifest::{ACCEPT, Config, Descriptor, Document, chain_ids, digest, digest_text};
use crate::store::{Blobs, Names};
use crate::{ImageError, ImageStore, Reference};

/// Layers of one image that are downloaded at once; containerd's default.
const PARALLEL: usize = 3;
/// A configuration is not larger than this many bytes.
const MAX_CONFIG: u64 = 8 * 1024 * 1024;
/// How long a registry may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(30);
/// How long a registry may send nothing.
const STALL: Duration = Duration::from_secs(60);

type Failure = Arc<(&'static str, String)>;
type Running = BoxFuture<'static, Result<Image, Failure>>;

/// Pulls under way, by reference and credentials.
#[derive(Default)]
pub(crate) struct Pulls(Mutex<HashMap<(String, String), WeakShared<Running>>>);

impl ImageStore {
    /// Brings an image here. Pulls of one reference with the same credentials at the same time share the work.
    ///
    /// # Errors
    /// References that cannot be read, and whatever the registry or the disk has against it.
    pub async fn pull(&self, reference: &str, auth: Option<&AuthConfig>) -> Result<Image, ImageError> {
        let reference: Reference = reference.parse()?;
        let auth = credentials(auth, &reference)?;
        let key = (reference.to_string(), secret_key(&auth));
        let running = self.share(key, reference, auth);
        running.await.map_err(|f| ImageError::Shared { reason: f.0, message: f.1.clone() })
    }

    fn share(&self, key: (String, String), reference: Reference, auth: RegistryAuth) -> Shared<Running> {
        let mut pulls = self.inner.pulls.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        pulls.retain(|_, p| p.upgrade().is_some_and(|p| p.peek().is_none()));
        if let Some(running) = pulls.get(&key).and_then(WeakShared::upgrade) {
            return running;
        }
        let store = self.clone();
        let work = async move {
            let result = store.pull_now(&reference, &auth).await;
            result.map_err(|e| Arc::new((e.reason(), e.to_string())))
        };
        let running = work.boxed().shared();
        if let Some(weak) = running.downgrade() {
            pulls.insert(key, weak);
        }
        running
    }

    async fn pull_now(&self, reference: &Reference, auth: &RegistryAuth) -> Result<Image, ImageError> {
        let registry = Registry::new(self, reference, auth)?;
        let (top, top_digest) = registry.manifest(reference.digest.as_deref()).await?;
        let manifest = match &top.config {
            Some(_) => top,
            None => registry.manifest(Some(&top.for_this_platform()?.digest)).await?.0,
        };
        let config_at = manifest.config.as_ref().ok_or_else(|| {
            ImageError::Manifest(format!("manifest of {reference} has no image configuration"))
        })?;
        let temp = self.inner.temp_dir()?;
        let config_path = temp.path().join("config");
        registry.blob(config_at, &config_path, MAX_CONFIG).await?;
        let bytes = tokio::fs::read(&config_path).await.map_err(ImageError::io("read", &config_path))?;
        let config = Config::parse(&bytes)?;
        if config.rootfs.diff_ids.len() != manifest.layers.len() {
            return Err(ImageError::Manifest(format!(
                "{reference} has {} layers but {} diff ids",
                manifest.layers.len(),
                config.rootfs.diff_ids.len()
            )));
        }
        let id = config_at.digest.clone();
        let missing: Vec<bool> =
            chain_ids(&config.rootfs.diff_ids).iter().map(|chain_id| !self.has_layer(chain_id)).collect();
        let downloads = Downloads::start(registry, &manifest.layers, &missing, temp);
        let names = Names {
            tags: reference.digest.is_none().then(|| reference.to_string()).into_iter().collect(),
            digests: BTreeSet::from([reference.with_digest(&top_digest)]),
            pinned: false,
        };
        self.install(id, config, downloads, names).await
    }
}

/// One registry, for one image.
#[derive(Clone)]
struct Registry {
    client: Client,
    auth: RegistryAuth,
    reference: Reference,
}

impl Registry {
    fn new(store: &ImageStore, reference: &Reference, auth: &RegistryAuth) -> Result<Self, ImageError> {
        // The client takes the process's provider; someone else may have installed it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let host = &reference.registry;
        let plain = is_loopback(host) || store.inner.options.insecure_registries.contains(host);
        let config = ClientConfig {
            protocol: if plain { ClientProtocol::Http } else { ClientProtocol::Https },
            connect_timeout: Some(CONNECT),
            read_timeout: Some(STALL),
            user_agent: concat!("xebec/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let client = Client::try_from(config).map_err(|e| failure(reference, e))?;
        Ok(Self { client, auth: auth.clone(), reference: reference.clone() })
    }

    fn at(&self, digest: Option<&str>) -> oci_client::Reference {
        let (registry, repository) = (self.reference.registry.clone(), self.reference.repository.clone());
        match (digest, &self.reference.tag) {
            (Some(digest), _) => oci_client::Reference::with_digest(registry, repository, digest.to_owned()),
            (None, tag) => {
                let tag = tag.clone().unwrap_or_else(|| "latest".to_owned());
                oci_client::Reference::with_tag(registry, repository, tag)
            }
        }
    }

    /// A manifest by digest, or by the reference's tag, with its digest.
    async fn manifest(&self, wanted: Option<&str>) -> Result<(Document, String), ImageError> {
        let answer = self.client.pull_manifest_raw(&self.at(wanted), &self.auth, ACCEPT).await;
        let (bytes, _) = answer.map_err(|e| failure(&self.reference, e))?;
        let actual = digest(&bytes);
        if let Some(expected) = wanted
            && actual != expected
        {
            return Err(ImageError::Digest { what: "manifest", expected: expected.to_owned(), actual });
        }
        Ok((Document::parse(&bytes)?, actual))
    }

    /// Downloads a blob into a file and checks its digest.
    async fn blob(&self, at: &Descriptor, to: &Path, limit: u64) -> Result<(), ImageError> {
        let descriptor = OciDescriptor {
            digest: at.digest.clone(),
            media_type: at.media_type.clone(),
            size: at.size,
            ..OciDescriptor::default()
        };
        let fail = |e| failure(&self.reference, e);
        let mut body = self.client.pull_blob_stream(&self.at(None), &descriptor).await.map_err(fail)?.stream;
        let file = std::fs::File::create(to).map_err(ImageError::io("create", to))?;
        let mut file = std::io::BufWriter::with_capacity(256 * 1024, file);
        let mut context = Context::new(&SHA256);
        let mut size = 0;
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|e| failure(&self.reference, e.into()))?;
            size += piece.len() as u64;
            if size > limit {
                return Err(ImageError::Manifest(format!("blob {} is larger than {limit} bytes", at.digest)));
            }
            context.update(&piece);
            // Into the page cache: short enough not to hold up the runtime.
            file.write_all(&piece).map_err(ImageError::io("write", to))?;
        }
        file.flush().map_err(ImageError::io("write", to))?;
        let actual = digest_text(context);
        if actual != at.digest {
            return Err(ImageError::Digest { what: "blob", expected: at.digest.clone(), actual });
        }
        Ok(())
    }
}

/// Downloads that run while layers are unpacked in their order.
struct Downloads {
    ready: Vec<Option<oneshot::Receiver<Result<PathBuf, ImageError>>>>,
    /// Aborts them when the pull is given up.
    _tasks: JoinSet<()>,
    _temp: TempDir,
}

impl Downloads {
    fn start(registry: Registry, layers: &[Descriptor], missing: &[bool], temp: TempDir) -> Self {
        let slots = Arc::new(tokio::sync::Semaphore::new(PARALLEL));
        let mut tasks = JoinSet::new();
        let mut ready = Vec::new();
        for (index, layer) in layers.iter().enumerate() {
            if !missing[index] {
                ready.push(None);
                continue;
            }
            let (sender, receiver) = oneshot::channel();
            let (registry, slots, layer) = (registry.clone(), slots.clone(), layer.clone());
            let to = temp.path().join(format!("layer-{index}"));
            tasks.spawn(async move {
                let slot = slots.acquire().await;
                let result = registry.blob(&layer, &to, u64::MAX).await.map(|()| to);
                drop(slot);
                // Nobody waits when an earlier layer has failed.
                let _ = sender.send(result);
            });
            ready.push(Some(receiver));
        }
        Self { ready, _tasks: tasks, _temp: temp }
    }
}

impl Blobs for Downloads {
    async fn layer(&mut self, index: usize) -> Result<PathBuf, ImageError> {
        let gone =
            || ImageError::Manifest("a layer disappeared while the image was pulled: pull again".to_owned());
        let receiver = self.ready.get_mut(index).and_then(Option::take).ok_or_else(gone)?;
        receiver.await.map_err(|_| gone())?
    }
}

/// What the registry is told about who we are.
fn credentials(auth: Option<&AuthConfig>, reference: &Reference) -> Result<RegistryAuth, ImageError> {
    let Some(auth) = auth else { return Ok(RegistryAuth::Anonymous) };
    if !auth.registry_token.is_empty() {
        return Ok(RegistryAuth::Bearer(auth.registry_token.clone()));
    }
    if !auth.username.is_empty() || !auth.password.is_empty() {
        return Ok(RegistryAuth::Basic(auth.username.clone(), auth.password.clone()));
    }
    if !auth.identity_token.is_empty() {
        return Err(ImageError::Registry {
            reason: "ErrImagePull",
            reference: reference.to_string(),
            message: "identityToken is not supported: use username and password, or registryToken".to_owned(),
        });
    }
    Ok(RegistryAuth::Anonymous)
}

/// Tells credentials apart without keeping them.
fn secret_key(auth: &RegistryAuth) -> String {
    match auth {
        RegistryAuth::Anonymous => String::new(),
        RegistryAuth::Basic(user, password) => digest(format!("{user}\0{password}").as_bytes()),
        RegistryAuth::Bearer(token) => digest(token.as_bytes()),
    }
}

fn is_loopback(registry: &str) -> bool {
    let host = registry
        .rsplit_once(':')
        .filter(|(_, p)| p.bytes().all(|b| b.is_ascii_digit()))
        .map_or(registry, |h| h.0);
    let host = host.trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|a| a.is_loopback())
}

/// The words that people know from containerd.
fn failure(reference: &Reference, error: OciDistributionError) -> ImageError {
    let name = reference.to_string();
    let denied = || {
        format!(
            "failed to resolve reference {name:?}: pull access denied, repository does not exist or may require \
             authorization: authorization failed"
        )
    };
    let missing = || format!("failed to resolve reference {name:?}: {name}: not found");
    let message = match &error {
        OciDistributionError::ImageManifestNotFoundError(_) => missing(),
        OciDistributionError::UnauthorizedError { .. } | OciDistributionError::AuthenticationFailure(_) => {
            denied()
        }
        OciDistributionError::ServerError { code: 404, .. } => missing(),
        OciDistributionError::ServerError { code: 401 | 403, .. } => denied(),
        OciDistributionError::RegistryError { envelope, .. } => {
            match envelope.errors.first().map(|e| &e.code) {
                Some(OciErrorCode::ManifestUnknown | OciErrorCode::NameUnknown | OciErrorCode::NotFound) => {
                    missing()
                }
                Some(OciErrorCode::Unauthorized | OciErrorCode::Denied) => denied(),
                _ => format!("failed to resolve reference {name:?}: {error}"),
            }
        }
        OciDistributionError::RequestError(request) => {
            format!("failed to resolve reference {name:?}: failed to do request: {}", causes(request))
        }
        other => format!("failed to resolve reference {name:?}: {other}"),
    };
    ImageError::Registry { reason: "ErrImagePull", reference: name, message }
}

/// An error with all that caused it.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_recognised() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:5000", "[::1]:5000", "127.1.2.3"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["docker.io", "10.0.0.1:5000", "localhost.example.com"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
