//! `SubjectAccessReview`: may they?

use crate::Resource;
use crate::builder::Kind;

/// The resource.
pub(crate) fn resource() -> Resource {
    Kind::cluster("authorization.k8s.io/v1", "SubjectAccessReview", "subjectaccessreviews")
        .transient()
        .build()
}
