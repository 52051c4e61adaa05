//! What of an object the informers keep in memory.

use k8s_openapi::api::core::v1::{Container, Pod, Volume};

/// Leaves of a pod what controllers and scheduler decide by, less than half of it in memory: what only a kubelet does
/// with containers and volumes goes. Controllers never write a pod back whole, they patch it.
pub fn pod(pod: &mut Pod) {
    if let Some(spec) = &mut pod.spec {
        spec.containers.iter_mut().for_each(container);
        spec.containers.shrink_to_fit();
        shrink(&mut spec.init_containers, container);
        shrink(&mut spec.tolerations, |_| {});
        if let Some(volumes) = &mut spec.volumes {
            volumes.retain(concerns_scheduling);
        }
        shrink(&mut spec.volumes, |_| {});
    }
    if let Some(status) = &mut pod.status {
        shrink(&mut status.conditions, |_| {});
        shrink(&mut status.container_statuses, |_| {});
        shrink(&mut status.init_container_statuses, |_| {});
        shrink(&mut status.pod_ips, |_| {});
        shrink(&mut status.host_ips, |_| {});
    }
    shrink(&mut pod.metadata.owner_references, |_| {});
}

fn container(container: &mut Container) {
    container.args = None;
    container.command = None;
    container.env = None;
    container.env_from = None;
    container.lifecycle = None;
    container.liveness_probe = None;
    container.readiness_probe = None;
    container.security_context = None;
    container.startup_probe = None;
    container.volume_devices = None;
    container.volume_mounts = None;
    shrink(&mut container.ports, |_| {});
}

/// Volumes that some nodes may be unable to give; any node can make the others.
fn concerns_scheduling(volume: &Volume) -> bool {
    let made_anywhere = volume.config_map.is_some()
        || volume.downward_api.is_some()
        || volume.empty_dir.is_some()
        || volume.host_path.is_some()
        || volume.projected.is_some()
        || volume.secret.is_some();
    !made_anywhere
}

/// Vectors grow by doubling, and a volume alone has 3 KB: room that decoding left over is given back.
fn shrink<T>(list: &mut Option<Vec<T>>, each: fn(&mut T)) {
    if list.as_ref().is_some_and(Vec::is_empty) {
        *list = None;
    }
    if let Some(list) = list {
        list.iter_mut().for_each(each);
        list.shrink_to_fit();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_decided_by_stays() {
        let kept = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "p", "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u", "controller": true}
            ]},
            "spec": {
                "nodeName": "n1",
                "containers": [{
                    "name": "c", "image": "i",
                    "ports": [{"containerPort": 80, "name": "http"}],
                    "resources": {"requests": {"cpu": "1"}},
                }],
                "initContainers": [{"name": "side", "restartPolicy": "Always"}],
                "tolerations": [{"operator": "Exists"}],
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
            },
            "status": {
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": "True"}],
                "podIPs": [{"ip": "10.0.0.1"}],
                "containerStatuses": [
                    {"name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": 3}
                ],
            },
        });
        let mut whole = kept.clone();
        whole["spec"]["volumes"].as_array_mut().unwrap().push(json!({"name": "token", "projected": {}}));
        for path in ["/spec/containers/0", "/spec/initContainers/0"] {
            let container = whole.pointer_mut(path).unwrap();
            container["env"] = json!([{"name": "A", "value": "B"}]);
            container["command"] = json!(["sh"]);
            container["volumeMounts"] = json!([{"name": "token", "mountPath": "/token"}]);
        }
        let mut trimmed: Pod = serde_json::from_value(whole).unwrap();
        pod(&mut trimmed);
        assert_eq!(serde_json::to_value(&trimmed).unwrap(), kept);
    }

    #[test]
    fn a_pod_without_claims_has_no_volumes() {
        let mut trimmed: Pod = serde_json::from_value(json!({
            "spec": {"containers": [], "volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "secret": {}}]}
        }))
        .unwrap();
        pod(&mut trimmed);
        assert_eq!(trimmed.spec.unwrap().volumes, None);
    }
}
