//! Waiting for the cluster to reach a state, driven by watches.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt};
use kube::runtime::watcher;
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Objects by `namespace/name`, or by name where there is no namespace.
pub type Objects<K> = BTreeMap<String, K>;

/// Waits until the objects that match have a property; `what` names it in the error. Answers them.
///
/// # Errors
/// After the time limit, with the state that was seen last.
pub async fn wait_list<K>(
    api: &Api<K>,
    selection: watcher::Config,
    limit: Duration,
    what: &str,
    mut condition: impl FnMut(&Objects<K>) -> bool,
) -> Result<Objects<K>>
where
    K: Resource + Clone + Debug + DeserializeOwned + Serialize + Send + 'static,
{
    let mut objects = Objects::new();
    let mut last_error = None;
    let waiting = async {
        let mut events = watcher(api.clone(), selection).boxed();
        let mut listed = false;
        loop {
            match events.try_next().await {
                Ok(Some(event)) => listed |= apply(&mut objects, event),
                Ok(None) => bail!("the watch ended"),
                // It tries again by itself; the server may be starting.
                Err(error) => last_error = Some(error.to_string()),
            }
            if listed && condition(&objects) {
                return Ok(());
            }
        }
    };
    match tokio::time::timeout(limit, waiting).await {
        Ok(result) => result.map(|()| objects),
        Err(_) => {
            let seen: Vec<String> = objects.values().map(shown).collect();
            let errors = last_error.map(|error| format!("; last error: {error}")).unwrap_or_default();
            bail!("{what}: not within {limit:?}{errors}; last seen:\n{}", seen.join("\n"))
        }
    }
}

/// Waits until one object has a property. Answers it.
///
/// # Errors
/// After the time limit, with the state that was seen last.
pub async fn wait_for<K>(
    api: &Api<K>,
    name: &str,
    limit: Duration,
    what: &str,
    mut condition: impl FnMut(&K) -> bool,
) -> Result<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Serialize + Send + 'static,
{
    let selection = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let what = format!("{name}: {what}");
    let found = wait_list(api, selection, limit, &what, |all| all.values().any(&mut condition)).await?;
    found.into_values().next().context("invariant: the condition saw one")
}

/// Waits until one object is gone.
///
/// # Errors
/// After the time limit, with the state that was seen last.
pub async fn wait_gone<K>(api: &Api<K>, name: &str, limit: Duration) -> Result<()>
where
    K: Resource + Clone + Debug + DeserializeOwned + Serialize + Send + 'static,
{
    let selection = watcher::Config::default().fields(&format!("metadata.name={name}"));
    wait_list(api, selection, limit, &format!("{name}: gone"), Objects::is_empty).await.map(drop)
}

/// Whether the list is complete after this event.
fn apply<K: ResourceExt>(objects: &mut Objects<K>, event: watcher::Event<K>) -> bool {
    let key = |object: &K| match object.namespace() {
        Some(namespace) => format!("{namespace}/{}", object.name_any()),
        None => object.name_any(),
    };
    match event {
        watcher::Event::Init => objects.clear(),
        watcher::Event::InitApply(object) => drop(objects.insert(key(&object), object)),
        watcher::Event::Apply(object) => {
            objects.insert(key(&object), object);
            return true;
        }
        watcher::Event::Delete(object) => {
            objects.remove(&key(&object));
            return true;
        }
        watcher::Event::InitDone => return true,
    }
    false
}

/// What a reader of a failed test wants to see of an object.
fn shown<K: Serialize>(object: &K) -> String {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    if let Some(metadata) = value.get_mut("metadata").and_then(|metadata| metadata.as_object_mut()) {
        metadata.remove("managedFields");
    }
    value.to_string()
}
