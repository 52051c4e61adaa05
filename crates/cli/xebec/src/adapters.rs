//! Where crates of different layers meet: the runtime's seams, filled by the image store and the pod network.

mod network;
mod rootfs;

pub use network::{LazyNetwork, NoNetwork};
pub use rootfs::StoredRootfs;
