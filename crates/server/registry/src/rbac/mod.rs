//! The `rbac.authorization.k8s.io` group.

mod bindings;
pub(crate) mod clusterrole;
pub(crate) mod clusterrolebinding;
pub(crate) mod role;
pub(crate) mod rolebinding;
mod rules;

use serde_json::{Map, Value};

use crate::defaults::{Row, text, zero};

/// The name of the group.
const GROUP: &str = "rbac.authorization.k8s.io";

/// The rows for [`crate::defaults::table`].
pub(crate) const DEFAULTS: &[Row] = &[("rbac.v1.RoleRef", role_ref), ("rbac.v1.Subject", subject)];

fn role_ref(reference: &mut Map<String, Value>) {
    zero(reference, "apiGroup", GROUP);
}

fn subject(subject: &mut Map<String, Value>) {
    if ["User", "Group"].contains(&text(subject, "kind")) {
        zero(subject, "apiGroup", GROUP);
    }
}
