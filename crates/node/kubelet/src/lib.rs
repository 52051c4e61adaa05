//! The kubelet: the pod machine, its probes, its status and the node's HTTPS door.
//!
//! [`Kubelet`] joins the parts. One watch brings the node's pods ([`pods`]); each pod has one task ([`worker`]) that
//! observes the runtime, asks the pure pod machine ([`machine`]) for a plan and carries it out; the builders
//! ([`build`]) turn specs into CRI configurations, also purely. Cancelling the agent leaves every pod as it is.

pub mod build;
mod config;
pub mod events;
mod gc;
mod kubelet;
pub mod labels;
pub mod logs;
pub mod machine;
pub mod node;
pub mod pods;
pub mod probe;
pub mod server;
pub mod sources;
pub mod spec;
pub mod worker;

pub use config::{Config, ServerConfig};
pub use kubelet::{Kubelet, KubeletError};
