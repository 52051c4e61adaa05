//! The pod machine: what to do next for a pod, and what its status is. Pure; the worker carries it out.

mod conditions;
mod containers;
mod plan;
mod state;
mod status;

pub use plan::plan;
pub use state::{
    Action, Busy, ContainerMemory, Failure, Input, KillReason, Memory, NodeView, Observed, ObservedContainer,
    Plan, ProbeResults, RestartBackoff, Retry, Stop,
};
#[cfg(test)]
mod tests;
