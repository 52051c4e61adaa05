//! The `authentication.k8s.io` group: questions that are answered and forgotten.

pub(crate) mod selfsubjectreview;
pub(crate) mod tokenrequest;
pub(crate) mod tokenreview;
