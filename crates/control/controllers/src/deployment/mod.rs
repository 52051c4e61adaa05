//! Deployment: rollouts over ReplicaSets.

mod limits;
mod plan;
mod sets;
mod status;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use xebec_reconcile::{ByController, Change, Informer, Key, Queue, Reconciler, Requeue, controller_of};
use xebec_types::LabelSelector;

use crate::owners::{self, Claim, claim};
use crate::{Informers, Recorder, pods};
use limits::Limits;
use plan::{Step, plan};
use sets::{REVISION, Sets, replicas, revision};

/// The controller.
pub struct Deployments {
    client: Client,
    deployments: Informer<Deployment>,
    sets: ByController<ReplicaSet>,
    pods: ByController<Pod>,
    recorder: Recorder,
}

impl Deployments {
    /// A controller whose queue is fed by these informers.
    pub fn new(client: Client, informers: &Informers, recorder: Recorder) -> (Self, Queue<Key>) {
        let queue = Queue::new();
        let q = queue.clone();
        informers.deployments.on_change(move |change| q.add(Key::of(change.object().as_ref())));
        let (q, deployments) = (queue.clone(), informers.deployments.clone());
        informers.replica_sets.on_change(move |change| {
            for set in change.sides() {
                set_changed(set, &deployments, &q);
            }
        });
        let (q, sets) = (queue.clone(), informers.replica_sets.clone());
        informers.pods.on_change(move |change| {
            if let Change::Deleted(pod) = change {
                pod_gone(pod, &sets, &q);
            }
        });
        let controller = Self {
            client,
            deployments: informers.deployments.clone(),
            sets: informers.replica_sets_by_controller.clone(),
            pods: informers.pods_by_controller.clone(),
            recorder,
        };
        (controller, queue)
    }

    fn sets_api(&self, deployment: &Deployment) -> Api<ReplicaSet> {
        Api::namespaced(self.client.clone(), &deployment.namespace().unwrap_or_default())
    }

    fn deployments_api(&self, deployment: &Deployment) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), &deployment.namespace().unwrap_or_default())
    }

    /// The sets that are the Deployment's own, after adopting and releasing.
    async fn claim_sets(&self, deployment: &Deployment) -> Result<Vec<Arc<ReplicaSet>>, kube::Error> {
        let selector = selector(deployment);
        let api = self.sets_api(deployment);
        let mut owned = Vec::new();
        let uid = deployment.metadata.uid.as_deref().unwrap_or("");
        for set in self.sets.claimable(uid, &deployment.namespace().unwrap_or_default()) {
            match claim(&deployment.metadata, &selector, &set.metadata) {
                Claim::Mine => owned.push(set),
                Claim::Adopt => {
                    let reference =
                        owners::controller_reference("apps/v1", "Deployment", &deployment.metadata);
                    let patch = owners::adopt_patch(&reference, &set.uid().unwrap_or_default());
                    api.patch(&set.name_any(), &PatchParams::default(), &Patch::Strategic(&patch)).await?;
                    owned.push(set);
                }
                Claim::Release => {
                    let owner = deployment.uid().unwrap_or_default();
                    let patch = owners::release_patch(&owner, &set.uid().unwrap_or_default());
                    api.patch(&set.name_any(), &PatchParams::default(), &Patch::Strategic(&patch)).await?;
                }
                Claim::Foreign => {}
            }
        }
        Ok(owned)
    }

    /// Whether pods of old sets have not ended yet.
    fn old_pods_run(&self, sets: &Sets) -> bool {
        let mut uids = sets.old.iter().filter_map(|set| set.metadata.uid.as_deref());
        uids.any(|uid| self.pods.controlled(uid).iter().any(|pod| !pods::is_terminal(pod)))
    }

    async fn carry_out(
        &self,
        deployment: &Deployment,
        sets: &mut Sets,
        step: Step,
    ) -> Result<(), kube::Error> {
        let limits = Limits::of(deployment);
        if let Some(size) = step.create {
            sets.new = self.create_set(deployment, sets, size, limits).await?;
        }
        for (set, size) in step.scale {
            self.scale(deployment, &set, size, limits).await?;
        }
        Ok(())
    }

    async fn create_set(
        &self,
        deployment: &Deployment,
        sets: &Sets,
        size: i32,
        limits: Limits,
    ) -> Result<Option<Arc<ReplicaSet>>, kube::Error> {
        let set = sets::make(deployment, sets.next_revision(), size, limits.max());
        match self.sets_api(deployment).create(&PostParams::default(), &set).await {
            Ok(set) => {
                if size > 0 {
                    let message = format!("Scaled up replica set {} from 0 to {size}", set.name_any());
                    self.recorder.normal(deployment, "ScalingReplicaSet", message);
                }
                Ok(Some(Arc::new(set)))
            }
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                self.resolve_collision(deployment, &set).await.map(|()| None)
            }
            Err(error) => {
                let message = format!("Failed to create new replica set {:?}: {error}", set.name_any());
                self.recorder.warning(deployment, "ReplicaSetCreateError", message);
                Err(error)
            }
        }
    }

    /// A set of that name exists. If it is our own the informer only lags behind; otherwise two templates share a hash
    /// and the next try takes another.
    async fn resolve_collision(
        &self,
        deployment: &Deployment,
        wanted: &ReplicaSet,
    ) -> Result<(), kube::Error> {
        let existing = self.sets_api(deployment).get(&wanted.name_any()).await?;
        let ours = controller_of(&existing.metadata)
            .is_some_and(|o| Some(&o.uid) == deployment.metadata.uid.as_ref());
        if ours && Sets::of(deployment, vec![Arc::new(existing)]).new.is_some() {
            return Ok(());
        }
        let count = deployment.status.as_ref().and_then(|s| s.collision_count).unwrap_or(0) + 1;
        let mut changed = deployment.clone();
        changed.metadata.managed_fields = None;
        changed.status.get_or_insert_default().collision_count = Some(count);
        let api = self.deployments_api(deployment);
        api.replace_status(&deployment.name_any(), &PostParams::default(), &changed).await.map(drop)
    }

    async fn scale(
        &self,
        deployment: &Deployment,
        set: &ReplicaSet,
        size: i32,
        limits: Limits,
    ) -> Result<(), kube::Error> {
        let before = replicas(set);
        let annotations: serde_json::Map<_, _> = sets::size_annotations(limits.replicas, limits.max())
            .into_iter()
            .map(|(key, value)| (key, value.into()))
            .collect();
        let patch = json!({
            "metadata": {"resourceVersion": set.metadata.resource_version, "annotations": annotations},
            "spec": {"replicas": size}
        });
        let api = self.sets_api(deployment);
        api.patch(&set.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await?;
        if before != size {
            let direction = if size > before { "up" } else { "down" };
            let name = set.name_any();
            let message = format!("Scaled {direction} replica set {name} from {before} to {size}");
            self.recorder.normal(deployment, "ScalingReplicaSet", message);
        }
        Ok(())
    }

    /// Keeps annotations in step: the new set's number and copied annotations, and the Deployment's number. Answers
    /// whether anything was written; the change then leads to the next pass.
    async fn annotate(&self, deployment: &Deployment, sets: &Sets) -> Result<bool, kube::Error> {
        let Some(new) = &sets.new else { return Ok(false) };
        let mut written = false;
        let mut number = revision(new);
        if let Some(wanted) = sets::wanted_annotations(deployment, new, sets.next_revision()) {
            number = wanted.get(REVISION).and_then(|r| r.parse().ok()).unwrap_or(number);
            let patch = json!({
                "metadata": {"annotations": wanted, "resourceVersion": new.metadata.resource_version},
                "spec": {"minReadySeconds": deployment.spec.as_ref().and_then(|s| s.min_ready_seconds)}
            });
            let api = self.sets_api(deployment);
            api.patch(&new.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await?;
            written = true;
        }
        let number = number.to_string();
        if deployment.annotations().get(REVISION) != Some(&number) {
            let mut changed = deployment.clone();
            changed.metadata.managed_fields = None;
            changed.metadata.annotations.get_or_insert_default().insert(REVISION.into(), number);
            let api = self.deployments_api(deployment);
            api.replace(&deployment.name_any(), &PostParams::default(), &changed).await?;
            written = true;
        }
        Ok(written)
    }

    /// Deletes the oldest empty sets beyond `revisionHistoryLimit`.
    async fn clean_up(&self, deployment: &Deployment, sets: &Sets) -> Result<(), kube::Error> {
        let limit = deployment.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
        let mut idle: Vec<_> = sets.old.iter().filter(|set| is_idle(set)).collect();
        idle.sort_by_key(|set| revision(set));
        let surplus = idle.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        for set in idle.into_iter().take(surplus) {
            match self.sets_api(deployment).delete(&set.name_any(), &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                other => drop(other?),
            }
        }
        Ok(())
    }

    async fn write_status(
        &self,
        deployment: &Deployment,
        sets: &Sets,
    ) -> Result<(DeploymentStatus, Requeue), kube::Error> {
        let (status, next) = status::status(deployment, sets, Timestamp::now());
        if deployment.status.as_ref() != Some(&status) {
            let mut whole = deployment.clone();
            whole.metadata.managed_fields = None;
            whole.status = Some(status.clone());
            let api = self.deployments_api(deployment);
            match api.replace_status(&deployment.name_any(), &PostParams::default(), &whole).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                other => drop(other?),
            }
        }
        let requeue = next.map_or(Requeue::Never, |s| Requeue::After(Duration::from_secs(s)));
        Ok((status, requeue))
    }
}

impl Reconciler for Deployments {
    type Key = Key;
    type Error = kube::Error;
    const NAME: &'static str = "deployment";

    async fn reconcile(&self, key: &Key) -> Result<Requeue, kube::Error> {
        let Some(deployment) = self.deployments.get(key) else { return Ok(Requeue::Never) };
        let owned = self.claim_sets(&deployment).await?;
        let mut sets = Sets::of(&deployment, owned);
        if deployment.metadata.deletion_timestamp.is_some() {
            return self.write_status(&deployment, &sets).await.map(|_| Requeue::Never);
        }
        if self.annotate(&deployment, &sets).await? {
            return Ok(Requeue::Never);
        }
        let step = plan(&deployment, &sets, self.old_pods_run(&sets));
        let quiet = step.is_empty();
        self.carry_out(&deployment, &mut sets, step).await?;
        let (status, requeue) = self.write_status(&deployment, &sets).await?;
        if quiet && status::is_complete(&deployment, &status) {
            self.clean_up(&deployment, &sets).await?;
        }
        Ok(requeue)
    }
}

fn selector(deployment: &Deployment) -> LabelSelector {
    let selector = deployment.spec.as_ref().map(|spec| &spec.selector);
    selector.and_then(|s| LabelSelector::from_structured(s).ok()).unwrap_or_else(LabelSelector::nothing)
}

/// Whether a set has no pods, wants none, and has said so.
fn is_idle(set: &ReplicaSet) -> bool {
    let status = set.status.clone().unwrap_or_default();
    replicas(set) == 0
        && status.replicas == 0
        && status.observed_generation >= set.metadata.generation
        && set.metadata.deletion_timestamp.is_none()
}

fn set_changed(set: &ReplicaSet, deployments: &Informer<Deployment>, queue: &Queue<Key>) {
    let namespace = set.namespace().unwrap_or_default();
    if let Some(owner) = controller_of(&set.metadata) {
        if owner.kind == "Deployment" {
            queue.add(Key::new(namespace, &owner.name));
        }
        return;
    }
    let labels = set.metadata.labels.clone().unwrap_or_default();
    for deployment in deployments.in_namespace(&namespace, |d| selector(d).matches_map(&labels)) {
        queue.add(Key::of(deployment.as_ref()));
    }
}

/// The last old pod of a `Recreate` rollout may have gone.
fn pod_gone(pod: &Pod, sets: &Informer<ReplicaSet>, queue: &Queue<Key>) {
    let namespace = pod.namespace().unwrap_or_default();
    let Some(owner) = controller_of(&pod.metadata).filter(|owner| owner.kind == "ReplicaSet") else { return };
    let Some(set) = sets.get(&Key::new(&namespace, &owner.name)) else { return };
    if let Some(owner) = controller_of(&set.metadata).filter(|owner| owner.kind == "Deployment") {
        queue.add(Key::new(namespace, &owner.name));
    }
}
