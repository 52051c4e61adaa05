//! The structural-schema engine: decode, prune, default, check and publish.
//!
//! Built-in kinds and custom resources are described by one schema graph; everything the server
//! derives from a kind (strict decoding, pruning, defaults, value checks, merge rules, OpenAPI) is a walk over it.

pub mod error;
pub mod path;

pub use error::{ErrorKind, FieldError};
pub use path::Path;
