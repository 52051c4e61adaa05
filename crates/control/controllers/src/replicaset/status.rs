//! What a ReplicaSet reports.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::pods;

fn count(pods: &[Arc<Pod>], wanted: impl Fn(&Pod) -> bool) -> i32 {
    i32::try_from(pods.iter().filter(|pod| wanted(pod)).count()).unwrap_or(i32::MAX)
}

/// The status to report, and the seconds after which a pod becomes available without any further change.
pub fn status(
    set: &ReplicaSet,
    owned: &[Arc<Pod>],
    failure: Option<(&str, String)>,
    now: Timestamp,
) -> (ReplicaSetStatus, Option<u64>) {
    let spec = set.spec.clone().unwrap_or_default();
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let template = spec.template.and_then(|t| t.metadata).and_then(|m| m.labels).unwrap_or_default();
    let fully_labeled = |pod: &Pod| {
        let labels = pod.metadata.labels.as_ref();
        template.iter().all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v))
    };
    let active: Vec<Arc<Pod>> = owned.iter().filter(|pod| pods::is_active(pod)).cloned().collect();
    let waiting = |pod: &Pod| pods::seconds_until_available(pod, min_ready, now);
    let next = active.iter().filter_map(|pod| waiting(pod)).filter(|s| *s > 0).min();
    let terminating = |pod: &Pod| pod.metadata.deletion_timestamp.is_some() && !pods::is_terminal(pod);
    let old = set.status.clone().unwrap_or_default();
    let status = ReplicaSetStatus {
        replicas: count(&active, |_| true),
        fully_labeled_replicas: some(count(&active, fully_labeled)),
        ready_replicas: some(count(&active, pods::is_ready)),
        available_replicas: some(count(&active, |pod| waiting(pod) == Some(0))),
        terminating_replicas: Some(count(owned, terminating)),
        observed_generation: set.metadata.generation,
        conditions: conditions(old.conditions, failure, now),
    };
    (status, next.and_then(|s| u64::try_from(s).ok()))
}

/// Zero counts are left out, as the API's encoding does.
fn some(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}

fn conditions(
    old: Option<Vec<ReplicaSetCondition>>,
    failure: Option<(&str, String)>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let mut conditions: Vec<_> =
        old.into_iter().flatten().filter(|c| c.type_ != "ReplicaFailure" || failure.is_some()).collect();
    if let Some((reason, message)) = failure
        && !conditions.iter().any(|c| c.type_ == "ReplicaFailure")
    {
        conditions.push(ReplicaSetCondition {
            type_: "ReplicaFailure".into(),
            status: "True".into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_transition_time: Some(Time(Timestamp::from_second(now.as_second()).unwrap_or(now))),
        });
    }
    (!conditions.is_empty()).then_some(conditions)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::plan::tests::{owned, set};
    use super::*;

    #[test]
    fn pods_are_counted_by_what_they_are() {
        let (status, next) = status(&set(2), &[owned("a", true), owned("b", false)], None, Timestamp::now());
        assert_eq!(
            (status.replicas, status.ready_replicas, status.available_replicas),
            (2, Some(1), Some(1))
        );
        assert_eq!((status.observed_generation, next), (Some(2), None));
    }

    #[test]
    fn availability_is_looked_at_again_in_time() {
        let mut set = set(1);
        set.spec.as_mut().unwrap().min_ready_seconds = Some(10);
        let now = Timestamp::from_second(1_704_067_204).unwrap();
        let (status, next) = status(&set, &[owned("a", true)], None, now);
        assert_eq!((status.available_replicas, next), (None, Some(6)));
    }

    #[test]
    fn failures_show_until_they_are_over() {
        let failed = status(&set(1), &[], Some(("FailedCreate", "no".into())), Timestamp::now()).0;
        assert_eq!(failed.conditions.as_ref().unwrap()[0].reason.as_deref(), Some("FailedCreate"));
        let mut again = set(1);
        again.status = Some(failed);
        assert_eq!(status(&again, &[], None, Timestamp::now()).0.conditions, None);
    }
}
