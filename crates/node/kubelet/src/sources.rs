//! Objects that pods refer to, kept fresh by one watch each for as long as any pod here refers to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures::StreamExt as _;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount};
use kube::api::{Api, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use serde::de::DeserializeOwned;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use xebec_volumes::{Sources, Token, TokenWanted, VolumeError};

use crate::build::env::referenced;
use crate::spec;

/// How long a pod waits for the first answer about an object.
const FIRST_ANSWER: Duration = Duration::from_secs(10);
/// Changes remembered for slow listeners.
const CHANGES: usize = 256;

type Key = (String, String);

/// `None` until first heard of, then the object or its absence.
type Slot<K> = watch::Receiver<Option<Option<Arc<K>>>>;

struct Watched<K> {
    slot: Slot<K>,
    _stop: DropGuard,
}

type Table<K> = Mutex<BTreeMap<Key, Watched<K>>>;

/// The caches of a node.
pub struct Objects {
    client: kube::Client,
    config_maps: Table<ConfigMap>,
    secrets: Table<Secret>,
    tokens: tokio::sync::Mutex<BTreeMap<TokenWanted, Token>>,
    services: watch::Sender<Option<Arc<BTreeMap<Key, Service>>>>,
    changed: broadcast::Sender<Key>,
    cancel: CancellationToken,
}

impl Objects {
    /// Empty caches; watches end with `cancel`.
    pub fn new(client: kube::Client, cancel: CancellationToken) -> Self {
        Self {
            client,
            config_maps: Mutex::default(),
            secrets: Mutex::default(),
            tokens: tokio::sync::Mutex::default(),
            services: watch::Sender::new(None),
            changed: broadcast::Sender::new(CHANGES),
            cancel,
        }
    }

    /// Namespace and name of objects that change from now on.
    pub fn changes(&self) -> broadcast::Receiver<Key> {
        self.changed.subscribe()
    }

    /// Keeps only what these pods refer to.
    pub fn retain(&self, pods: &[Arc<Pod>]) {
        let mut maps = BTreeSet::new();
        let mut secrets = BTreeSet::new();
        for pod in pods {
            let namespace = spec::namespace(pod).to_owned();
            let (m, s) = pod_references(pod);
            maps.extend(m.into_iter().map(|name| (namespace.clone(), name)));
            secrets.extend(s.into_iter().map(|name| (namespace.clone(), name)));
        }
        lock(&self.config_maps).retain(|key, _| maps.contains(key));
        lock(&self.secrets).retain(|key, _| secrets.contains(key));
    }

    /// Forgets the tokens of a pod.
    pub async fn forget_tokens(&self, pod_uid: &str) {
        self.tokens.lock().await.retain(|wanted, _| wanted.pod_uid != pod_uid);
    }

    /// Watches Services until cancelled.
    pub async fn watch_services(&self) {
        let api: Api<Service> = Api::all(self.client.clone());
        let mut stream = watcher(api, watcher::Config::default()).default_backoff().boxed();
        let mut all: BTreeMap<Key, Service> = BTreeMap::new();
        let mut ready = false;
        let key = |s: &Service| {
            (s.metadata.namespace.clone().unwrap_or_default(), s.metadata.name.clone().unwrap_or_default())
        };
        loop {
            let event = tokio::select! {
                event = stream.next() => event,
                () = self.cancel.cancelled() => return,
            };
            match event {
                Some(Ok(watcher::Event::Init)) => all.clear(),
                Some(Ok(watcher::Event::InitApply(s) | watcher::Event::Apply(s))) => {
                    all.insert(key(&s), s);
                }
                Some(Ok(watcher::Event::Delete(s))) => {
                    all.remove(&key(&s));
                }
                Some(Ok(watcher::Event::InitDone)) => ready = true,
                Some(Err(error)) => tracing::debug!(%error, "watching services"),
                None => return,
            }
            if ready {
                self.services.send_replace(Some(Arc::new(all.clone())));
            }
        }
    }

    /// All Services, once they are known.
    ///
    /// # Errors
    /// They were not read within ten seconds.
    pub async fn services(&self) -> Result<Vec<Service>, VolumeError> {
        let mut slot = self.services.subscribe();
        let known = tokio::time::timeout(FIRST_ANSWER, slot.wait_for(Option::is_some)).await;
        match known {
            Ok(Ok(known)) => Ok(known.iter().flat_map(|all| all.values().cloned()).collect()),
            _ => Err(VolumeError::Fetch {
                what: "services".into(),
                message: "services have not yet been read at least once, cannot construct envvars".into(),
            }),
        }
    }

    async fn get<K>(
        &self,
        table: &Table<K>,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<K>>, VolumeError>
    where
        K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Immutable
            + Clone
            + DeserializeOwned
            + std::fmt::Debug
            + Send
            + Sync
            + 'static,
    {
        let key = (namespace.to_owned(), name.to_owned());
        let mut slot = {
            let mut table = lock(table);
            let watched = table.entry(key.clone()).or_insert_with(|| {
                let stop = self.cancel.child_token();
                let (sender, slot) = watch::channel(None);
                let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
                tokio::spawn(keep(api, key, sender, self.changed.clone(), stop.clone()));
                Watched { slot, _stop: stop.drop_guard() }
            });
            watched.slot.clone()
        };
        let known = tokio::time::timeout(FIRST_ANSWER, slot.wait_for(Option::is_some)).await;
        match known {
            Ok(Ok(known)) => Ok(known.clone().flatten()),
            _ => Err(VolumeError::Fetch {
                what: format!("{} {namespace}/{name}", K::kind(&()).to_lowercase()),
                message: "timed out waiting for the API server".into(),
            }),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Config maps and secrets that a pod refers to: volumes, environment, pull secrets.
pub fn pod_references(pod: &Pod) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut maps, mut secrets) = (BTreeSet::new(), BTreeSet::new());
    let Some(pod_spec) = &pod.spec else { return (maps, secrets) };
    for (_, container) in spec::containers(pod_spec) {
        let (m, s) = referenced(container);
        maps.extend(m);
        secrets.extend(s);
    }
    secrets.extend(pod_spec.image_pull_secrets.iter().flatten().map(|r| r.name.clone()));
    for volume in pod_spec.volumes.iter().flatten() {
        maps.extend(volume.config_map.iter().map(|s| s.name.clone()));
        secrets.extend(volume.secret.iter().filter_map(|s| s.secret_name.clone()));
        let parts = volume.projected.iter().flat_map(|p| p.sources.iter().flatten());
        for part in parts {
            maps.extend(part.config_map.iter().map(|s| s.name.clone()));
            secrets.extend(part.secret.iter().map(|s| s.name.clone()));
        }
    }
    (maps, secrets)
}

/// Objects that may promise never to change.
trait Immutable {
    fn immutable(&self) -> bool;
}
impl Immutable for ConfigMap {
    fn immutable(&self) -> bool {
        self.immutable == Some(true)
    }
}
impl Immutable for Secret {
    fn immutable(&self) -> bool {
        self.immutable == Some(true)
    }
}

/// Watches one object. An immutable one is not watched further.
async fn keep<K>(
    api: Api<K>,
    key: Key,
    slot: watch::Sender<Option<Option<Arc<K>>>>,
    changed: broadcast::Sender<Key>,
    stop: CancellationToken,
) where
    K: kube::Resource<DynamicType = ()>
        + Immutable
        + Clone
        + DeserializeOwned
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    let config = watcher::Config::default().fields(&format!("metadata.name={}", key.1));
    let mut stream = watcher(api, config).default_backoff().boxed();
    let mut listed = None;
    loop {
        let event = tokio::select! {
            event = stream.next() => event,
            () = stop.cancelled() => return,
        };
        let value = match event {
            Some(Ok(watcher::Event::Init)) => {
                listed = None;
                continue;
            }
            Some(Ok(watcher::Event::InitApply(object))) => {
                listed = Some(Arc::new(object));
                continue;
            }
            Some(Ok(watcher::Event::InitDone)) => listed.take(),
            Some(Ok(watcher::Event::Apply(object))) => Some(Arc::new(object)),
            Some(Ok(watcher::Event::Delete(_))) => None,
            Some(Err(error)) => {
                tracing::debug!(%error, name = key.1, "watching a referenced object");
                continue;
            }
            None => return,
        };
        let fixed = value.as_ref().is_some_and(|v| v.immutable());
        slot.send_replace(Some(value));
        // No listener is no error.
        let _ = changed.send(key.clone());
        if fixed {
            stop.cancelled().await;
            return;
        }
    }
}

#[async_trait]
impl Sources for Objects {
    async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<Arc<ConfigMap>>, VolumeError> {
        self.get(&self.config_maps, namespace, name).await
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Arc<Secret>>, VolumeError> {
        self.get(&self.secrets, namespace, name).await
    }

    async fn token(&self, wanted: &TokenWanted) -> Result<Token, VolumeError> {
        let now = SystemTime::now();
        let cached = self.tokens.lock().await.get(wanted).cloned();
        if let Some(token) = cached.filter(|t| t.refresh_at > now) {
            return Ok(token);
        }
        let token = request_token(&self.client, wanted).await?;
        self.tokens.lock().await.insert(wanted.clone(), token.clone());
        Ok(token)
    }
}

async fn request_token(client: &kube::Client, wanted: &TokenWanted) -> Result<Token, VolumeError> {
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), &wanted.namespace);
    let audiences = if wanted.audience.is_empty() { Vec::new() } else { vec![wanted.audience.clone()] };
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(audiences),
            expiration_seconds: Some(wanted.expiration_seconds),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: Some(wanted.pod_name.clone()),
                uid: Some(wanted.pod_uid.clone()),
            }),
        }),
        ..TokenRequest::default()
    };
    let failed = |message: String| VolumeError::Fetch {
        what: format!("token for {}/{}", wanted.namespace, wanted.service_account),
        message,
    };
    let answer = api
        .create_token_request(&wanted.service_account, &PostParams::default(), &request)
        .await
        .map_err(|e| failed(e.to_string()))?;
    let status = answer.status.ok_or_else(|| failed("the answer has no status".into()))?;
    let expires = status.expiration_timestamp.map(|at| SystemTime::from(at.0));
    let expires = expires.ok_or_else(|| failed("the answer has no expiration".into()))?;
    let token = status.token.ok_or_else(|| failed("the answer has no token".into()))?;
    let now = SystemTime::now();
    let life = expires.duration_since(now).unwrap_or_default();
    // Jitter keeps the pods of a node from asking all at once.
    let share = 0.8 - rand::random::<f64>() * 0.02;
    let refresh_at = now + life.mul_f64(share).max(Duration::from_secs(10));
    Ok(Token { token, refresh_at })
}
