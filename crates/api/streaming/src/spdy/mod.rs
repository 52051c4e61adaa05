//! SPDY/3.1 as Kubernetes uses it: many streams on one connection, opened by the client, with headers.
//!
//! The Go library behind kubectl neither sends `WINDOW_UPDATE` nor keeps to windows, so flow control is applied to
//! sending only after the other side has shown that it takes part (by `SETTINGS` or `WINDOW_UPDATE`); our own updates
//! are always sent, which such peers ignore.

mod flow;
mod frame;
mod headers;
mod session;
mod stream;

pub use frame::{
    CANCEL, Control, Decoder, Encoder, FrameError, FrameHeader, HEADER_LEN, INVALID_STREAM, MAX_CONTROL,
    PROTOCOL_ERROR, REFUSED_STREAM, decode_header,
};
pub use headers::Headers;
/// Window announced for every stream, in bytes.
pub const WINDOW: u32 = 64 * 1024;

pub use session::{Incoming, Role, Session};
pub use stream::{SpdyReader, SpdyStream, SpdyWriter};
