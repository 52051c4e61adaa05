//! Admission: the mutating and validating steps between decoding and storing.
//!
//! A [`Chain`] runs its [`Plugin`]s in upstream's order: first all that change the object, then, after defaults and
//! validation, all that only judge it.

mod chain;
mod namespace_lifecycle;
mod node_taint;
mod priority;
mod service_account;
mod tolerations;

#[cfg(test)]
mod fake;

pub use chain::{Attributes, Chain, Operation, Plugin, Warnings};
pub use namespace_lifecycle::NamespaceLifecycle;
pub use node_taint::TaintNodesByCondition;
pub use priority::Priority;
pub use service_account::ServiceAccount;
pub use tolerations::DefaultTolerationSeconds;
