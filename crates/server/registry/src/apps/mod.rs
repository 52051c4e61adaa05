//! The `apps` group.

pub(crate) mod deployment;
pub(crate) mod replicaset;
pub(crate) mod workload;
