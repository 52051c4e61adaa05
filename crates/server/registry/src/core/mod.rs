//! The core group.

pub(crate) mod binding;
pub(crate) mod configmap;
pub(crate) mod endpoints;
pub(crate) mod event;
pub(crate) mod namespace;
pub(crate) mod node;
pub(crate) mod pod;
pub(crate) mod pod_spec;
pub(crate) mod secret;
pub(crate) mod service;
pub(crate) mod serviceaccount;
pub(crate) mod unsupported;
