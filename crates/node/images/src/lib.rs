//! OCI images: pull, import, unpack, keep and remove.
//!
//! [`ImageStore`] is the node's one image store. A layer is unpacked once into a directory of its own, in the form
//! overlayfs wants its lower directories, under the name of its chain id (the identity of a layer *and* what lies
//! below it), so that images share what they have in common. It becomes visible by one rename after its bytes are
//! on disk; the list of images is one file that is replaced atomically. Whatever a crash left behind is thrown away
//! when the store is opened, and nothing is ever unpacked again.

mod error;
mod import;
mod manifest;
mod pull;
mod reference;
mod remove;
mod service;
mod state;
mod store;
mod unpack;

pub use error::ImageError;
pub use import::Imported;
pub use reference::{Reference, ReferenceError};
pub use remove::Removed;
pub use store::{ImageStore, ImportOptions, Options, Rootfs};
