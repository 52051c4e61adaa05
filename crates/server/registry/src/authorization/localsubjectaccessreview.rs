//! `LocalSubjectAccessReview`: may they, in this namespace?

use crate::Resource;
use crate::builder::Kind;

/// The resource.
pub(crate) fn resource() -> Resource {
    Kind::namespaced("authorization.k8s.io/v1", "LocalSubjectAccessReview", "localsubjectaccessreviews")
        .transient()
        .build()
}
