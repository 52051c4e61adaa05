//! JSON patch, merge patch and strategic merge patch over schemas.

mod error;
mod json;
mod order;
pub mod strategic;
pub mod three_way;

pub use error::PatchError;
pub use json::{MAX_OPERATIONS, json_patch, merge_patch};
pub use strategic::strategic_merge;
pub use three_way::{three_way, three_way_json, two_way};
