//! Why a patch cannot be applied.

use serde_json::Value;

/// Why a patch cannot be applied. The API server answers `Syntax` with 400, `TooManyOperations` with 413 and
/// the rest with 422.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// The patch is not of the form its media type demands.
    #[error("{0}")]
    Syntax(String),
    /// A JSON patch with more operations than upstream allows.
    #[error("The allowed maximum operations in a JSON patch is {max}, got {got}")]
    TooManyOperations {
        /// The limit.
        max: usize,
        /// How many the patch has.
        got: usize,
    },
    /// An operation of a JSON patch that there is not, or that lacks a member.
    #[error("{0}")]
    Operation(String),
    /// An operation of a JSON patch failed on this object.
    #[error("{0}")]
    Apply(#[source] json_patch::PatchError),
    /// An unknown `$patch` directive of an object.
    #[error("unknown patch type found: {0} in map")]
    UnknownDirective(String),
    /// A `$patch` directive that cannot stand in a list.
    #[error("{0} is not a valid $patch directive of a list item")]
    ListDirective(String),
    /// An item of a merged list without its merge key.
    #[error("map: {item} does not contain declared merge key: {key}")]
    MissingMergeKey {
        /// The item.
        item: Value,
        /// The field it lacks.
        key: String,
    },
    /// A directive whose value has the wrong form.
    #[error("invalid value of {0}")]
    BadDirective(String),
    /// The patch orders items other than `$setElementOrder` says.
    #[error("the order in patch list of {0} doesn't match its $setElementOrder list")]
    OrderMismatch(String),
    /// `$retainKeys` does not name a key that the patch sets.
    #[error("not all keys in the patch are present in $retainKeys: {0} is missing")]
    RetainKeys(String),
}
