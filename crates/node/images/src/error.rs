//! What can go wrong with images.

use std::io;
use std::path::PathBuf;

use xebec_cri::CriError;

use crate::ReferenceError;

/// An image operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The reference cannot be read.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// No such image.
    #[error("image {0:?} not found")]
    NotFound(String),
    /// Several ids begin so.
    #[error("image {0:?} is the beginning of several ids: give more of it")]
    Ambiguous(String),
    /// The image is not to be removed, ever.
    #[error("image {0:?} is pinned and cannot be removed")]
    Pinned(String),
    /// Containers are made of the image.
    #[error(
        "image {reference:?} is in use by {} ({}): delete the pods first",
        if containers.len() == 1 { "a container" } else { "containers" },
        containers.join(", ")
    )]
    InUse {
        /// The image as it was asked for.
        reference: String,
        /// Ids of the containers.
        containers: Vec<String>,
    },
    /// The store's own files.
    #[error("{operation} {path:?}: {source}")]
    Io {
        /// What was done.
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A layer could not be unpacked.
    #[error("failed to extract layer {layer}: {source}")]
    Unpack {
        /// Digest of the layer.
        layer: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Content is not what its digest says.
    #[error("{what}: expected digest {expected}, got {actual}")]
    Digest {
        /// What was checked.
        what: &'static str,
        /// The digest asked for.
        expected: String,
        /// The digest of the bytes.
        actual: String,
    },
    /// A manifest or configuration that cannot be used.
    #[error("{0}")]
    Manifest(String),
    /// An archive that is no image archive.
    #[error("image archive: {0}")]
    Archive(String),
    /// The registry answered something else than the image.
    #[error("failed to pull and unpack image {reference:?}: {message}")]
    Registry {
        /// The kubelet's waiting reason.
        reason: &'static str,
        /// The image.
        reference: String,
        /// What the registry said.
        message: String,
    },
    /// A pull that others waited for as well failed.
    #[error("{message}")]
    Shared {
        /// The kubelet's waiting reason.
        reason: &'static str,
        /// Its text.
        message: String,
    },
    /// A background thread died.
    #[error("image worker failed: {0}")]
    Worker(#[from] tokio::task::JoinError),
}

impl ImageError {
    /// For `map_err` on file operations.
    pub(crate) fn io(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { operation, path, source }
    }

    /// The waiting reason a container shows after a failed pull.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Registry { reason, .. } | Self::Shared { reason, .. } => reason,
            _ => "ErrImagePull",
        }
    }
}

impl From<ImageError> for CriError {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::Reference(e) => Self::Invalid(e.to_string()),
            ImageError::NotFound(id) => Self::NotFound { what: "image", id },
            other => Self::Pull { reason: other.reason(), message: other.to_string() },
        }
    }
}
