//! Setup and teardown of all volumes of a pod.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use k8s_openapi::api::core::v1::{
    EmptyDirVolumeSource, Pod, ProjectedVolumeSource, ServiceAccountTokenProjection, Volume, VolumeProjection,
};
use xebec_types::Quantity;

use crate::atomic::{self, File, Ownership, Payload};
use crate::fields::Allocatable;
use crate::render::{self, DEFAULT_MODE};
use crate::{Sources, TokenWanted, VolumeError, host_path, mount};

/// What the node knows and volumes show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Allocatable resources, for `resourceFieldRef`.
    pub allocatable: Allocatable,
}

/// The volumes of a pod, ready.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mounted {
    /// Path on the node of each volume by name.
    pub paths: BTreeMap<String, PathBuf>,
    /// When [`PodVolumes::setup`] should run again because a token is due.
    pub refresh_at: Option<SystemTime>,
}

/// The volumes of all pods of a node, below one directory: `<root>/<pod uid>/volumes/<plugin>/<volume>`.
#[derive(Debug, Clone)]
pub struct PodVolumes {
    root: PathBuf,
}

/// What one volume needs on disk.
enum Wanted {
    Host(k8s_openapi::api::core::v1::HostPathVolumeSource),
    Empty(EmptyDirVolumeSource),
    Files { plugin: &'static str, payload: Payload, tmpfs: bool },
}

impl PodVolumes {
    /// Volumes below `root` (the `pods` directory).
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Directory of a pod.
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.root.join(uid)
    }

    /// Brings every volume of the pod up to date. May be repeated at any time.
    ///
    /// # Errors
    /// The name of the first volume that failed, and why.
    pub async fn setup(
        &self,
        pod: &Pod,
        sources: &dyn Sources,
        facts: &Facts,
    ) -> Result<Mounted, (String, VolumeError)> {
        let mut mounted = Mounted::default();
        let spec = pod.spec.clone().unwrap_or_default();
        for volume in spec.volumes.iter().flatten() {
            let name = volume.name.clone();
            let path = self.setup_one(pod, volume, sources, facts, &mut mounted.refresh_at).await;
            mounted.paths.insert(name.clone(), path.map_err(|e| (name, e))?);
        }
        Ok(mounted)
    }

    async fn setup_one(
        &self,
        pod: &Pod,
        volume: &Volume,
        sources: &dyn Sources,
        facts: &Facts,
        refresh_at: &mut Option<SystemTime>,
    ) -> Result<PathBuf, VolumeError> {
        let wanted = want(pod, volume, sources, facts, refresh_at).await?;
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        atomic::check_path(&uid)?;
        atomic::check_path(&volume.name)?;
        let owner = Ownership { fs_group: fs_group(pod) };
        let base = self.pod_dir(&uid).join("volumes");
        let name = volume.name.clone();
        let memory = pod_memory_limit(pod);
        let task = tokio::task::spawn_blocking(move || put(&base, &name, wanted, owner, memory));
        task.await.expect("invariant: volume setup does not panic")
    }

    /// Unmounts and removes everything of a pod. Not an error when there is nothing.
    pub async fn teardown(&self, uid: &str) -> Result<(), VolumeError> {
        atomic::check_path(uid)?;
        let dir = self.pod_dir(uid);
        let task = tokio::task::spawn_blocking(move || remove_pod_dir(&dir));
        task.await.expect("invariant: volume teardown does not panic")
    }

    /// UIDs of pods that have a directory here, for cleaning up after a restart.
    pub fn known_pods(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        entries.filter_map(|e| e.file_name().into_string().ok()).collect()
    }
}

fn fs_group(pod: &Pod) -> Option<u32> {
    let context = pod.spec.as_ref()?.security_context.as_ref()?;
    context.fs_group.and_then(|g| u32::try_from(g).ok())
}

/// The uid of all containers if they agree: the owner of token files (KEP-2451).
fn common_user(pod: &Pod) -> Option<u32> {
    let spec = pod.spec.as_ref()?;
    let pod_user = spec.security_context.as_ref().and_then(|c| c.run_as_user);
    let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let mut users = all.map(|c| c.security_context.as_ref().and_then(|s| s.run_as_user).or(pod_user));
    let first = users.next()??;
    users.all(|u| u == Some(first)).then_some(u32::try_from(first).ok()?)
}

/// Sum of memory limits, if every container has one: the size of memory-backed volumes (KEP-1967).
fn pod_memory_limit(pod: &Pod) -> Option<u64> {
    let spec = pod.spec.as_ref()?;
    spec.containers.iter().try_fold(0u64, |sum, c| {
        let limit = c.resources.as_ref()?.limits.as_ref()?.get("memory")?;
        let bytes = limit.0.parse::<Quantity>().ok()?.value();
        Some(sum + u64::try_from(bytes).ok()?)
    })
}

async fn want(
    pod: &Pod,
    volume: &Volume,
    sources: &dyn Sources,
    facts: &Facts,
    refresh_at: &mut Option<SystemTime>,
) -> Result<Wanted, VolumeError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    if let Some(source) = &volume.host_path {
        return Ok(Wanted::Host(source.clone()));
    }
    if let Some(source) = &volume.empty_dir {
        return Ok(Wanted::Empty(source.clone()));
    }
    if let Some(source) = &volume.config_map {
        let object = sources.config_map(namespace, &source.name).await?;
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let optional = source.optional.unwrap_or(false);
        let payload =
            render::config_map(&source.name, object.as_deref(), source.items.as_deref(), optional, mode)?;
        return Ok(Wanted::Files { plugin: "kubernetes.io~configmap", payload, tmpfs: false });
    }
    if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        let object = sources.secret(namespace, name).await?;
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let optional = source.optional.unwrap_or(false);
        let payload = render::secret(name, object.as_deref(), source.items.as_deref(), optional, mode)?;
        return Ok(Wanted::Files { plugin: "kubernetes.io~secret", payload, tmpfs: true });
    }
    if let Some(source) = &volume.downward_api {
        let items = source.items.as_deref().unwrap_or_default();
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let payload = render::downward(pod, items, mode, &facts.allocatable)?;
        return Ok(Wanted::Files { plugin: "kubernetes.io~downward-api", payload, tmpfs: true });
    }
    if let Some(source) = &volume.projected {
        let payload = projected(pod, namespace, source, sources, facts, refresh_at).await?;
        return Ok(Wanted::Files { plugin: "kubernetes.io~projected", payload, tmpfs: true });
    }
    Err(VolumeError::Unsupported {
        field: format!("spec.volumes[{:?}]: its volume source", volume.name),
        remedy: "use emptyDir, hostPath, configMap, secret, projected or downwardAPI",
    })
}

async fn projected(
    pod: &Pod,
    namespace: &str,
    source: &ProjectedVolumeSource,
    sources: &dyn Sources,
    facts: &Facts,
    refresh_at: &mut Option<SystemTime>,
) -> Result<Payload, VolumeError> {
    let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
    let mut payload = Payload::new();
    for part in source.sources.iter().flatten() {
        payload.append(&mut projection(pod, namespace, part, mode, sources, facts, refresh_at).await?);
    }
    Ok(payload)
}

async fn projection(
    pod: &Pod,
    namespace: &str,
    part: &VolumeProjection,
    mode: i32,
    sources: &dyn Sources,
    facts: &Facts,
    refresh_at: &mut Option<SystemTime>,
) -> Result<Payload, VolumeError> {
    if let Some(p) = &part.config_map {
        let object = sources.config_map(namespace, &p.name).await?;
        let optional = p.optional.unwrap_or(false);
        return render::config_map(&p.name, object.as_deref(), p.items.as_deref(), optional, mode);
    }
    if let Some(p) = &part.secret {
        let object = sources.secret(namespace, &p.name).await?;
        return render::secret(
            &p.name,
            object.as_deref(),
            p.items.as_deref(),
            p.optional.unwrap_or(false),
            mode,
        );
    }
    if let Some(p) = &part.downward_api {
        return render::downward(pod, p.items.as_deref().unwrap_or_default(), mode, &facts.allocatable);
    }
    if let Some(p) = &part.service_account_token {
        return token(pod, namespace, p, mode, sources, refresh_at).await;
    }
    Err(VolumeError::Unsupported {
        field: "projected.sources".into(),
        remedy: "use configMap, secret, downwardAPI or serviceAccountToken",
    })
}

async fn token(
    pod: &Pod,
    namespace: &str,
    projection: &ServiceAccountTokenProjection,
    mode: i32,
    sources: &dyn Sources,
    refresh_at: &mut Option<SystemTime>,
) -> Result<Payload, VolumeError> {
    atomic::check_path(&projection.path)?;
    let account = pod.spec.as_ref().and_then(|s| s.service_account_name.clone());
    let wanted = TokenWanted {
        namespace: namespace.to_owned(),
        service_account: account.unwrap_or_else(|| "default".into()),
        audience: projection.audience.clone().unwrap_or_default(),
        expiration_seconds: projection.expiration_seconds.unwrap_or(3600),
        pod_name: pod.metadata.name.clone().unwrap_or_default(),
        pod_uid: pod.metadata.uid.clone().unwrap_or_default(),
    };
    let token = sources.token(&wanted).await?;
    *refresh_at = Some(refresh_at.map_or(token.refresh_at, |at| at.min(token.refresh_at)));
    let uid = common_user(pod);
    // A token of a pod with its own user or group is closed to everyone else.
    let narrow = uid.is_some() || fs_group(pod).is_some();
    let mode = if narrow { 0o600 } else { u32::try_from(mode).unwrap_or(0o644) & 0o777 };
    Ok([(projection.path.clone(), File { data: token.token.into_bytes(), mode, uid })].into())
}

fn put(
    base: &Path,
    name: &str,
    wanted: Wanted,
    owner: Ownership,
    memory_limit: Option<u64>,
) -> Result<PathBuf, VolumeError> {
    match wanted {
        Wanted::Host(source) => host_path::setup(&source),
        Wanted::Empty(source) => empty_dir(base, name, &source, owner, memory_limit),
        Wanted::Files { plugin, payload, tmpfs } => {
            let dir = base.join(plugin).join(name);
            fs::create_dir_all(&dir).map_err(VolumeError::io("create directory", &dir))?;
            if tmpfs {
                mount::tmpfs(&dir, None, 0o755)?;
            }
            chmod(&dir, 0o755)?;
            atomic::write(&dir, &payload, owner)?;
            Ok(dir)
        }
    }
}

fn empty_dir(
    base: &Path,
    name: &str,
    source: &EmptyDirVolumeSource,
    owner: Ownership,
    memory_limit: Option<u64>,
) -> Result<PathBuf, VolumeError> {
    let dir = base.join("kubernetes.io~empty-dir").join(name);
    let fresh = !dir.exists();
    fs::create_dir_all(&dir).map_err(VolumeError::io("create directory", &dir))?;
    match source.medium.as_deref().unwrap_or("") {
        "" => {}
        "Memory" => {
            let limit = source.size_limit.as_ref().and_then(|q| q.0.parse::<Quantity>().ok());
            let limit = limit.and_then(|q| u64::try_from(q.value()).ok()).filter(|l| *l > 0);
            let size = match (limit, memory_limit) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            mount::tmpfs(&dir, size, 0o777)?;
        }
        other => {
            return Err(VolumeError::Unsupported {
                field: format!("emptyDir.medium {other:?}"),
                remedy: "use \"\" or \"Memory\"",
            });
        }
    }
    if fresh {
        if owner.fs_group.is_some() {
            std::os::unix::fs::chown(&dir, None, owner.fs_group).map_err(VolumeError::io("chown", &dir))?;
        }
        chmod(&dir, if owner.fs_group.is_some() { 0o2777 } else { 0o777 })?;
    }
    Ok(dir)
}

fn chmod(path: &Path, mode: u32) -> Result<(), VolumeError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(VolumeError::io("chmod", path))
}

/// Unmounts below the pod's directory first, so that removal never crosses into a mounted file system.
fn remove_pod_dir(dir: &Path) -> Result<(), VolumeError> {
    let plugins = fs::read_dir(dir.join("volumes")).into_iter().flatten().flatten();
    for plugin in plugins {
        for volume in fs::read_dir(plugin.path()).into_iter().flatten().flatten() {
            mount::unmount_all(&volume.path())?;
        }
    }
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(VolumeError::io("remove", dir)(e)),
        _ => Ok(()),
    }
}
