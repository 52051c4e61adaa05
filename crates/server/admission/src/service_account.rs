//! `ServiceAccount`: every pod has an account, and finds its token where clients look for it.

use rand::Rng as _;
use serde_json::{Map, Value, json};
use xebec_types::{GroupResource, Status, object};

use crate::{Attributes, Operation, Plugin, Warnings};

/// Where clients look for the token.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// Seven seconds above an hour: the number by which upstream recognizes its own volumes.
const TOKEN_SECONDS: i64 = 3607;
const ROOT_CA: &str = "kube-root-ca.crt";
const MIRROR: &str = "kubernetes.io/config.mirror";

/// The step.
pub struct ServiceAccount;

impl ServiceAccount {
    fn create(request: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
        if is_mirror(pod) {
            return Self::mirror(request, pod);
        }
        let spec = object::child_mut(pod, "spec");
        if spec.get("serviceAccountName").and_then(Value::as_str).unwrap_or("").is_empty() {
            spec.insert("serviceAccountName".into(), "default".into());
            spec.insert("serviceAccount".into(), "default".into());
        }
        let account = Self::account(request, pod)?;
        if automounts(pod, &account) {
            mount_token(object::child_mut(pod, "spec"));
        }
        let spec = object::child_mut(pod, "spec");
        let none = spec.get("imagePullSecrets").and_then(Value::as_array).is_none_or(Vec::is_empty);
        if let Some(secrets) = account.get("imagePullSecrets").filter(|_| none) {
            spec.insert("imagePullSecrets".into(), secrets.clone());
        }
        Ok(())
    }

    /// The account of a pod. The `default` one counts as there before its controller has made it: the node waits for
    /// the token anyway, and whoever creates a namespace and a pod in one go need not try twice.
    fn account(request: &Attributes<'_>, pod: &Value) -> Result<Value, Status> {
        let name = object::str_at(pod, "spec.serviceAccountName");
        let accounts = GroupResource::new("", "serviceaccounts");
        match request.objects.get(&accounts, request.namespace, name) {
            Some(account) => Ok((*account).clone()),
            None if name == "default" => Ok(json!({})),
            None => {
                let namespace = request.namespace;
                let why = format!(
                    "error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"
                );
                Err(request.forbidden(&why))
            }
        }
    }

    /// Mirror pods show what a node runs on its own; they must not bring anything of the API with them.
    fn mirror(request: &Attributes<'_>, pod: &Value) -> Result<(), Status> {
        if !object::str_at(pod, "spec.serviceAccountName").is_empty() {
            return Err(request.forbidden("a mirror pod may not reference service accounts"));
        }
        let volumes = object::at(pod, "spec.volumes").and_then(Value::as_array).into_iter().flatten();
        if volumes
            .flat_map(|v| v["projected"]["sources"].as_array().into_iter().flatten())
            .any(|s| s.get("serviceAccountToken").is_some())
        {
            return Err(request.forbidden("a mirror pod may not use ServiceAccountToken volume projections"));
        }
        Ok(())
    }
}

fn is_mirror(pod: &Value) -> bool {
    object::metadata(pod).and_then(|m| m.get("annotations")).is_some_and(|a| a.get(MIRROR).is_some())
}

fn automounts(pod: &Value, account: &Value) -> bool {
    let own = object::at(pod, "spec.automountServiceAccountToken").and_then(Value::as_bool);
    own.or_else(|| account.get("automountServiceAccountToken").and_then(Value::as_bool)).unwrap_or(true)
}

/// Mounts the token into every container that has nothing there.
fn mount_token(spec: &mut Map<String, Value>) {
    let volumes = spec.get("volumes").and_then(Value::as_array).into_iter().flatten();
    let existing =
        volumes.map(|v| object::str_at(v, "name")).find(|n| n.starts_with(VOLUME_PREFIX)).map(str::to_owned);
    let name = existing.clone().unwrap_or_else(volume_name);
    let mut needed = false;
    for list in ["initContainers", "containers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for container in containers.filter_map(Value::as_object_mut) {
            let mounts = container.entry("volumeMounts").or_insert_with(|| json!([]));
            let Some(mounts) = mounts.as_array_mut() else { continue };
            if mounts.iter().all(|m| object::str_at(m, "mountPath") != MOUNT_PATH) {
                mounts.push(json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH}));
                needed = true;
            }
        }
    }
    if needed && existing.is_none() {
        let volumes = spec.entry("volumes").or_insert_with(|| json!([]));
        if let Some(volumes) = volumes.as_array_mut() {
            volumes.push(token_volume(&name));
        }
    }
}

/// The prefix and five letters of the alphabet of generated names, which forms no words.
fn volume_name() -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut random = rand::rng();
    let suffix: String = (0..5).map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())])).collect();
    format!("{VOLUME_PREFIX}{suffix}")
}

fn token_volume(name: &str) -> Value {
    let namespace = json!({"apiVersion": "v1", "fieldPath": "metadata.namespace"});
    json!({
        "name": name,
        "projected": {
            "defaultMode": 420,
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
                {"configMap": {"name": ROOT_CA, "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": namespace}]}},
            ],
        },
    })
}

impl Plugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    fn admit(&self, request: &Attributes<'_>, object: &mut Value) -> Result<Warnings, Status> {
        if request.is_core("pods") {
            Self::create(request, object)?;
        }
        Ok(Warnings::new())
    }

    /// Another step may have chosen another account since.
    fn validate(&self, request: &Attributes<'_>, object: Option<&Value>) -> Result<Warnings, Status> {
        if let Some(pod) = object.filter(|pod| request.is_core("pods") && !is_mirror(pod)) {
            Self::account(request, pod)?;
        }
        Ok(Warnings::new())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::fake::{Objects, request};

    fn admitted(objects: &Objects, spec: Value) -> Result<Value, String> {
        let mut pod = json!({"metadata": {"name": "p", "namespace": "a"}, "spec": spec});
        request(objects, Operation::Create, "pods", "a", "p", |r| ServiceAccount.admit(r, &mut pod))
            .map_err(|s| s.message)?;
        Ok(pod["spec"].take())
    }

    fn account(name: &str, more: Value) -> Value {
        let mut account = json!({"metadata": {"name": name, "namespace": "a"}});
        account.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        account
    }

    #[test]
    fn the_token_is_mounted_where_nothing_else_is() {
        let objects = Objects::default().with("serviceaccounts", account("default", json!({})));
        let own = json!({"name": "x", "mountPath": MOUNT_PATH});
        let spec = json!({"containers": [{"name": "a"}, {"name": "b", "volumeMounts": [own]}]});
        let spec = admitted(&objects, spec).unwrap();
        assert_eq!(spec["serviceAccountName"], "default");
        let volume = spec["volumes"][0]["name"].as_str().unwrap();
        assert!(volume.starts_with(VOLUME_PREFIX) && volume.len() == VOLUME_PREFIX.len() + 5, "{volume}");
        let mount = json!([{"name": volume, "readOnly": true, "mountPath": MOUNT_PATH}]);
        assert_eq!(spec["containers"][0]["volumeMounts"], mount);
        assert_eq!(spec["containers"][1]["volumeMounts"], json!([own]));
        assert_eq!(spec["volumes"][0], token_volume(volume));
    }

    #[test]
    fn accounts_decide_over_tokens_and_pull_secrets() {
        let off = account(
            "off",
            json!({"automountServiceAccountToken": false, "imagePullSecrets": [{"name": "s"}]}),
        );
        let objects = Objects::default().with("serviceaccounts", off);
        let spec = json!({"serviceAccountName": "off", "containers": [{"name": "a"}]});
        let spec = admitted(&objects, spec).unwrap();
        assert_eq!(spec["imagePullSecrets"], json!([{"name": "s"}]));
        assert!(spec.get("volumes").is_none());
        let insists =
            json!({"serviceAccountName": "off", "automountServiceAccountToken": true, "containers": [{}]});
        assert!(admitted(&objects, insists).unwrap().get("volumes").is_some());
    }

    #[test]
    fn a_missing_account_is_named() {
        let text = "pods \"p\" is forbidden: error looking up service account a/ghost: serviceaccount \"ghost\" \
                    not found";
        let result = admitted(&Objects::default(), json!({"serviceAccountName": "ghost"}));
        assert_eq!(result.unwrap_err(), text);
        assert!(
            admitted(&Objects::default(), json!({"containers": []})).is_ok(),
            "the default one is on its way"
        );
    }
}
