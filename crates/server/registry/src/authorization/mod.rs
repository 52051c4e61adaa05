//! The `authorization.k8s.io` group: questions that are answered and forgotten.

pub(crate) mod localsubjectaccessreview;
pub(crate) mod selfsubjectaccessreview;
pub(crate) mod selfsubjectrulesreview;
pub(crate) mod subjectaccessreview;
