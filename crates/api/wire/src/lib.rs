//! Kubernetes' protobuf encoding of built-in kinds, driven by the schema tables.
//!
//! A body is an envelope: four magic bytes and a `runtime.Unknown` with the type's name and the message itself. Field
//! numbers, pointers and inlined structs are facts of the tables of `xebec-schema`; nothing here knows a kind. Objects
//! come out as the JSON that says the same and go in as such.

mod decode;
mod duration;
mod encode;
mod envelope;
mod error;
mod reader;
mod writer;

pub use decode::decode;
pub use encode::{encode, watch_event};
pub use error::WireError;

/// The media type of the encoding.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// How deep messages may lie in one another; what `serde_json` allows, too.
pub(crate) const MAX_DEPTH: u32 = 128;
