//! `TokenReview`: whose token is this?

use crate::Resource;
use crate::builder::Kind;

/// The resource.
pub(crate) fn resource() -> Resource {
    Kind::cluster("authentication.k8s.io/v1", "TokenReview", "tokenreviews").transient().build()
}
