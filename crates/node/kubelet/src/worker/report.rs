//! Writing the status to the API: only what changed, as a strategic merge patch.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Map, Value, json};

use super::{Done, RETRY, Worker};
use crate::spec;

impl Worker {
    /// Writes the status if it differs from what was written last. One write at a time; what changes meanwhile is
    /// written next.
    pub(super) fn report(&mut self, pod: &Pod) {
        let now = Timestamp::now();
        if self.reporting || self.report_retry.is_some_and(|at| at > now) {
            return;
        }
        self.report_retry = None;
        let status = self.status.clone();
        let Some(patch) = diff(&self.reported, &status) else {
            let deleted = pod.metadata.deletion_timestamp.is_some();
            let quiet = self.memory.cleaned && !self.memory.anything_busy();
            if deleted && quiet && !self.memory.final_status_stored {
                self.memory.final_status_stored = true;
                self.poke.changed();
            }
            return;
        };
        self.reporting = true;
        let api: Api<Pod> = Api::namespaced(self.shared.client.clone(), spec::namespace(pod));
        let name = spec::name(pod).to_owned();
        let patch = json!({"metadata": {"uid": spec::uid(pod)}, "status": patch});
        self.tasks.spawn(async move {
            let params = PatchParams::default();
            let result = api.patch_status(&name, &params, &Patch::Strategic(patch)).await.map(drop);
            Done::Reported { status: Box::new(status), result }
        });
    }

    /// Takes in the result of a write.
    pub(super) fn reported(&mut self, status: PodStatus, result: Result<(), kube::Error>) {
        self.reporting = false;
        match result {
            Ok(()) => self.reported = status,
            // The pod is gone or another one has its name: the watch will say so.
            Err(kube::Error::Api(s)) if s.code == 404 || s.code == 409 => {
                tracing::debug!(message = s.message, "status of a pod that is gone");
                self.reported = status;
            }
            Err(error) => {
                tracing::debug!(%error, "status not stored");
                self.report_retry =
                    Some(Timestamp::now() + SignedDuration::try_from(RETRY).unwrap_or_default());
            }
        }
    }
}

/// The fields in which two statuses differ, `null` for those that went away.
fn diff(old: &PodStatus, new: &PodStatus) -> Option<Value> {
    let object = |status: &PodStatus| match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let (old, mut new) = (object(old), object(new));
    let own = [
        "phase",
        "conditions",
        "message",
        "reason",
        "hostIP",
        "hostIPs",
        "podIP",
        "podIPs",
        "startTime",
        "initContainerStatuses",
        "containerStatuses",
        "qosClass",
        "observedGeneration",
    ];
    let mut patch = Map::new();
    for key in own {
        let before = old.get(key);
        match new.remove(key) {
            Some(Value::Array(list)) if list.is_empty() && before.is_none() => {}
            Some(value) if before != Some(&value) => {
                patch.insert(key.to_owned(), replaced(key, before, value));
            }
            None if before.is_some() => {
                patch.insert(key.to_owned(), Value::Null);
            }
            _ => {}
        }
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// Addresses merge by value, so that a changed list must say that it replaces the old one.
fn replaced(key: &str, before: Option<&Value>, value: Value) -> Value {
    let had_some = before.and_then(Value::as_array).is_some_and(|l| !l.is_empty());
    match value {
        Value::Array(mut list) if matches!(key, "podIPs" | "hostIPs") && had_some => {
            list.insert(0, json!({"$patch": "replace"}));
            Value::Array(list)
        }
        value => value,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_written() {
        let old: PodStatus = serde_json::from_value(json!({"phase": "Pending", "reason": "x"})).unwrap();
        let new: PodStatus =
            serde_json::from_value(json!({"phase": "Running", "podIPs": [{"ip": "1.1.1.1"}]})).unwrap();
        assert_eq!(
            diff(&old, &new).unwrap(),
            json!({"phase": "Running", "reason": null, "podIPs": [{"ip": "1.1.1.1"}]})
        );
        assert_eq!(diff(&new, &new), None);
        let none: PodStatus = serde_json::from_value(json!({"phase": "Running", "podIPs": []})).unwrap();
        assert_eq!(diff(&new, &none).unwrap(), json!({"podIPs": [{"$patch": "replace"}]}));
    }
}
