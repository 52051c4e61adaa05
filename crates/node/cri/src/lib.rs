//! The seam between kubelet and container runtime, shaped like CRI v1.
//!
//! The kubelet knows only the two traits here, [`RuntimeService`] and [`ImageService`]. The embedded runtime
//! implements them in-process; an adapter can put any external CRI socket behind them. Names follow
//! `k8s.io/cri-api/pkg/apis/runtime/v1`; types are leaner where CRI carries what Linux does not need.
//!
//! Two things differ from the gRPC API on purpose. Streams ([`RuntimeService::exec`], [`RuntimeService::attach`],
//! [`RuntimeService::port_forward`]) are handed over as byte streams instead of as a URL of a second server, and the
//! pod network is a trait of its own, [`PodNetwork`], which the runtime calls where CRI runtimes call CNI.

mod container;
mod error;
mod image;
mod network;
mod sandbox;
mod security;
mod service;
mod stats;
mod streams;

pub use container::*;
pub use error::CriError;
pub use image::*;
pub use network::*;
pub use sandbox::*;
pub use security::*;
pub use service::*;
pub use stats::*;
pub use streams::*;
