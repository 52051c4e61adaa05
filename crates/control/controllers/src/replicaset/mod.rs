//! ReplicaSet: as many pods of a template as asked for.

mod plan;
mod status;

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt};
use xebec_reconcile::{ByController, Change, Informer, Key, Queue, Reconciler, Requeue, controller_of};

use crate::expectations::Expectations;
use crate::owners::{self, controller_reference};
use crate::{Informers, Recorder};
use plan::{Plan, plan};

/// Most pods that one pass creates or deletes.
const BURST: usize = 500;

/// The controller.
pub struct ReplicaSets {
    client: Client,
    sets: Informer<ReplicaSet>,
    pods: ByController<Pod>,
    expectations: Arc<Expectations>,
    recorder: Recorder,
}

impl ReplicaSets {
    /// A controller whose queue is fed by these informers.
    pub fn new(client: Client, informers: &Informers, recorder: Recorder) -> (Self, Queue<Key>) {
        let queue = Queue::new();
        let expectations = Arc::new(Expectations::default());
        let (q, e) = (queue.clone(), expectations.clone());
        informers.replica_sets.on_change(move |change| {
            let key = Key::of(change.object().as_ref());
            if let Change::Deleted(_) = change {
                e.forget(&key);
            }
            q.add(key);
        });
        let (q, e, sets) = (queue.clone(), expectations.clone(), informers.replica_sets.clone());
        informers.pods.on_change(move |change| pod_changed(change, &sets, &e, &q));
        let (sets, pods) = (informers.replica_sets.clone(), informers.pods_by_controller.clone());
        (Self { client, sets, pods, expectations, recorder }, queue)
    }

    fn pods_api(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Creates pods in batches of 1, 2, 4, … so that a template that is always refused is not tried 500 times.
    async fn create(&self, key: &Key, set: &ReplicaSet, count: usize) -> Result<(), kube::Error> {
        let (mut left, mut batch) = (count, 1);
        while left > 0 {
            let size = batch.min(left);
            let results = join_all((0..size).map(|_| self.create_one(key, set))).await;
            left -= size;
            if let Some(error) = results.into_iter().find_map(Result::err) {
                for _ in 0..left {
                    self.expectations.created(key);
                }
                return Err(error);
            }
            batch *= 2;
        }
        Ok(())
    }

    async fn create_one(&self, key: &Key, set: &ReplicaSet) -> Result<(), kube::Error> {
        let pod = pod_from_template(set);
        match self.pods_api(&key.namespace).create(&PostParams::default(), &pod).await {
            Ok(pod) => {
                self.recorder.normal(set, "SuccessfulCreate", format!("Created pod: {}", pod.name_any()));
                Ok(())
            }
            Err(error) => {
                self.expectations.created(key);
                if !crate::namespace_ends(&error) {
                    self.recorder.warning(set, "FailedCreate", format!("Error creating: {error}"));
                }
                Err(error)
            }
        }
    }

    async fn delete_one(&self, key: &Key, set: &ReplicaSet, pod: &Pod) -> Result<(), kube::Error> {
        let uid = pod.uid().unwrap_or_default();
        let preconditions = Preconditions { uid: Some(uid.clone()), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match self.pods_api(&key.namespace).delete(&pod.name_any(), &params).await {
            Ok(_) => {
                self.recorder.normal(set, "SuccessfulDelete", format!("Deleted pod: {}", pod.name_any()));
                Ok(())
            }
            Err(error) => {
                self.expectations.deleted(key, &uid);
                match &error {
                    kube::Error::Api(status) if status.code == 404 => Ok(()),
                    _ => {
                        let name = pod.name_any();
                        self.recorder.warning(
                            set,
                            "FailedDelete",
                            format!("Error deleting: {name}: {error}"),
                        );
                        Err(error)
                    }
                }
            }
        }
    }

    async fn claim(&self, set: &ReplicaSet, plan: &Plan) -> Result<(), kube::Error> {
        let api = self.pods_api(&set.namespace().unwrap_or_default());
        for pod in &plan.adopt {
            let uid = pod.uid().unwrap_or_default();
            let patch = owners::adopt_patch(&reference_to(set), &uid);
            api.patch(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(&patch)).await?;
        }
        for pod in &plan.release {
            let patch = owners::release_patch(&set.uid().unwrap_or_default(), &pod.uid().unwrap_or_default());
            match api.patch(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(&patch)).await {
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 422) => {}
                other => drop(other?),
            }
        }
        Ok(())
    }

    async fn carry_out(&self, key: &Key, set: &ReplicaSet, plan: &Plan) -> Result<(), kube::Error> {
        self.claim(set, plan).await?;
        let create = plan.create.min(BURST);
        let delete = &plan.delete[..plan.delete.len().min(BURST)];
        if create == 0 && delete.is_empty() {
            return Ok(());
        }
        self.expectations.expect(key, create, delete.iter().filter_map(|pod| pod.uid()));
        self.create(key, set, create).await?;
        let deleted = join_all(delete.iter().map(|pod| self.delete_one(key, set, pod))).await;
        deleted.into_iter().collect()
    }

    async fn write_status(
        &self,
        set: &ReplicaSet,
        owned: &[Arc<Pod>],
        failure: Option<(&str, String)>,
    ) -> Result<Requeue, kube::Error> {
        let (status, next) = status::status(set, owned, failure, Timestamp::now());
        if set.status.as_ref() != Some(&status) {
            let api: Api<ReplicaSet> =
                Api::namespaced(self.client.clone(), &set.namespace().unwrap_or_default());
            let mut whole = set.clone();
            whole.metadata.managed_fields = None;
            whole.status = Some(status);
            let written = api.replace_status(&set.name_any(), &PostParams::default(), &whole).await;
            crate::tolerate(written, &[404, 409])?;
        }
        Ok(next.map_or(Requeue::Never, |s| Requeue::After(Duration::from_secs(s))))
    }
}

impl Reconciler for ReplicaSets {
    type Key = Key;
    type Error = kube::Error;
    const NAME: &'static str = "replicaset";

    async fn reconcile(&self, key: &Key) -> Result<Requeue, kube::Error> {
        let Some(set) = self.sets.get(key) else { return Ok(Requeue::Never) };
        let pods = self.pods.claimable(set.metadata.uid.as_deref().unwrap_or(""), &key.namespace);
        let plan = plan(&set, &pods, Timestamp::now());
        let mut outcome = Ok(());
        if set.metadata.deletion_timestamp.is_none() && self.expectations.satisfied(key) {
            outcome = self.carry_out(key, &set, &plan).await;
        }
        let failure = outcome.as_ref().err().map(|error| {
            let reason = if plan.create > 0 { "FailedCreate" } else { "FailedDelete" };
            (reason, error.to_string())
        });
        let requeue = self.write_status(&set, &plan.owned, failure).await?;
        match outcome {
            Err(error) if !crate::namespace_ends(&error) => Err(error),
            _ => Ok(requeue),
        }
    }
}

fn pod_changed(
    change: &Change<'_, Pod>,
    sets: &Informer<ReplicaSet>,
    expectations: &Expectations,
    queue: &Queue<Key>,
) {
    for pod in change.sides() {
        let namespace = pod.namespace().unwrap_or_default();
        match controller_of(&pod.metadata) {
            Some(owner) if owner.kind == "ReplicaSet" => {
                let key = Key::new(namespace, &owner.name);
                match change {
                    Change::Added(_) => expectations.created(&key),
                    Change::Deleted(_) => expectations.deleted(&key, &pod.uid().unwrap_or_default()),
                    Change::Updated(_, new) if new.metadata.deletion_timestamp.is_some() => {
                        expectations.deleted(&key, &pod.uid().unwrap_or_default());
                    }
                    Change::Updated(..) => {}
                }
                queue.add(key);
            }
            Some(_) => {}
            None => orphan_changed(pod, &namespace, sets, queue),
        }
    }
}

/// A pod without controller concerns every set whose selector matches it.
fn orphan_changed(pod: &Pod, namespace: &str, sets: &Informer<ReplicaSet>, queue: &Queue<Key>) {
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    for set in sets.in_namespace(namespace, |set| plan::selector(set).matches_map(&labels)) {
        queue.add(Key::of(set.as_ref()));
    }
}

fn reference_to(set: &ReplicaSet) -> k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference {
    controller_reference("apps/v1", &ReplicaSet::kind(&()), &set.metadata)
}

/// The pod that a set creates: its template with a generated name and a controller reference.
fn pod_from_template(set: &ReplicaSet) -> Pod {
    let template = set.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default();
    let meta = template.metadata.unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", set.name_any())),
            namespace: set.namespace(),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![reference_to(set)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}
