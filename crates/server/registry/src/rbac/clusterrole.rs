//! `ClusterRole`.

use super::rules::{COLUMNS, RoleStrategy};
use crate::Resource;
use crate::builder::Kind;

/// The resource.
pub(crate) fn resource() -> Resource {
    Kind::cluster("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles")
        .columns(COLUMNS)
        .strategy(RoleStrategy { urls: true })
        .build()
}
