//! Pod links and address management of one node.
//!
//! Every pod has one veth pair: `eth0` in the pod's network namespace, the other end on the node's bridge. The pod's
//! addresses are host prefixes (/32, /128) with the bridge as gateway, so that packets between two pods of a node
//! pass the node's IP layer, where Services and policy see both directions. Nothing is translated between pods and
//! nodes; packets of pods that leave the cluster take an address of the node.

mod config;
mod error;
mod firewall;
mod ipam;
mod link;
mod network;
mod state;

pub use config::{HostPort, NetworkConfig, Protocol};
pub use error::NetworkError;
pub use ipam::{IpamError, Pool};
pub use network::{Network, PodAddresses};
pub use state::{PodRecord, State, StateError};
