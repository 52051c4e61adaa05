//! The image `xebec/toolbox`: what diagnosis and examples need, on machines that reach no registry.
//!
//! The program in it is made at build time from `src/program` (standard library only, static) and carried inside this
//! library; [`image_archive`] wraps it into an OCI archive, the same bytes every time.

mod archive;

#[cfg(test)]
#[path = "program/main.rs"]
#[allow(dead_code, missing_docs, clippy::unwrap_used)]
mod program;

pub use archive::{IMAGE, image_archive, image_id};

/// The program, an ELF executable without dependencies.
pub const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/toolbox"));
