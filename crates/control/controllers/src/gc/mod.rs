//! Garbage collection by ownerReferences: dependents of deleted owners, foreground deletion and orphaning.
//!
//! A graph of every object's owners is kept from metadata watches over all resources that discovery offers. Which
//! resources there are changes with CustomResourceDefinitions, so the set of watches follows them.

mod graph;
mod monitors;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions, PropagationPolicy,
};
use kube::{Api, Client};
use serde_json::json;
use xebec_reconcile::{Queue, Reconciler, Requeue};

use graph::{Graph, Item, Owner, Verdict};
pub use monitors::Monitors;

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// The controller; its keys are UIDs.
pub struct GarbageCollector {
    client: Client,
    graph: Arc<Mutex<Graph>>,
}

impl GarbageCollector {
    /// A controller, its queue, and the watches that feed both.
    pub fn new(client: Client) -> (Self, Queue<String>, Monitors) {
        let queue = Queue::new();
        let graph = Arc::new(Mutex::new(Graph::default()));
        let monitors = Monitors::new(client.clone(), graph.clone(), queue.clone());
        (Self { client, graph }, queue, monitors)
    }

    fn graph(&self) -> MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn api(&self, item: &Item) -> Api<DynamicObject> {
        api_for(&self.client, &item.resource, &item.namespace)
    }

    /// Whether an owner that the graph does not hold exists all the same: it may be younger than the graph's
    /// watches, or of a kind without one.
    async fn exists(&self, item: &Item, owner: &Owner) -> Result<bool, kube::Error> {
        let known = self.graph().resource(&owner.api_version, &owner.kind);
        let Some((resource, namespaced)) = known else {
            // An owner of an unknown kind cannot be shown to be gone; upstream keeps the dependent, too.
            return Ok(true);
        };
        let namespace = if namespaced { item.namespace.as_str() } else { "" };
        let api = api_for(&self.client, &resource, namespace);
        Ok(live(&api, &owner.name, &owner.uid).await?.is_some())
    }

    /// Deletes the item or its references to owners that are gone, if the server says the same of it as the graph.
    ///
    /// The watches of kinds do not wait for each other: when the graph hears that an owner is gone, it may not know
    /// yet that the item was orphaned before. So the item is read after its owners were found to be gone.
    async fn collect(&self, item: &Item) -> Result<(), kube::Error> {
        let mut item = item.clone();
        loop {
            let verdict = self.judge(&item).await?;
            if verdict == Verdict::Keep {
                return Ok(());
            }
            let Some(live) = live(&self.api(&item), &item.name, &item.uid).await? else { return Ok(()) };
            let live = Item::new(&item.resource, &live);
            if live.owners != item.owners {
                item = live;
                continue;
            }
            return match verdict {
                Verdict::Keep => Ok(()),
                Verdict::Unlink(uids) => self.unlink(&live, &uids).await,
                Verdict::Delete(policy) => self.delete(&live, policy).await,
            };
        }
    }

    async fn judge(&self, item: &Item) -> Result<Verdict, kube::Error> {
        let (mut known, unknown) = self.graph().owners_of(item);
        for owner in unknown {
            if self.exists(item, &owner).await? {
                known.solid.push(owner);
            } else {
                known.gone.push(owner);
            }
        }
        Ok(graph::verdict(item, &known))
    }

    /// Removes owner references that lead nowhere.
    async fn unlink(&self, item: &Item, owners: &[String]) -> Result<(), kube::Error> {
        let kept: Vec<_> =
            item.owners.iter().filter(|o| !owners.contains(&o.uid)).map(|o| &o.reference).collect();
        let patch = json!({
            "metadata": {"uid": item.uid, "resourceVersion": item.resource_version, "ownerReferences": kept}
        });
        let patched =
            self.api(item).patch_metadata(&item.name, &PatchParams::default(), &Patch::Merge(&patch)).await;
        crate::tolerate(patched, &[404])
    }

    async fn delete(&self, item: &Item, policy: PropagationPolicy) -> Result<(), kube::Error> {
        let params = DeleteParams {
            propagation_policy: Some(policy),
            preconditions: Some(Preconditions { uid: Some(item.uid.clone()), resource_version: None }),
            ..DeleteParams::default()
        };
        crate::tolerate(self.api(item).delete(&item.name, &params).await, &[404, 409])
    }

    /// An owner waits for its dependents: delete those that block it, and let it go when none is left.
    async fn foreground(&self, item: &Item) -> Result<(), kube::Error> {
        let dependents = self.graph().dependents(&item.uid);
        let blocking = |dependent: &&Item| dependent.owners.iter().any(|o| o.uid == item.uid && o.blocks);
        if !dependents.iter().any(|dependent| blocking(&dependent)) {
            return self.remove_finalizer(item, FOREGROUND).await;
        }
        for dependent in dependents.iter().filter(|dependent| !dependent.deleting) {
            self.collect(dependent).await?;
        }
        Ok(())
    }

    /// An owner leaves its dependents behind: they lose the reference, then it goes.
    async fn orphan(&self, item: &Item) -> Result<(), kube::Error> {
        let dependents = self.graph().dependents(&item.uid);
        for dependent in dependents {
            self.unlink(&dependent, std::slice::from_ref(&item.uid)).await?;
        }
        self.remove_finalizer(item, ORPHAN).await
    }

    async fn remove_finalizer(&self, item: &Item, finalizer: &str) -> Result<(), kube::Error> {
        let api = self.api(item);
        let Some(current) = live(&api, &item.name, &item.uid).await? else { return Ok(()) };
        let kept: Vec<_> = current.finalizers.iter().flatten().filter(|f| *f != finalizer).collect();
        let patch = json!({
            "metadata": {"uid": item.uid, "resourceVersion": current.resource_version, "finalizers": kept}
        });
        let patched = api.patch_metadata(&item.name, &PatchParams::default(), &Patch::Merge(&patch)).await;
        crate::tolerate(patched, &[404])
    }
}

impl Reconciler for GarbageCollector {
    type Key = String;
    type Error = kube::Error;
    const NAME: &'static str = "garbage-collector";

    async fn reconcile(&self, uid: &String) -> Result<Requeue, kube::Error> {
        let item = self.graph().get(uid);
        let Some(item) = item else { return Ok(Requeue::Never) };
        if item.deleting && item.finalizers.iter().any(|f| f == ORPHAN) {
            self.orphan(&item).await?;
        } else if item.deleting && item.finalizers.iter().any(|f| f == FOREGROUND) {
            self.foreground(&item).await?;
        } else if !item.deleting && !item.owners.is_empty() {
            self.collect(&item).await?;
        }
        Ok(Requeue::Never)
    }
}

/// The metadata of an object as the server has it now; nothing if it is gone or another has taken its name.
async fn live(api: &Api<DynamicObject>, name: &str, uid: &str) -> Result<Option<ObjectMeta>, kube::Error> {
    match api.get_metadata(name).await {
        Ok(found) => Ok(Some(found.metadata).filter(|meta| meta.uid.as_deref() == Some(uid))),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

fn api_for(client: &Client, resource: &ApiResource, namespace: &str) -> Api<DynamicObject> {
    match namespace {
        "" => Api::all_with(client.clone(), resource),
        namespace => Api::namespaced_with(client.clone(), namespace, resource),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

    use super::*;

    /// What the collector asks for about a ReplicaSet whose Deployment is gone, if the server says that the set has
    /// these owners now.
    async fn asked(owners: serde_json::Value) -> Vec<String> {
        let owner = json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "d"}]);
        let meta =
            |owners| json!({"name": "set", "namespace": "default", "uid": "s", "ownerReferences": owners});
        let live = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": meta(&owners)});
        let (client, mut requests) = xebec_fakeapi::client(move |asked| match asked.path.ends_with("/set") {
            true => (200, live.clone()),
            false => (404, xebec_fakeapi::not_found()),
        });
        let (collector, _queue, _monitors) = GarbageCollector::new(client);
        let sets = ApiResource::erase::<ReplicaSet>(&());
        {
            let mut graph = collector.graph();
            graph.add_resource(&ApiResource::erase::<Deployment>(&()), true);
            graph.upsert(Item::new(&sets, &serde_json::from_value(meta(&owner)).unwrap()));
        }
        collector.reconcile(&"s".to_owned()).await.unwrap();
        let asked = std::iter::from_fn(|| requests.try_recv().ok());
        asked.map(|asked| format!("{} {}", asked.method, asked.path.rsplit('/').next().unwrap())).collect()
    }

    #[tokio::test]
    async fn what_was_orphaned_meanwhile_stays() {
        let owner = json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "d"}]);
        assert_eq!(asked(owner).await, ["GET web", "GET set", "DELETE set"]);
        assert_eq!(
            asked(json!([])).await,
            ["GET web", "GET set"],
            "the watch of sets lags behind that of owners"
        );
    }
}
