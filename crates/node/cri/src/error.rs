//! What a runtime can answer instead of a result.

/// An error of a runtime or image operation. The variants are the gRPC codes that the kubelet distinguishes.
#[derive(Debug, thiserror::Error)]
pub enum CriError {
    /// The sandbox, container or image does not exist (gRPC `NOT_FOUND`).
    #[error("{what} {id:?} not found")]
    NotFound {
        /// What was looked for: `sandbox`, `container` or `image`.
        what: &'static str,
        /// Its id or reference.
        id: String,
    },
    /// The request contradicts itself or asks for something that cannot be (gRPC `INVALID_ARGUMENT`).
    #[error("{0}")]
    Invalid(String),
    /// The object is in a state that does not allow the operation (gRPC `FAILED_PRECONDITION`).
    #[error("{0}")]
    State(String),
    /// The operation did not finish within its time limit (gRPC `DEADLINE_EXCEEDED`).
    #[error("{operation} timed out after {seconds}s")]
    Timeout {
        /// The operation.
        operation: &'static str,
        /// The limit in seconds.
        seconds: u64,
    },
    /// The container's process could not be started; the text is what a user sees in the container's
    /// `CreateContainerError`/`RunContainerError` state.
    #[error("{0}")]
    Start(String),
    /// An image could not be pulled; `reason` is the kubelet's waiting reason.
    #[error("{message}")]
    Pull {
        /// `ErrImagePull`, `RegistryUnavailable`, `SignatureValidationFailed`.
        reason: &'static str,
        /// What a user should read.
        message: String,
    },
    /// The runtime is not there (gRPC `UNAVAILABLE`): the caller should retry.
    #[error("container runtime is unavailable: {0}")]
    Unavailable(String),
    /// Anything else (gRPC `UNKNOWN`), with the operation that failed.
    #[error("{operation}: {source}")]
    Failed {
        /// The operation.
        operation: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl CriError {
    /// Wraps an error with the operation that met it.
    pub fn failed(
        operation: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Failed { operation: operation.into(), source: source.into() }
    }

    /// Whether the object simply does not exist, which every delete treats as success.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}
