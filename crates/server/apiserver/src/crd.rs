//! CustomResourceDefinitions become resources, and take their objects with them when they go.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use jiff::Timestamp;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use xebec_registry::{SubresourceName, Verb};
use xebec_types::{GroupResource, Status, object};

use crate::api::{Api, Call};
use crate::cache::{CacheError, Next};
use crate::catalog::{Served, Target};
use crate::verbs::DeleteOptions;
use crate::write::Change;

/// Keeps a definition until its objects are gone.
pub(crate) const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
/// Events of definitions taken at once.
const BATCH: usize = 64;
/// Objects deleted at once when their definition goes.
const CONCURRENT: usize = 16;
/// How long the write of a definition waits for its resource to be served.
const SERVE: Duration = Duration::from_secs(5);
/// What remains allowed while a definition goes.
const TERMINATING: &[Verb] =
    &[Verb::Delete, Verb::DeleteCollection, Verb::Get, Verb::List, Verb::Patch, Verb::Update, Verb::Watch];

/// The resource of definitions.
pub(crate) fn definitions() -> GroupResource {
    GroupResource::new("apiextensions.k8s.io", "customresourcedefinitions")
}

/// Serves the resources of all definitions that are stored.
///
/// # Errors
/// [`CacheError::Stopped`].
pub(crate) async fn load(api: &Api) -> Result<(), CacheError> {
    let Some(served) = api.catalog.snapshot().get(&definitions()).cloned() else { return Ok(()) };
    let (entries, newest) = served.cache.scan_at("", None, |_| true);
    for entry in entries {
        install(api, &entry.decode()).await?;
    }
    api.definitions.send_replace(newest);
    Ok(())
}

/// Follows the definitions until `cancel`.
pub(crate) async fn run(api: &Arc<Api>, cancel: CancellationToken) {
    let Some(served) = api.catalog.snapshot().get(&definitions()).cloned() else { return };
    let mut changed = served.cache.subscribe();
    let mut position = *api.definitions.borrow();
    let mut cleanups = JoinSet::new();
    for entry in served.cache.scan("", None, |_| true) {
        finish(api, &entry.decode(), &mut cleanups, &cancel);
    }
    loop {
        changed.mark_unchanged();
        match served.cache.next(position, BATCH) {
            Next::Events(events, last) => {
                for event in events {
                    let (old, new) =
                        (event.old.as_ref().map(|e| e.decode()), event.new.as_ref().map(|e| e.decode()));
                    if follow(api, old.as_ref(), new.as_ref()).await.is_err() {
                        return;
                    }
                    if let Some(new) = &new {
                        finish(api, new, &mut cleanups, &cancel);
                    }
                }
                position = last;
                api.definitions.send_replace(position);
            }
            Next::Wait => tokio::select! {
                () = cancel.cancelled() => return,
                Some(_) = cleanups.join_next() => {}
                result = changed.changed() => if result.is_err() { return },
            },
            Next::Expired(_) => {
                if load(api).await.is_err() {
                    return;
                }
                position = *api.definitions.borrow();
            }
            Next::Closed => return,
        }
    }
}

/// Waits until the definition written at `revision` is served, so that a client may go on at once.
pub(crate) async fn served(api: &Api, target: &Target, revision: u64) {
    if target.group_resource() == definitions() {
        let mut position = api.definitions.subscribe();
        // A slow start is no failure of the write; the definition's conditions tell the rest.
        let _ = tokio::time::timeout(SERVE, position.wait_for(|position| *position >= revision)).await;
    }
}

async fn follow(api: &Api, old: Option<&Value>, new: Option<&Value>) -> Result<(), CacheError> {
    match (old, new) {
        (_, Some(new)) => install(api, new).await,
        (Some(old), None) => {
            remove(api, &resource_of(old));
            Ok(())
        }
        (None, None) => Ok(()),
    }
}

fn resource_of(definition: &Value) -> GroupResource {
    let text = |path| object::str_at(definition, path);
    GroupResource::new(text("spec.group"), text("spec.names.plural"))
}

fn remove(api: &Api, name: &GroupResource) {
    if api.catalog.snapshot().get(name).is_some_and(|served| served.custom) {
        api.catalog.remove(name);
        api.cache.remove(name);
    }
}

fn is_established(definition: &Value) -> bool {
    let conditions = object::at(definition, "status.conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|c| c["type"] == "Established" && c["status"] == "True")
}

async fn install(api: &Api, definition: &Value) -> Result<(), CacheError> {
    let name = resource_of(definition);
    if !is_established(definition) || api.catalog.snapshot().get(&name).is_some_and(|served| !served.custom) {
        return Ok(());
    }
    let mut resource = match xebec_registry::custom::resource(definition) {
        Ok(resource) => resource,
        Err(errors) => {
            let error = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            tracing::error!(
                definition = object::name(definition),
                error,
                "a stored definition cannot be served"
            );
            return Ok(());
        }
    };
    if object::deletion_timestamp(definition).is_some() {
        resource.verbs = TERMINATING;
    }
    let resource = Arc::new(resource);
    let (cache, new) = api.cache.add(&resource, None);
    if new {
        api.cache.load(cache.clone()).await?;
    }
    api.catalog.put(Served { resource, cache, custom: true });
    Ok(())
}

/// Begins to delete the objects of a definition that is going.
fn finish(api: &Arc<Api>, definition: &Value, cleanups: &mut JoinSet<()>, cancel: &CancellationToken) {
    let going = object::deletion_timestamp(definition).is_some();
    if !going || !object::finalizers(definition).contains(&FINALIZER) {
        return;
    }
    let (api, cancel) = (api.clone(), cancel.clone());
    let (name, resource) = (object::name(definition).to_owned(), resource_of(definition));
    cleanups.spawn(async move {
        tokio::select! {
            () = cancel.cancelled() => {}
            result = clean(&api, &name, &resource) => {
                if let Err(error) = result {
                    tracing::error!(definition = name, %error, "the objects of a definition cannot be deleted");
                }
            }
        }
    });
}

async fn clean(api: &Api, name: &str, resource: &GroupResource) -> Result<(), Status> {
    let call = Call::internal(Timestamp::now());
    let snapshot = api.catalog.snapshot();
    let target = snapshot.get(resource).filter(|served| served.custom).and_then(|served| {
        let version = &served.resource.versions.iter().find(|version| version.served)?.name;
        snapshot.find(&resource.group, version, &resource.resource)
    });
    if let Some(target) = target {
        empty(api, &call, &target).await?;
    }
    let snapshot = api.catalog.snapshot();
    let definitions = snapshot.find("apiextensions.k8s.io", "v1", "customresourcedefinitions");
    let target = definitions.ok_or_else(Status::no_such_resource)?;
    let change =
        Change { target: &target, namespace: "", name, subresource: SubresourceName::Main, dry_run: false };
    let done = api.change_object(&call, &change, |old| {
        let mut new = old.clone();
        let left: Vec<&str> = object::finalizers(old).into_iter().filter(|f| *f != FINALIZER).collect();
        object::metadata_mut(&mut new).insert("finalizers".into(), left.into());
        Ok((new, Vec::new()))
    });
    match done.await {
        Err(status) if status.code != 404 => Err(status),
        _ => Ok(()),
    }
}

/// Deletes everything and waits until it is gone: other finalizers may take their time.
async fn empty(api: &Api, call: &Call, target: &Target) -> Result<(), Status> {
    let mut changed = target.cache().subscribe();
    loop {
        changed.mark_unchanged();
        let entries = target.cache().scan("", None, |_| true);
        if entries.is_empty() {
            return Ok(());
        }
        let results = stream::iter(entries).map(|entry| async move {
            let going = object::deletion_timestamp(&entry.decode()).is_some();
            match going {
                true => Ok(()),
                false => api.delete_entry(call, target, entry, &DeleteOptions::default()).await.map(|_| ()),
            }
        });
        let results: Vec<_> = results.buffer_unordered(CONCURRENT).collect().await;
        for result in results {
            result.or_else(|status: Status| if status.code == 404 { Ok(()) } else { Err(status) })?;
        }
        if !target.cache().is_empty() && changed.changed().await.is_err() {
            return Ok(());
        }
    }
}
