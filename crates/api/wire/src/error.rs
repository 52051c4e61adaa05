//! Why bytes are no object, or an object has no bytes.

/// Why something cannot be read or written as protobuf.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The magic bytes are missing.
    #[error("the body does not begin with the protobuf magic number of Kubernetes (6b 38 73 00)")]
    NoEnvelope,
    /// The bytes end within a field.
    #[error("the protobuf message ends early")]
    Truncated,
    /// A variable-length number has more than ten bytes.
    #[error("a number in the protobuf message is longer than 64 bits")]
    Overflow,
    /// A field number of zero, or a wire type that is not in use.
    #[error("the protobuf message has an invalid field key: number {tag}, wire type {wire_type}")]
    Key {
        /// Field number.
        tag: u32,
        /// Wire type, 0 to 7.
        wire_type: u8,
    },
    /// A field is carried in another way than its type asks for.
    #[error("{place}: expected {expected} in the protobuf message")]
    WireType {
        /// Type or field.
        place: String,
        /// What should have been there.
        expected: &'static str,
    },
    /// A value that JSON or the type cannot hold.
    #[error("{place}: {problem}")]
    Value {
        /// Type or field.
        place: String,
        /// What is wrong.
        problem: String,
    },
    /// Messages lie too deep in one another.
    #[error("messages are nested deeper than 128 levels")]
    TooDeep,
    /// The envelope names an encoding of the message that is not in use.
    #[error("unsupported content type {content_type:?} or encoding {encoding:?} in the protobuf envelope")]
    Content {
        /// Media type of the raw message.
        content_type: String,
        /// Its compression.
        encoding: String,
    },
    /// The kind has no protobuf tables: a custom resource, or no kind at all.
    #[error("kind {kind:?} of {api_version:?} has no protobuf encoding: use application/json")]
    UnknownKind {
        /// API version.
        api_version: String,
        /// Kind.
        kind: String,
    },
}

impl WireError {
    pub(crate) fn value(place: impl Into<String>, problem: impl ToString) -> Self {
        Self::Value { place: place.into(), problem: problem.to_string() }
    }

    pub(crate) fn kind(api_version: &str, kind: &str) -> Self {
        Self::UnknownKind { api_version: api_version.to_owned(), kind: kind.to_owned() }
    }
}
