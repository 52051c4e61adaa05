//! The controllers of the cluster, one folder each.
//!
//! Every controller is a pure `plan` (a function from a snapshot of objects to what should be done, testable without a
//! cluster) and a thin reconciler that reads the shared [`Informers`], plans, and writes through the client.
//!
//! Adding a controller is one folder and one line in [`start`].

mod deployment;
mod events;
mod expectations;
mod informers;
mod owners;
mod pods;
mod replicaset;

pub use events::Recorder;
pub use informers::Informers;
