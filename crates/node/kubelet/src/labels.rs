//! Labels and annotations by which the kubelet knows its sandboxes and containers again.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;

use crate::spec;

/// Label: pod name.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// Label: pod namespace.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Label: pod UID.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// Label: container name.
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Annotation: restart count.
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// Annotation: `terminationMessagePath`.
pub const MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
/// Annotation: `terminationMessagePolicy`.
pub const MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
/// Annotation: grace period of the pod in seconds.
pub const GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";

/// Labels of everything that belongs to the pod.
pub fn pod(pod: &Pod) -> BTreeMap<String, String> {
    [(POD_NAME, spec::name(pod)), (POD_NAMESPACE, spec::namespace(pod)), (POD_UID, spec::uid(pod))]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into()
}
