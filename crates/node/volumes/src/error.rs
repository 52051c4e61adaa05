//! What can go wrong with a volume.

use std::path::PathBuf;

/// Why a volume is not there. The text is what a user reads in the `FailedMount` event.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// A file operation failed.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// The operation, as in `create directory`.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A referenced object does not exist.
    #[error("{kind} \"{name}\" not found")]
    NotFound {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A referenced key does not exist in its object.
    #[error("references non-existent {kind} key: {key}")]
    MissingKey {
        /// `config` or `secret`.
        kind: &'static str,
        /// The key.
        key: String,
    },
    /// An object could not be fetched.
    #[error("failed to fetch {what}: {message}")]
    Fetch {
        /// Kind and name.
        what: String,
        /// Why.
        message: String,
    },
    /// A path that leaves its volume.
    #[error("invalid path {0:?}: it must be relative and must not contain \"..\"")]
    Path(String),
    /// `hostPath.type` does not hold.
    #[error("hostPath type check failed: {path} is not a {wanted}")]
    HostPathType {
        /// The path.
        path: String,
        /// What it should have been.
        wanted: &'static str,
    },
    /// A kind of volume, or a field of one, that this node cannot serve.
    #[error("{field} is not supported by this node: {remedy}")]
    Unsupported {
        /// Path of the field.
        field: String,
        /// What to use instead.
        remedy: &'static str,
    },
    /// A downward API field that does not exist.
    #[error("{0}")]
    Field(String),
}

impl VolumeError {
    /// Wraps a file error.
    pub(crate) fn io(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { operation, path, source }
    }
}
