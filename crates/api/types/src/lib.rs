//! The vocabulary of the Kubernetes API: names, quantities, selectors, status.
//!
//! Everything here is pure and small, and every layer above may use it.

mod identity;
pub mod names;
pub mod object;
mod quantity;
mod quote;
mod selector;
mod status;
pub mod time;

pub use identity::{GroupKind, GroupResource, GroupVersion, GroupVersionKind, GroupVersionResource};
pub use quantity::{Quantity, QuantityError};
pub use quote::quoted;
pub use selector::{FieldSelector, LabelSelector, SelectorError};
pub use status::{Cause, Status, StatusDetails};

/// The version of Kubernetes that the server and its nodes say they are: upstream's, with our own name as build.
pub const KUBERNETES_VERSION: &str = "v1.36.2+xebec";
