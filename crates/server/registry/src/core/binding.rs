//! `Binding`: puts a pod onto a node. Only ever a request.

use crate::Resource;
use crate::builder::Kind;

/// The resource.
pub(crate) fn resource() -> Resource {
    Kind::namespaced("v1", "Binding", "bindings").transient().build()
}
