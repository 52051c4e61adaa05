//! The end of a namespace: everything in it goes first.

use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, PostParams};
use kube::discovery::{ApiCapabilities, Scope, verbs};
use kube::{Api, Client, ResourceExt};
use xebec_reconcile::{Change, Informer, Key, Queue, Reconciler, Requeue};

use crate::Informers;
use crate::resources::{Offered, Resources};

const FINALIZER: &str = "kubernetes";
/// When to look again while something is left that no informer here would tell of, such as objects with finalizers.
const AGAIN: Duration = Duration::from_secs(2);

/// The controller.
pub struct Namespaces {
    client: Client,
    namespaces: Informer<Namespace>,
    pods: Informer<Pod>,
    resources: Resources,
}

/// What is left in a namespace.
#[derive(Debug, Default, PartialEq, Eq)]
struct Left {
    /// Resources with their number of objects.
    objects: Vec<(String, usize)>,
    /// Finalizers with the number of objects that wait for them.
    finalizers: std::collections::BTreeMap<String, usize>,
    /// What could not be deleted.
    errors: Vec<String>,
}

impl Namespaces {
    /// A controller whose queue is fed by these informers.
    pub fn new(client: Client, informers: &Informers) -> (Self, Queue<Key>) {
        let queue = Queue::new();
        let q = queue.clone();
        informers.namespaces.on_change(move |change| {
            if change.object().metadata.deletion_timestamp.is_some() {
                q.add(Key::of(change.object().as_ref()));
            }
        });
        let (q, namespaces) = (queue.clone(), informers.namespaces.clone());
        informers.pods.on_change(move |change| {
            let Change::Deleted(pod) = change else { return };
            let key = Key::new("", pod.namespace().unwrap_or_default());
            if namespaces.get(&key).is_some_and(|n| n.metadata.deletion_timestamp.is_some()) {
                q.add(key);
            }
        });
        let (namespaces, pods) = (informers.namespaces.clone(), informers.pods.clone());
        let resources = Resources::new(client.clone(), &informers.definitions);
        (Self { client, namespaces, pods, resources }, queue)
    }

    /// Deletes everything once and tells what is left.
    async fn empty(&self, namespace: &str, offered: &Offered) -> Left {
        let deletable = offered.resources.iter().filter(|(_, capabilities)| is_deletable(capabilities));
        let (pods, others): (Vec<_>, Vec<_>) = deletable
            .map(|(resource, _)| resource)
            .partition(|resource| resource.group.is_empty() && resource.plural == "pods");
        let mut left = Left::default();
        for batch in [others, pods] {
            for outcome in
                join_all(batch.into_iter().map(|resource| self.empty_of(namespace, resource))).await
            {
                let (name, objects) = match outcome {
                    Ok(outcome) => outcome,
                    Err(error) => {
                        left.errors.push(error.to_string());
                        continue;
                    }
                };
                if !objects.is_empty() {
                    left.objects.push((name, objects.len()));
                }
                for finalizer in objects.iter().flat_map(|o| o.finalizers().to_vec()) {
                    *left.finalizers.entry(finalizer).or_insert(0) += 1;
                }
            }
        }
        left
    }

    async fn empty_of(
        &self,
        namespace: &str,
        resource: &ApiResource,
    ) -> Result<(String, Vec<DynamicObject>), kube::Error> {
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, resource);
        let name = match resource.group.as_str() {
            "" => resource.plural.clone(),
            group => format!("{}.{group}", resource.plural),
        };
        let here = api.list(&ListParams::default()).await?.items;
        if here.is_empty() {
            return Ok((name, here));
        }
        api.delete_collection(&DeleteParams::background(), &ListParams::default()).await?;
        Ok((name, api.list(&ListParams::default()).await?.items))
    }

    /// Writes what is left into the namespace's conditions.
    async fn report(&self, namespace: &Namespace, left: &Left) -> Result<(), kube::Error> {
        let conditions = conditions(namespace, left, Timestamp::now());
        let mut changed = namespace.clone();
        let status = changed.status.get_or_insert_default();
        if status.conditions.as_ref() == Some(&conditions) {
            return Ok(());
        }
        status.conditions = Some(conditions);
        changed.metadata.managed_fields = None;
        let api: Api<Namespace> = Api::all(self.client.clone());
        let written = api.replace_status(&namespace.name_any(), &PostParams::default(), &changed).await;
        crate::tolerate(written, &[404, 409])
    }

    /// Takes our finalizer away, after which the server removes the namespace.
    async fn finalize(&self, namespace: &Namespace) -> Result<(), kube::Error> {
        let mut changed = namespace.clone();
        if let Some(finalizers) = changed.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
            finalizers.retain(|finalizer| finalizer != FINALIZER);
        }
        changed.metadata.resource_version = None;
        let api: Api<Namespace> = Api::all(self.client.clone());
        let finalized: Result<Namespace, _> = api
            .replace_subresource("finalize", &namespace.name_any(), &PostParams::default(), &changed)
            .await;
        crate::tolerate(finalized, &[404])
    }
}

impl Reconciler for Namespaces {
    type Key = Key;
    type Error = kube::Error;
    const NAME: &'static str = "namespace";

    async fn reconcile(&self, key: &Key) -> Result<Requeue, kube::Error> {
        let Some(namespace) = self.namespaces.get(key) else { return Ok(Requeue::Never) };
        let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_ref());
        let ours = finalizers.is_some_and(|f| f.iter().any(|finalizer| finalizer == FINALIZER));
        if namespace.metadata.deletion_timestamp.is_none() || !ours {
            return Ok(Requeue::Never);
        }
        let offered = self.resources.offered().await?;
        let left = self.empty(&key.name, &offered).await;
        if left == Left::default() {
            // A resource that came meanwhile may have objects here.
            if !self.resources.is_current(&offered) {
                return Ok(Requeue::After(Duration::ZERO));
            }
            self.finalize(&namespace).await?;
            return Ok(Requeue::Never);
        }
        // What is left may be of a resource that has gone, or changed, before the definitions told of it.
        self.resources.forget();
        self.report(&namespace, &left).await?;
        let waits_for_pods =
            left.objects.iter().all(|(name, _)| name == "pods") && left.finalizers.is_empty();
        let told_of = !self.pods.in_namespace(&key.name, |_| true).is_empty();
        let later = if waits_for_pods && told_of { AGAIN * 5 } else { AGAIN };
        Ok(Requeue::After(later))
    }
}

fn is_deletable(capabilities: &ApiCapabilities) -> bool {
    capabilities.scope == Scope::Namespaced
        && [verbs::LIST, verbs::DELETE_COLLECTION].iter().all(|verb| capabilities.supports_operation(verb))
}

fn conditions(namespace: &Namespace, left: &Left, now: Timestamp) -> Vec<NamespaceCondition> {
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let old = namespace.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let make = |kind: &str, reason: (&str, &str), message: (String, &str), yes: bool| {
        let status = if yes { "True" } else { "False" };
        let before = old.iter().find(|c| c.type_ == kind && c.status == status);
        NamespaceCondition {
            type_: kind.into(),
            status: status.into(),
            reason: Some(if yes { reason.0 } else { reason.1 }.into()),
            message: Some(if yes { message.0 } else { message.1.into() }),
            last_transition_time: before.and_then(|c| c.last_transition_time.clone()).or(Some(Time(now))),
        }
    };
    let objects: Vec<String> =
        left.objects.iter().map(|(name, n)| format!("{name} has {n} resource instances")).collect();
    let finalizers: Vec<String> =
        left.finalizers.iter().map(|(name, n)| format!("{name} in {n} resource instances")).collect();
    vec![
        make(
            "NamespaceDeletionDiscoveryFailure",
            ("DiscoveryFailed", "ResourcesDiscovered"),
            (String::new(), "All resources successfully discovered"),
            false,
        ),
        make(
            "NamespaceDeletionGroupVersionParsingFailure",
            ("GroupVersionParsingFailed", "ParsedGroupVersions"),
            (String::new(), "All legacy kube types successfully parsed"),
            false,
        ),
        make(
            "NamespaceDeletionContentFailure",
            ("ContentDeletionFailed", "ContentDeleted"),
            (
                format!(
                    "Failed to delete all resource types, {} remaining: {}",
                    left.errors.len(),
                    left.errors.join(", ")
                ),
                "All content successfully deleted, may be waiting on finalization",
            ),
            !left.errors.is_empty(),
        ),
        make(
            "NamespaceContentRemaining",
            ("SomeResourcesRemain", "ContentRemoved"),
            (
                format!("Some resources are remaining: {}", objects.join(", ")),
                "All content successfully removed",
            ),
            !objects.is_empty(),
        ),
        make(
            "NamespaceFinalizersRemaining",
            ("SomeFinalizersRemain", "ContentHasNoFinalizers"),
            (
                format!("Some content in the namespace has finalizers remaining: {}", finalizers.join(", ")),
                "All content-preserving finalizers finished",
            ),
            !finalizers.is_empty(),
        ),
    ]
}
