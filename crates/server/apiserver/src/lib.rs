//! The API server: the generic verbs over every resource, the watch cache, discovery and the HTTPS door.
//!
//! There is no handler for any kind. A request passes the filters (`filters.rs`), is dispatched to a verb by what its
//! path names, and the verb derives everything else from the resource's description.

mod api;
pub mod body;
mod bootstrap;
mod cache;
mod catalog;
mod codec;
mod compress;
mod crd;
mod discovery;
mod dispatch;
mod door;
mod engine;
mod filters;
mod gate;
mod health;
mod kubelet;
mod listener;
mod live;
mod meta;
mod metrics;
mod negotiate;
mod openapi;
mod pages;
mod paths;
mod query;
mod rbac;
mod reply;
mod request;
mod reviews;
mod scale;
mod server;
mod subresources;
mod table;
mod token;
mod verbs;
mod wire;
mod write;

pub use bootstrap::BootstrapError;
pub use codec::{Plain, Transformer};
pub use door::Door;
pub use filters::Peer;
pub use kubelet::KubeletDialer;
pub use server::{ApiServer, Config, Server, ServerError, Tasks, TokenConfig};
