//! Keeps the RBAC index in step with the watch cache: a role is in force when its write is answered. Also keeps users
//! from giving what they do not have.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;
use xebec_auth::UserInfo;
use xebec_auth::authz::{EscalationError, RbacIndex, RoleScope, check_binding_write, check_role_write};
use xebec_registry::Resource;
use xebec_types::{GroupResource, Status, object};

use crate::cache::Observer;

/// The API group of roles and bindings.
const GROUP: &str = "rbac.authorization.k8s.io";

/// What the index wants to hear of a resource's objects.
pub fn observer(resource: &Resource, index: &Arc<RbacIndex>) -> Option<Observer> {
    if resource.group != GROUP {
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

/// Refuses a role or binding that would allow more than `user` may do. Writes that
/// leave rules and role reference as they are pass.
///
/// # Errors
/// 403, or 404 for a binding to a role that is not there.
pub fn check_escalation(
    index: &RbacIndex,
    user: &UserInfo,
    resource: &Resource,
    new: &Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    if resource.group != GROUP {
        return Ok(());
    }
    let (name, namespace) = (object::name(new), object::namespace(new));
    let scope = if resource.namespaced() { RoleScope::Namespace(namespace) } else { RoleScope::Cluster };
    let same = |field: &str| old.is_some_and(|old| old.get(field) == new.get(field));
    let checked = match new.get("roleRef") {
        Some(_) if same("roleRef") && same("subjects") => Ok(()),
        Some(role) => {
            let role = serde_json::from_value(role.clone()).map_err(Status::internal)?;
            check_binding_write(index, user, scope, &role)
        }
        None if same("rules") && same("aggregationRule") => Ok(()),
        None => {
            let rules = new.get("rules").cloned().unwrap_or_else(|| Value::Array(Vec::new()));
            let rules: Vec<_> = serde_json::from_value(rules).map_err(Status::internal)?;
            check_role_write(index, user, scope, name, &rules)
        }
    };
    checked.map_err(|error| match &error {
        EscalationError::NotHeld { .. } => {
            Status::forbidden(&resource.group_resource(), name, &error.to_string())
        }
        EscalationError::NoRole { kind, name } => Status::not_found(&GroupResource::new(GROUP, *kind), name),
    })
}
