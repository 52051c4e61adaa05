//! Cluster DNS from the binary itself.
//!
//! Names of Services, their endpoints and pods are answered as the Kubernetes DNS specification 1.1.0 says;
//! everything else goes to the resolvers of the node. [`Index`] is what the API says, kept up to date by two
//! watches; [`Zone`] turns a name into records and is pure; [`Server`] owns the sockets.

mod cache;
mod feed;
mod index;
mod message;
mod resolver;
mod server;
mod upstream;
mod zone;

pub use index::{Index, Key, Kind, Port, ServiceData, SliceData, SliceEndpoint};
pub use resolver::StatsSnapshot;
pub use server::{Config, DnsError, Server};
pub use upstream::Upstream;
pub use zone::{Answer, Zone};
