//! Why a network operation failed.

use xebec_netlink::{NetNsError, NftError, sysctl::SysctlError};

use crate::{ipam::IpamError, state::StateError};

/// Failure of a network operation.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The configuration cannot work.
    #[error("network configuration: {0}")]
    Config(String),
    /// No address could be given.
    #[error(transparent)]
    Ipam(#[from] IpamError),
    /// The allocations could not be read or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// Links, addresses or routes.
    #[error(transparent)]
    Link(#[from] xebec_netlink::Error),
    /// The pod's network namespace.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    /// Packet filter.
    #[error(transparent)]
    Firewall(#[from] NftError),
    /// Kernel parameters.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// Something of this name is not ours.
    #[error("interface {name} exists but is {found}, not {wanted}: rename or remove it")]
    Foreign {
        /// Interface name.
        name: String,
        /// Its kind.
        found: String,
        /// The kind needed.
        wanted: &'static str,
    },
    /// A sandbox is not as it was made.
    #[error("network of sandbox {sandbox}: {problem}")]
    Broken {
        /// The sandbox.
        sandbox: String,
        /// What is wrong.
        problem: String,
    },
    /// The task was cancelled by the end of the runtime.
    #[error("network operation was interrupted")]
    Interrupted,
}
