//! `Role`.

use super::rules::{COLUMNS, RoleStrategy};
use crate::Resource;
use crate::builder::Kind;

/// The resource.
pub(crate) fn resource() -> Resource {
    Kind::namespaced("rbac.authorization.k8s.io/v1", "Role", "roles")
        .columns(COLUMNS)
        .strategy(RoleStrategy { urls: false })
        .build()
}
