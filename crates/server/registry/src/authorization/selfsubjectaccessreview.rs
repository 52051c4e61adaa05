//! `SelfSubjectAccessReview`: may I?

use crate::Resource;
use crate::builder::Kind;

/// The resource.
pub(crate) fn resource() -> Resource {
    Kind::cluster("authorization.k8s.io/v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews")
        .transient()
        .build()
}
