//! What a Deployment reports: counts and the conditions Progressing, Available and ReplicaFailure.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::limits::Limits;
use super::sets::{Sets, available, replicas};

/// Reason of Progressing when the rollout is finished.
pub const DONE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";

/// The status to report, and the seconds after which the progress deadline passes.
pub fn status(deployment: &Deployment, sets: &Sets, now: Timestamp) -> (DeploymentStatus, Option<u64>) {
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let old = deployment.status.clone().unwrap_or_default();
    let counted = |of: fn(&ReplicaSet) -> i32| sets.all().map(|set| of(set)).sum::<i32>();
    let is_available = counted(available);
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: some(counted(actual)),
        updated_replicas: some(sets.new.as_ref().map_or(0, |new| actual(new))),
        ready_replicas: some(counted(ready)),
        available_replicas: some(is_available),
        unavailable_replicas: some((counted(replicas) - is_available).max(0)),
        terminating_replicas: Some(counted(terminating)),
        collision_count: old.collision_count,
        conditions: old.conditions.clone(),
    };
    let mut conditions = Conditions { list: old.conditions.clone().unwrap_or_default(), now };
    conditions.available(is_available >= Limits::of(deployment).min_available());
    let next = progress(deployment, sets, &old, &status, &mut conditions);
    conditions.failure(sets);
    status.conditions = (!conditions.list.is_empty()).then_some(conditions.list);
    (status, next)
}

fn some(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}

fn actual(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |status| status.replicas)
}

fn ready(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0)
}

fn terminating(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.terminating_replicas).unwrap_or(0)
}

/// Whether every pod is new and available and none is left over.
pub fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let is = |count: Option<i32>| count.unwrap_or(0) == wanted;
    is(status.updated_replicas) && is(status.replicas) && is(status.available_replicas)
}

fn progress(
    deployment: &Deployment,
    sets: &Sets,
    old: &DeploymentStatus,
    status: &DeploymentStatus,
    conditions: &mut Conditions,
) -> Option<u64> {
    let spec = deployment.spec.as_ref()?;
    let deadline = spec.progress_deadline_seconds.filter(|s| *s != i32::MAX)?;
    let current = conditions.get("Progressing").cloned();
    if spec.paused.unwrap_or(false) {
        if current.as_ref().is_none_or(|c| c.reason.as_deref() != Some("DeploymentPaused")) {
            conditions.set("Progressing", "Unknown", "DeploymentPaused", "Deployment is paused".into());
        }
        return None;
    }
    let reason = current.as_ref().and_then(|c| c.reason.as_deref()).unwrap_or("");
    if reason == "DeploymentPaused" {
        conditions.set("Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed".into());
    }
    let subject = subject(deployment, sets);
    if is_complete(deployment, status) {
        if reason != DONE || current.as_ref().is_some_and(|c| c.status != "True") {
            conditions.set("Progressing", "True", DONE, format!("{subject} has successfully progressed."));
        }
        return None;
    }
    if reason == DONE && status.replicas == status.updated_replicas {
        return None;
    }
    if current.is_none() {
        if let Some(new) = &sets.new {
            let message = format!("Created new replica set {:?}", new.name_any());
            conditions.set("Progressing", "True", "NewReplicaSetCreated", message);
        }
    } else if has_progressed(old, status) || reason == DONE {
        conditions.touch("Progressing", "True", "ReplicaSetUpdated", format!("{subject} is progressing."));
    } else if let Some(seconds) = remaining(conditions.get("Progressing"), deadline, conditions.now)
        && seconds == 0
        && reason != TIMED_OUT
    {
        conditions.set("Progressing", "False", TIMED_OUT, format!("{subject} has timed out progressing."));
        return None;
    }
    let running = conditions.get("Progressing").filter(|c| c.reason.as_deref() != Some(TIMED_OUT));
    remaining(running, deadline, conditions.now)
}

fn subject(deployment: &Deployment, sets: &Sets) -> String {
    match &sets.new {
        Some(new) => format!("ReplicaSet {:?}", new.name_any()),
        None => format!("Deployment {:?}", deployment.name_any()),
    }
}

fn remaining(condition: Option<&DeploymentCondition>, deadline: i32, now: Timestamp) -> Option<u64> {
    let since = condition?.last_update_time.as_ref()?.0.as_second();
    u64::try_from((since + i64::from(deadline) - now.as_second()).max(0)).ok()
}

fn has_progressed(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let n = |count: Option<i32>| count.unwrap_or(0);
    let outdated = |s: &DeploymentStatus| n(s.replicas) - n(s.updated_replicas);
    n(new.updated_replicas) > n(old.updated_replicas)
        || outdated(new) < outdated(old)
        || n(new.ready_replicas) > n(old.ready_replicas)
        || n(new.available_replicas) > n(old.available_replicas)
}

struct Conditions {
    list: Vec<DeploymentCondition>,
    now: Timestamp,
}

impl Conditions {
    fn get(&self, kind: &str) -> Option<&DeploymentCondition> {
        self.list.iter().find(|c| c.type_ == kind)
    }

    /// Sets a condition; unchanged status and reason leave it alone.
    fn set(&mut self, kind: &str, status: &str, reason: &str, message: String) {
        let same = |c: &DeploymentCondition| c.status == status && c.reason.as_deref() == Some(reason);
        if !self.get(kind).is_some_and(same) {
            self.touch(kind, status, reason, message);
        }
    }

    /// Sets a condition and its update time.
    fn touch(&mut self, kind: &str, status: &str, reason: &str, message: String) {
        let now = Some(Time(self.now));
        let same_status = self.get(kind).filter(|c| c.status == status);
        let since = same_status.and_then(|c| c.last_transition_time.clone()).or_else(|| now.clone());
        self.list.retain(|c| c.type_ != kind);
        self.list.push(DeploymentCondition {
            type_: kind.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_transition_time: since,
            last_update_time: now,
        });
    }

    fn available(&mut self, yes: bool) {
        let (status, reason, message) = if yes {
            ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
        } else {
            ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
        };
        self.set("Available", status, reason, message.into());
    }

    /// Shows why the newest set that fails cannot create pods.
    fn failure(&mut self, sets: &Sets) {
        let of = |set: &Arc<ReplicaSet>| {
            let conditions = set.status.as_ref().and_then(|s| s.conditions.clone());
            conditions.into_iter().flatten().find(|c| c.type_ == "ReplicaFailure")
        };
        match sets.new.iter().chain(sets.old.iter().rev()).find_map(of) {
            Some(failure) => {
                let reason = failure.reason.unwrap_or_default();
                self.set("ReplicaFailure", &failure.status, &reason, failure.message.unwrap_or_default());
            }
            None => self.list.retain(|c| c.type_ != "ReplicaFailure"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::plan::tests::{deployment, set};
    use super::*;

    fn report(
        d: &Deployment,
        sets: Vec<Arc<ReplicaSet>>,
        at: i64,
    ) -> (Vec<String>, Option<u64>, DeploymentStatus) {
        let now = Timestamp::from_second(1_704_067_200 + at).unwrap();
        let (status, next) = status(d, &Sets::of(d, sets), now);
        let conditions = status.conditions.clone().unwrap_or_default();
        let lines =
            conditions.iter().map(|c| format!("{}={} {}", c.type_, c.status, c.reason.clone().unwrap()));
        (lines.collect(), next, status)
    }

    #[test]
    fn a_rollout_progresses_ends_or_times_out() {
        let mut d = deployment(4, "a");
        d.spec.as_mut().unwrap().progress_deadline_seconds = Some(600);
        let (lines, next, first) = report(&d, vec![set("a", 1, 4, 0)], 0);
        assert_eq!(
            lines,
            ["Available=False MinimumReplicasUnavailable", "Progressing=True NewReplicaSetCreated"]
        );
        assert_eq!(next, Some(600));

        d.status = Some(first.clone());
        let (lines, next, _) = report(&d, vec![set("a", 1, 4, 2)], 100);
        assert_eq!(lines[1], "Progressing=True ReplicaSetUpdated");
        assert_eq!(next, Some(600));

        let (lines, ..) = report(&d, vec![set("a", 1, 4, 0)], 601);
        assert_eq!(lines[1], "Progressing=False ProgressDeadlineExceeded");

        let (lines, next, _) = report(&d, vec![set("a", 1, 4, 4)], 200);
        assert_eq!(
            lines,
            ["Available=True MinimumReplicasAvailable", "Progressing=True NewReplicaSetAvailable"]
        );
        assert_eq!(next, None);
    }
}
