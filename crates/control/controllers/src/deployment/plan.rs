//! One step of a rollout: a function from a Deployment and its ReplicaSets to what should be scaled.
//!
//! A pass does one kind of step and leaves the next to the change that it causes, as upstream's
//! `deployment/rolling.go`, `recreate.go` and `sync.go` do.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kube::ResourceExt;

use super::limits::{Limits, is_recreate};
use super::sets::{DESIRED, MAX, Sets, available, replicas};

/// What to do in one pass.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Step {
    /// Replicas with which to create the new ReplicaSet, if it is to be created.
    pub create: Option<i32>,
    /// Sets to scale, with their new size.
    pub scale: Vec<(Arc<ReplicaSet>, i32)>,
}

impl Step {
    fn scale(changes: Vec<(Arc<ReplicaSet>, i32)>) -> Self {
        let scale = changes.into_iter().filter(|(set, size)| replicas(set) != *size).collect();
        Self { create: None, scale }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.create.is_none() && self.scale.is_empty()
    }
}

fn total<'a>(sets: impl IntoIterator<Item = &'a Arc<ReplicaSet>>, of: impl Fn(&ReplicaSet) -> i32) -> i32 {
    sets.into_iter().map(|set| of(set)).sum()
}

fn annotation(set: &ReplicaSet, key: &str) -> Option<i32> {
    set.annotations().get(key)?.parse().ok()
}

/// Plans one pass. `old_pods_run` tells whether pods of old sets are still there (for `Recreate`).
pub fn plan(deployment: &Deployment, sets: &Sets, old_pods_run: bool) -> Step {
    let limits = Limits::of(deployment);
    let paused = deployment.spec.as_ref().and_then(|s| s.paused).unwrap_or(false);
    let resized = |set: &Arc<ReplicaSet>| {
        replicas(set) > 0 && annotation(set, DESIRED).is_some_and(|n| n != limits.replicas)
    };
    if paused || sets.all().any(resized) {
        let outdated = |set: &ReplicaSet, size| size > 0 && annotation(set, DESIRED) != Some(limits.replicas);
        let mut scale = proportionally(deployment, sets, limits);
        scale.retain(|(set, size)| replicas(set) != *size || outdated(set, *size));
        return Step { create: None, scale };
    }
    if is_recreate(deployment) { recreate(sets, limits, old_pods_run) } else { roll(sets, limits) }
}

fn recreate(sets: &Sets, limits: Limits, old_pods_run: bool) -> Step {
    let down = Step::scale(sets.old.iter().map(|set| (set.clone(), 0)).collect());
    if !down.is_empty() || old_pods_run {
        return down;
    }
    match &sets.new {
        None => Step { create: Some(limits.replicas), scale: Vec::new() },
        Some(new) => Step::scale(vec![(new.clone(), limits.replicas)]),
    }
}

fn roll(sets: &Sets, limits: Limits) -> Step {
    let current = total(sets.all(), replicas);
    let has = sets.new.as_ref().map_or(0, |new| replicas(new));
    let room = (limits.max() - current).max(0);
    let size = if has > limits.replicas { limits.replicas } else { has + room.min(limits.replicas - has) };
    let Some(new) = &sets.new else { return Step { create: Some(size), scale: Vec::new() } };
    let up = Step::scale(vec![(new.clone(), size)]);
    if up.is_empty() { Step::scale(shrink_old(sets, new, limits)) } else { up }
}

/// Takes pods from old sets: broken ones first, then healthy ones as long as enough pods are available.
fn shrink_old(sets: &Sets, new: &ReplicaSet, limits: Limits) -> Vec<(Arc<ReplicaSet>, i32)> {
    let not_yet_available = replicas(new) - available(new);
    let mut room = total(sets.all(), replicas) - limits.min_available() - not_yet_available;
    if room <= 0 {
        return Vec::new();
    }
    let mut sizes: Vec<i32> = sets.old.iter().map(|set| replicas(set)).collect();
    for (set, size) in sets.old.iter().zip(&mut sizes) {
        let broken = (*size - available(set)).max(0).min(room);
        *size -= broken;
        room -= broken;
    }
    let mut healthy = (total(sets.all(), available) - limits.min_available()).max(0);
    for size in &mut sizes {
        let taken = (*size).min(healthy);
        *size -= taken;
        healthy -= taken;
    }
    sets.old.iter().cloned().zip(sizes).collect()
}

/// Spreads a change of size over all sets that have pods, so that a resize in the middle of a rollout keeps its risk
/// where it was.
fn proportionally(deployment: &Deployment, sets: &Sets, limits: Limits) -> Vec<(Arc<ReplicaSet>, i32)> {
    let mut active: Vec<Arc<ReplicaSet>> = sets.all().filter(|set| replicas(set) > 0).cloned().collect();
    if active.len() <= 1 {
        let only = active.pop().or_else(|| sets.new.clone()).or_else(|| sets.old.last().cloned());
        return only.map(|set| (set, limits.replicas)).into_iter().collect();
    }
    if sets.new.as_ref().is_some_and(|new| is_saturated(new, limits)) {
        return sets.old.iter().map(|set| (set.clone(), 0)).collect();
    }
    if is_recreate(deployment) {
        return Vec::new();
    }
    let allowed = if limits.replicas > 0 { limits.max() } else { 0 };
    let mut left = allowed - total(&active, replicas);
    active.sort_by_key(|set| (-replicas(set), set.metadata.creation_timestamp.as_ref().map(|t| t.0)));
    if left > 0 {
        active.sort_by_key(|set| -replicas(set));
    }
    let mut sizes: Vec<i32> = Vec::with_capacity(active.len());
    for set in &active {
        let before = replicas(set);
        let share = if left == 0 { 0 } else { share(deployment, set, allowed, left) };
        left -= share;
        sizes.push(before + share);
    }
    if let Some(first) = sizes.first_mut() {
        *first = (*first + left).max(0);
    }
    active.into_iter().zip(sizes).collect()
}

fn is_saturated(set: &ReplicaSet, limits: Limits) -> bool {
    replicas(set) == limits.replicas
        && annotation(set, DESIRED) == Some(limits.replicas)
        && available(set) == limits.replicas
}

/// A set's part of a change, in proportion to its size, never more than what is `left`.
fn share(deployment: &Deployment, set: &ReplicaSet, allowed: i32, left: i32) -> i32 {
    let before = replicas(set);
    let status = deployment.status.as_ref().and_then(|s| s.replicas).unwrap_or(0);
    let former = annotation(set, MAX).filter(|n| *n > 0).unwrap_or(status.max(1));
    let size = f64::from(before) * f64::from(allowed) / f64::from(former);
    #[allow(clippy::cast_possible_truncation)]
    let change = size.round() as i32 - before;
    if left > 0 { change.clamp(0, left) } else { change.clamp(left, 0) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    pub(crate) fn deployment(replicas: i32, image: &str) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "d", "generation": 1},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": "web"}},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "c", "image": image}]}
                }
            }
        }))
        .unwrap()
    }

    pub(crate) fn set(image: &str, at: i64, size: i32, ready: i32) -> Arc<ReplicaSet> {
        let mut set = super::super::sets::make(&deployment(4, image), at, size, 5);
        set.metadata.creation_timestamp =
            serde_json::from_value(json!(format!("2024-01-01T00:00:0{at}Z"))).unwrap();
        set.status = serde_json::from_value(json!({"replicas": size, "availableReplicas": ready})).unwrap();
        Arc::new(set)
    }

    fn step(deployment: &Deployment, owned: Vec<Arc<ReplicaSet>>) -> (Option<i32>, Vec<i32>) {
        let step = plan(deployment, &Sets::of(deployment, owned), false);
        (step.create, step.scale.into_iter().map(|(_, size)| size).collect())
    }

    #[test]
    fn a_first_rollout_creates_everything() {
        assert_eq!(step(&deployment(4, "a"), vec![]), (Some(4), vec![]));
    }

    #[test]
    fn a_rollout_goes_step_by_step() {
        let d = deployment(4, "b");
        assert_eq!(step(&d, vec![set("a", 1, 4, 4)]), (Some(1), vec![]), "surge of one");
        assert_eq!(
            step(&d, vec![set("a", 1, 4, 4), set("b", 2, 1, 0)]),
            (None, vec![3]),
            "one may be missing"
        );
        assert_eq!(step(&d, vec![set("a", 1, 3, 3), set("b", 2, 1, 0)]), (None, vec![2]), "fill up");
        assert_eq!(step(&d, vec![set("a", 1, 3, 3), set("b", 2, 2, 0)]), (None, vec![]), "wait for the new");
        assert_eq!(step(&d, vec![set("a", 1, 3, 3), set("b", 2, 2, 2)]), (None, vec![1]), "old ones go");
        assert_eq!(step(&d, vec![set("a", 1, 0, 0), set("b", 2, 4, 4)]), (None, vec![]), "done");
    }

    #[test]
    fn broken_old_pods_go_first() {
        let d = deployment(4, "c");
        let sets = vec![set("a", 1, 3, 3), set("b", 2, 1, 0), set("c", 3, 1, 1)];
        assert_eq!(step(&d, sets), (None, vec![2, 0]));
    }

    #[test]
    fn recreate_waits_for_old_pods_to_end() {
        let mut d = deployment(4, "b");
        d.spec.as_mut().unwrap().strategy = serde_json::from_value(json!({"type": "Recreate"})).unwrap();
        assert_eq!(step(&d, vec![set("a", 1, 4, 4)]), (None, vec![0]));
        let sets = Sets::of(&d, vec![set("a", 1, 0, 0)]);
        assert!(plan(&d, &sets, true).is_empty());
        assert_eq!(plan(&d, &sets, false).create, Some(4));
    }

    #[test]
    fn a_resize_is_noted_even_if_the_size_fits_already() {
        let d = deployment(2, "b");
        assert_eq!(step(&d, vec![set("a", 1, 2, 2)]), (None, vec![2]), "the annotation said 4");
    }

    #[test]
    fn a_resize_in_the_middle_of_a_rollout_is_spread() {
        let d = deployment(8, "b");
        let (create, sizes) = step(&d, vec![set("a", 1, 3, 3), set("b", 2, 2, 2)]);
        assert_eq!((create, sizes.iter().sum::<i32>()), (None, 10), "eight and a surge of two");
    }
}
