//! Pods with a whole shell: busybox of the machine, mounted into the toolbox under the names that a test needs.

use serde_json::{Value, json};

/// Statically linked, so that it runs in any image.
const BUSYBOX: &str = "/bin/busybox";
/// Names in `/bin` under which it is there. The image's own `sh` is a link to its one program and stays what it is.
const NAMES: &[&str] = &["ash", "stty", "tar", "tail", "test", "touch", "wc"];

/// A container that runs a script, with the fields of `more`.
pub fn container(name: &str, script: &str, more: &Value) -> Value {
    let mounts = NAMES
        .iter()
        .map(|name| json!({"name": "busybox", "mountPath": format!("/bin/{name}"), "readOnly": true}));
    let mut mounts: Vec<Value> = mounts.collect();
    mounts.push(json!({"name": "shared", "mountPath": "/shared"}));
    let mut container = json!({
        "name": name, "image": "xebec/toolbox", "command": ["ash", "-c", script], "volumeMounts": mounts,
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        container[key] = value.clone();
    }
    container
}

/// A pod of such containers, which share the directory `/shared`. It ends at once when it is told to.
pub fn pod(name: &str, containers: &[Value]) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": containers,
            "volumes": [
                {"name": "busybox", "hostPath": {"path": BUSYBOX, "type": "File"}},
                {"name": "shared", "emptyDir": {}},
            ],
        },
    })
}
