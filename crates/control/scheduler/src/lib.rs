//! The scheduling framework and its plugins.
//!
//! Deciding is pure: [`Snapshot`](snapshot::Snapshot) is the cluster, a [`Plugin`](plugins::Plugin) is a set of
//! functions over it and a pod, and [`select`](framework::select) filters, scores and picks. The state keeps
//! the snapshot and the queue of pods up to date with what the informers tell; a decision is counted in the
//! snapshot at once, before the API knows it. [`Scheduler`] is the loop around it that binds pods and tells
//! users why a pod waits.
//!
//! Names, weights and messages are upstream's. There is no preemption: a pod that fits nowhere waits.

pub mod events;
pub mod framework;
pub mod node;
pub mod plugins;
pub mod pod;
mod queue;
pub mod resources;
mod scheduler;
pub mod snapshot;
mod state;
#[cfg(test)]
mod testing;

pub use scheduler::{Informers, Scheduler};
pub use state::SCHEDULER_NAME;
