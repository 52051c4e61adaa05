//! Container logs in CRI format: rotation and reading.

pub mod line;
pub mod read;
pub mod rotate;
