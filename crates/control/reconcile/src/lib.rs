//! Shared informers, work queues and the shape of a controller.
//!
//! A controller is a pure plan and a thin executor around it:
//!
//! 1. [`Informer`]s keep what the controller looks at in memory: one watch per kind and process, shared by all.
//! 2. Their change handlers turn changes into keys in a [`Queue`], which holds each key once.
//! 3. [`run`] takes keys from the queue and hands them to a [`Reconciler`], which reads the informers, plans, and
//!    writes through the client. Failures come back with growing delay.
//!
//! Nothing polls. A reconciler that waits for time to pass says so by returning a [`Requeue`].

mod index;
mod informer;
mod key;
mod objects;
mod queue;
mod reconciler;
mod recorder;

pub use index::{ByController, Index, controller_of};
pub use informer::{Change, Informer};
pub use key::Key;
pub use objects::IndexBy;
pub use queue::Queue;
pub use reconciler::{Reconciler, Requeue, run};
pub use recorder::Recorder;
