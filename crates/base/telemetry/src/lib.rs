//! Logs, metrics and the progress lines a person sees.

mod logs;
pub mod metrics;
mod progress;

pub use logs::{LogFormat, init_logs};
pub use progress::Progress;
