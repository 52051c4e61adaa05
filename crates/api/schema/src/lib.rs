//! The structural-schema engine: decode, prune, default, check and publish.
//!
//! Built-in kinds and custom resources are described by one [`Schema`] graph; everything the server derives from a
//! kind (strict decoding, pruning, defaults, value checks, merge rules, OpenAPI) is a walk over it.

pub mod crd;
pub mod decode;
pub mod defaults;
pub mod error;
mod formats;
pub mod openapi;
pub mod path;
pub mod rules;
pub mod schema;
pub mod table;
pub mod validate;
pub mod yaml;

pub use crd::from_crd;
pub use decode::{DecodeError, FieldValidation, Warning, decode};
pub use defaults::{DefaultFn, TypeDefaults, default};
pub use error::{ErrorKind, FieldError};
pub use path::Path;
pub use schema::{Kind, Schema};
pub use table::{builtin, builtin_type};
pub use validate::validate;
pub use yaml::resolve_octals;
