//! Typed kernel I/O: links, addresses, routes, network namespaces, nftables and conntrack.
//!
//! Everything here is one request to the kernel and its answer; what should be asked is planned elsewhere.
//! Netlink requests are carried out synchronously inside `sendmsg(2)`, so the calls block for microseconds (or as
//! long as the kernel holds its RTNL or nftables lock): asynchronous callers wrap them in a blocking task.
//! A socket stays in the network namespace it was opened in, whichever thread uses it later.

pub mod cidr;
pub mod conntrack;
pub mod message;
pub mod netns;
pub mod nft;
pub mod rtnl;
mod rtnl_types;
pub mod socket;
pub mod sysctl;

pub use cidr::{Cidr, CidrError};
pub use conntrack::{Conntrack, Flow};
pub use netns::{NetNs, NetNsError};
pub use nft::{Batch, Nft, NftError};
pub use rtnl::Rtnl;
pub use rtnl_types::{Address, Link, LinkSettings, Route};
pub use socket::Error;
