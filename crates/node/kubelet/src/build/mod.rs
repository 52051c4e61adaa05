//! From pod to sandbox and container configuration: pure functions.

pub mod container;
pub mod env;
pub mod expand;
pub mod hosts;
pub mod resolv;
pub mod resources;
pub mod sandbox;
pub mod security;
pub mod service_env;

/// Why a container's configuration cannot be made: the message of `CreateContainerConfigError`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A referenced object does not exist.
    #[error("{kind} \"{name}\" not found")]
    NotFound {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Name.
        name: String,
    },
    /// Anything else, in words.
    #[error("{0}")]
    Other(String),
}

impl ConfigError {
    fn not_found(kind: &'static str, name: &str) -> Self {
        Self::NotFound { kind, name: name.to_owned() }
    }
}
