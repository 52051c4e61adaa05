//! Keeps the RBAC index in step with the watch cache: a role is in force when its write is answered.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;
use xebec_auth::authz::RbacIndex;
use xebec_registry::Resource;
use xebec_types::object;

use crate::cache::Observer;

/// What the index wants to hear of a resource's objects.
pub fn observer(resource: &Resource, index: &Arc<RbacIndex>) -> Option<Observer> {
    if resource.group != "rbac.authorization.k8s.io" {
        return None;
    }
    let index = index.clone();
    Some(match resource.names.plural.as_str() {
        "clusterroles" => follow(
            index,
            |index, role| index.upsert_cluster_role(role),
            |index, _, name| index.delete_cluster_role(name),
        ),
        "clusterrolebindings" => follow(
            index,
            |index, binding| index.upsert_cluster_role_binding(binding),
            |index, _, name| index.delete_cluster_role_binding(name),
        ),
        "roles" => follow(
            index,
            |index, role| index.upsert_role(role),
            |index, namespace, name| index.delete_role(namespace, name),
        ),
        "rolebindings" => follow(
            index,
            |index, binding| index.upsert_role_binding(binding),
            |index, namespace, name| index.delete_role_binding(namespace, name),
        ),
        _ => return None,
    })
}

fn follow<K: DeserializeOwned + 'static>(
    index: Arc<RbacIndex>,
    upsert: fn(&RbacIndex, K),
    delete: fn(&RbacIndex, &str, &str),
) -> Observer {
    Arc::new(move |old: Option<&Value>, new: Option<&Value>| match (old, new) {
        (_, Some(new)) => match K::deserialize(new) {
            Ok(object) => upsert(&index, object),
            Err(error) => {
                tracing::error!(name = object::name(new), %error, "a stored role or binding cannot be read");
                delete(&index, object::namespace(new), object::name(new));
            }
        },
        (Some(old), None) => delete(&index, object::namespace(old), object::name(old)),
        (None, None) => {}
    })
}
