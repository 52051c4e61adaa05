//! `SelfSubjectReview`: who am I?

use crate::Resource;
use crate::builder::Kind;

/// The resource.
pub(crate) fn resource() -> Resource {
    Kind::cluster("authentication.k8s.io/v1", "SelfSubjectReview", "selfsubjectreviews").transient().build()
}
