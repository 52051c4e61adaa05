//! `RoleBinding`.

use super::bindings::{BindingStrategy, COLUMNS};
use crate::Resource;
use crate::builder::Kind;

/// The resource.
pub(crate) fn resource() -> Resource {
    Kind::namespaced("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings")
        .columns(COLUMNS)
        .strategy(BindingStrategy { roles: &["Role", "ClusterRole"], namespaced: true })
        .build()
}
