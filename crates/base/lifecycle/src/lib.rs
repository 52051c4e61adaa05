//! Components of a process: start, readiness, orderly stop.
//!
//! A [`Group`] holds every task of a process. All of them share one cancellation token; the first one that fails or
//! panics takes the group down, because a cluster that runs with half its components is worse than one that restarts.
//! A [`Readiness`] is how a component says that it serves.

mod group;
mod readiness;

pub use group::{Group, GroupError};
pub use readiness::{Readiness, ReadyHandle};
