//! `runtime.Unknown`: what stands around a message and says its kind.

use crate::error::WireError;
use crate::reader::{Payload, Reader};
use crate::writer;

/// What a protobuf body begins with.
pub const MAGIC: [u8; 4] = *b"k8s\0";

/// An envelope that has been opened.
#[derive(Debug, Default)]
pub struct Envelope<'a> {
    /// API version.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// The message.
    pub raw: &'a [u8],
    /// Compression of `raw`, empty for none.
    pub encoding: String,
    /// Media type of `raw`, empty for protobuf.
    pub content_type: String,
}

impl<'a> Envelope<'a> {
    /// Opens the envelope of a whole body.
    pub fn open(body: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader(body.strip_prefix(&MAGIC).ok_or(WireError::NoEnvelope)?);
        let mut envelope = Self::default();
        while let Some((tag, payload)) = reader.next()? {
            match tag {
                1 => envelope.read_type(bytes("typeMeta", payload)?)?,
                2 => envelope.raw = bytes("raw", payload)?,
                3 => envelope.encoding = text("contentEncoding", payload)?,
                4 => envelope.content_type = text("contentType", payload)?,
                _ => {}
            }
        }
        Ok(envelope)
    }

    fn read_type(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        let mut reader = Reader(bytes);
        while let Some((tag, payload)) = reader.next()? {
            match tag {
                1 => self.api_version = text("apiVersion", payload)?,
                2 => self.kind = text("kind", payload)?,
                _ => {}
            }
        }
        Ok(())
    }
}

/// Puts a message into its envelope.
pub fn seal(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut type_meta = Vec::with_capacity(api_version.len() + kind.len() + 4);
    writer::bytes(&mut type_meta, 1, api_version.as_bytes());
    writer::bytes(&mut type_meta, 2, kind.as_bytes());
    let mut out = Vec::with_capacity(raw.len() + type_meta.len() + 20);
    out.extend_from_slice(&MAGIC);
    writer::bytes(&mut out, 1, &type_meta);
    writer::bytes(&mut out, 2, raw);
    writer::bytes(&mut out, 3, b"");
    writer::bytes(&mut out, 4, b"");
    out
}

/// The bytes of a field.
pub fn bytes<'a>(place: &str, payload: Payload<'a>) -> Result<&'a [u8], WireError> {
    match payload {
        Payload::Bytes(bytes) => Ok(bytes),
        _ => Err(WireError::WireType { place: place.to_owned(), expected: "bytes" }),
    }
}

/// The text of a field.
pub fn text(place: &str, payload: Payload<'_>) -> Result<String, WireError> {
    let text = std::str::from_utf8(bytes(place, payload)?);
    text.map(str::to_owned).map_err(|error| WireError::value(place, error))
}
