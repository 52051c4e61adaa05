//! Volumes of a pod on the node: emptyDir, hostPath, configMap, secret, projected and downwardAPI.
//!
//! [`PodVolumes::setup`] brings every volume of a pod into the state its spec and the referenced objects ask for.
//! It is idempotent: the kubelet calls it before the first container starts, again when a referenced object
//! changes, and again when a token is due ([`Mounted::refresh_at`]). Nothing here polls.
//!
//! What is rendered is decided by pure functions ([`render`]); what is written goes through the atomic writer
//! ([`atomic`]), so that a reader sees either the old or the new set of files.

pub mod atomic;
mod error;
pub mod fields;
mod host_path;
mod manager;
mod mount;
pub mod render;
mod sources;
pub mod subpath;

pub use error::VolumeError;
pub use manager::{Facts, Mounted, PodVolumes};
pub use sources::{Sources, Token, TokenWanted};
