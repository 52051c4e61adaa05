//! `ClusterRoleBinding`.

use super::bindings::{BindingStrategy, COLUMNS};
use crate::Resource;
use crate::builder::Kind;

/// The resource.
pub(crate) fn resource() -> Resource {
    Kind::cluster("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings")
        .columns(COLUMNS)
        .strategy(BindingStrategy { roles: &["ClusterRole"], namespaced: false })
        .build()
}
