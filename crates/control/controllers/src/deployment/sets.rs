//! A deployment's ReplicaSets: which one is new, how they are named, numbered and annotated.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use crate::owners::controller_reference;

/// Label that keeps the pods of different ReplicaSets of one Deployment apart.
pub const HASH_LABEL: &str = "pod-template-hash";
/// Annotation with the number of a rollout.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// Annotation with the numbers that a ReplicaSet had before a rollback made it new again.
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// Annotation with the Deployment's replicas when the set was last scaled.
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// Annotation with the most pods the Deployment may have.
pub const MAX: &str = "deployment.kubernetes.io/max-replicas";

/// Annotations of the Deployment that its ReplicaSets do not get.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];

/// The Deployment's ReplicaSets, told apart.
#[derive(Debug, Clone, Default)]
pub struct Sets {
    /// The one with the Deployment's present template, if it exists.
    pub new: Option<Arc<ReplicaSet>>,
    /// The others, oldest first.
    pub old: Vec<Arc<ReplicaSet>>,
}

impl Sets {
    /// Tells the sets of a Deployment apart.
    pub fn of(deployment: &Deployment, mut owned: Vec<Arc<ReplicaSet>>) -> Self {
        owned.sort_by_key(|set| {
            (set.metadata.creation_timestamp.as_ref().map(|t| t.0), set.metadata.name.clone())
        });
        let wanted = comparable(deployment.spec.as_ref().map(|spec| &spec.template));
        let is_new = |set: &Arc<ReplicaSet>| {
            comparable(set.spec.as_ref().and_then(|spec| spec.template.as_ref())) == wanted
        };
        let new = owned.iter().position(is_new).map(|index| owned.remove(index));
        Self { new, old: owned }
    }

    /// All of them, old ones first.
    pub fn all(&self) -> impl Iterator<Item = &Arc<ReplicaSet>> {
        self.old.iter().chain(&self.new)
    }

    /// The number of the present rollout: one more than the highest of the old ones.
    pub fn next_revision(&self) -> i64 {
        self.old.iter().map(|set| revision(set)).max().unwrap_or(0) + 1
    }
}

/// The template without the label that differs by design.
fn comparable(template: Option<&PodTemplateSpec>) -> PodTemplateSpec {
    let mut template = template.cloned().unwrap_or_default();
    if let Some(labels) = template.metadata.as_mut().and_then(|meta| meta.labels.as_mut()) {
        labels.remove(HASH_LABEL);
    }
    template
}

/// The number of a set's rollout; 0 when it has none.
pub fn revision(set: &ReplicaSet) -> i64 {
    set.annotations().get(REVISION).and_then(|r| r.parse().ok()).unwrap_or(0)
}

/// Replicas that the set is asked to have.
pub fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// Pods of the set that are available.
pub fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

/// FNV-1a of the template and the collision count, in the alphabet of generated names.
pub fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let text = serde_json::to_string(template).unwrap_or_default();
    let salt = collisions.map(|c| c.to_string()).unwrap_or_default();
    let hash = xebec_hash::fnv32((text + &salt).as_bytes());
    let alphabet = b"bcdfghjklmnpqrstvwxz2456789";
    hash.to_string().bytes().map(|c| char::from(alphabet[usize::from(c) % alphabet.len()])).collect()
}

/// The ReplicaSet for the Deployment's present template.
pub fn make(deployment: &Deployment, revision: i64, replicas: i32, max: i32) -> ReplicaSet {
    let spec = deployment.spec.clone().unwrap_or_default();
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count);
    let hash = template_hash(&spec.template, collisions);
    let mut template = spec.template;
    let meta = template.metadata.get_or_insert_default();
    meta.labels.get_or_insert_default().insert(HASH_LABEL.into(), hash.clone());
    let labels = meta.labels.clone();
    let mut selector = spec.selector;
    selector.match_labels.get_or_insert_default().insert(HASH_LABEL.into(), hash.clone());
    let mut annotations = copied_annotations(deployment);
    annotations.insert(REVISION.into(), revision.to_string());
    annotations.extend(size_annotations(spec.replicas.unwrap_or(1), max));
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", deployment.name_any())),
            namespace: deployment.namespace(),
            labels,
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference("apps/v1", "Deployment", &deployment.metadata)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(replicas),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

/// The annotations that record for what size a set was scaled.
pub fn size_annotations(desired: i32, max: i32) -> [(String, String); 2] {
    [(DESIRED.into(), desired.to_string()), (MAX.into(), max.to_string())]
}

fn copied_annotations(deployment: &Deployment) -> BTreeMap<String, String> {
    let copied = deployment.annotations().iter().filter(|(key, _)| !NOT_COPIED.contains(&key.as_str()));
    copied.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// The annotations that the new set should carry, if they differ from those it has: the Deployment's own, and its
/// number. A set that becomes new again by a rollback keeps its former numbers as history.
pub fn wanted_annotations(
    deployment: &Deployment,
    new: &ReplicaSet,
    next: i64,
) -> Option<BTreeMap<String, String>> {
    let mut wanted = new.annotations().clone();
    wanted.extend(copied_annotations(deployment));
    let old = revision(new);
    if old < next {
        wanted.insert(REVISION.into(), next.to_string());
        if old > 0 {
            let history = wanted.get(REVISION_HISTORY).filter(|h| !h.is_empty()).cloned();
            let history = history.map_or_else(|| old.to_string(), |h| format!("{h},{old}"));
            wanted.insert(REVISION_HISTORY.into(), history);
        }
    }
    (wanted != *new.annotations()).then_some(wanted)
}
