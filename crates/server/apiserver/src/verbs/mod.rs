//! The verbs, one file each. None of them knows any kind.

mod create;
mod delete;
pub(crate) mod get;
pub mod list;
mod patch;
mod update;
mod watch;

pub use delete::DeleteOptions;
pub(crate) use patch::Patch;
