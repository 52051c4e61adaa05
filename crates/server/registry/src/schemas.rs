//! Where the registry gets the shapes of built-in kinds from.

use std::sync::Arc;

use xebec_schema::Schema;
use xebec_types::{GroupVersion, GroupVersionKind};

/// The shape of a built-in kind.
pub(crate) fn builtin(gvk: &GroupVersionKind) -> Arc<Schema> {
    xebec_schema::builtin(&gvk.group, &gvk.version, &gvk.kind)
        .expect("invariant: the table of types has every kind the registry names")
}

/// The shape of a kind that only occurs as the body of a subresource: `Scale`, `TokenRequest`, `Binding`,
/// `Eviction`. `None` for any other.
pub fn subresource_schema(gvk: &GroupVersionKind) -> Option<Arc<Schema>> {
    let known = [
        ("autoscaling/v1", "Scale"),
        ("authentication.k8s.io/v1", "TokenRequest"),
        ("v1", "Binding"),
        ("policy/v1", "Eviction"),
    ];
    let is = |(api_version, kind): &(&str, &str)| {
        GroupVersion::parse(api_version).is_some_and(|gv| gv.kind(kind) == *gvk)
    };
    known.iter().any(is).then(|| builtin(gvk))
}
