//! Frames of SPDY/3.1 as bytes (draft-mbelshe-httpbis-spdy-00, section 2.2 and 2.6).

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::headers::{Deflater, Headers, Inflater};

/// Length of every frame's header in bytes.
pub const HEADER_LEN: usize = 8;
/// Control frames longer than this many bytes are refused.
pub const MAX_CONTROL: usize = 64 * 1024;

const VERSION: u16 = 3;
const FLAG_FIN: u8 = 1;
const FLAG_UNIDIRECTIONAL: u8 = 2;
const STREAM_MASK: u32 = 0x7fff_ffff;
const SETTING_INITIAL_WINDOW: u32 = 7;

/// `RST_STREAM` status: the stream broke a rule.
pub const PROTOCOL_ERROR: u32 = 1;
/// `RST_STREAM` status: the frame names no open stream.
pub const INVALID_STREAM: u32 = 2;
/// `RST_STREAM` status: not accepted.
pub const REFUSED_STREAM: u32 = 3;
/// `RST_STREAM` status: the creator no longer wants it.
pub const CANCEL: u32 = 5;

/// Bytes that are no SPDY/3.1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A control frame of another version.
    #[error("frame of SPDY version {0}")]
    Version(u16),
    /// A control frame that is too long.
    #[error("control frame of {0} bytes")]
    TooLong(usize),
    /// A control frame whose length does not fit its type.
    #[error("malformed control frame of type {0}")]
    Malformed(u16),
    /// A header block that cannot be read.
    #[error("header block: {0}")]
    Headers(&'static str),
}

/// A control frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// Opens a stream.
    SynStream {
        /// The new stream.
        stream: u32,
        /// The sender will send no data.
        fin: bool,
        /// The receiver may send no data.
        unidirectional: bool,
        /// 0 is the highest.
        priority: u8,
        /// The stream's headers.
        headers: Headers,
    },
    /// Accepts a stream.
    SynReply {
        /// The stream.
        stream: u32,
        /// The sender will send no data.
        fin: bool,
        /// The answer's headers.
        headers: Headers,
    },
    /// Ends a stream at once, both directions.
    RstStream {
        /// The stream.
        stream: u32,
        /// Why.
        status: u32,
    },
    /// Settings; only the initial window matters here.
    Settings {
        /// `SETTINGS_INITIAL_WINDOW_SIZE` in bytes.
        initial_window: Option<u32>,
    },
    /// Asks for the same frame back.
    Ping(u32),
    /// No further streams are accepted.
    GoAway {
        /// Last stream of the other side that was accepted.
        last_stream: u32,
        /// 0 is a normal end.
        status: u32,
    },
    /// Further headers of a stream.
    Headers {
        /// The stream.
        stream: u32,
        /// The sender will send no more.
        fin: bool,
        /// The headers.
        headers: Headers,
    },
    /// Room for more data.
    WindowUpdate {
        /// The stream, or 0 for the whole connection.
        stream: u32,
        /// Bytes more.
        delta: u32,
    },
    /// Of a type that is not known; to be ignored.
    Unknown(u16),
}

/// The first eight bytes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameHeader {
    /// Data follows.
    Data {
        /// The stream.
        stream: u32,
        /// The sender will send no more.
        fin: bool,
        /// Bytes that follow.
        len: usize,
    },
    /// A control frame's payload follows.
    Control {
        /// Type number.
        kind: u16,
        /// Flags.
        flags: u8,
        /// Bytes that follow.
        len: usize,
    },
}

/// Reads a frame's header.
///
/// # Errors
/// Control frames of another SPDY version or longer than [`MAX_CONTROL`].
pub fn decode_header(bytes: [u8; HEADER_LEN]) -> Result<FrameHeader, FrameError> {
    let first = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let flags = bytes[4];
    let len = u32::from_be_bytes([0, bytes[5], bytes[6], bytes[7]]) as usize;
    if first & !STREAM_MASK == 0 {
        return Ok(FrameHeader::Data { stream: first, fin: flags & FLAG_FIN != 0, len });
    }
    let version = ((first >> 16) & 0x7fff) as u16;
    if version != VERSION {
        return Err(FrameError::Version(version));
    }
    if len > MAX_CONTROL {
        return Err(FrameError::TooLong(len));
    }
    Ok(FrameHeader::Control { kind: (first & 0xffff) as u16, flags, len })
}

/// Reads control frames. Keeps the state of the header blocks.
pub struct Decoder {
    inflater: Inflater,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// For a new connection.
    pub fn new() -> Self {
        Self { inflater: Inflater::new() }
    }

    /// Reads the payload of a control frame.
    ///
    /// # Errors
    /// Payloads that do not fit the type. After an error in a header block the connection cannot go on.
    pub fn decode(&mut self, kind: u16, flags: u8, payload: &[u8]) -> Result<Control, FrameError> {
        let need = match kind {
            1 => 10,
            2 | 4 | 8 => 4,
            3 | 7 | 9 => 8,
            6 => 4,
            _ => 0,
        };
        if payload.len() < need {
            return Err(FrameError::Malformed(kind));
        }
        let mut p = payload;
        let fin = flags & FLAG_FIN != 0;
        Ok(match kind {
            1 => {
                let stream = p.get_u32() & STREAM_MASK;
                p.advance(4);
                let priority = p.get_u8() >> 5;
                p.advance(1);
                let unidirectional = flags & FLAG_UNIDIRECTIONAL != 0;
                Control::SynStream {
                    stream,
                    fin,
                    unidirectional,
                    priority,
                    headers: self.inflater.decode(p)?,
                }
            }
            2 => Control::SynReply {
                stream: p.get_u32() & STREAM_MASK,
                fin,
                headers: self.inflater.decode(p)?,
            },
            3 => Control::RstStream { stream: p.get_u32() & STREAM_MASK, status: p.get_u32() },
            4 => decode_settings(p)?,
            6 => Control::Ping(p.get_u32()),
            7 => Control::GoAway { last_stream: p.get_u32() & STREAM_MASK, status: p.get_u32() },
            8 => {
                Control::Headers { stream: p.get_u32() & STREAM_MASK, fin, headers: self.inflater.decode(p)? }
            }
            9 => {
                Control::WindowUpdate { stream: p.get_u32() & STREAM_MASK, delta: p.get_u32() & STREAM_MASK }
            }
            other => Control::Unknown(other),
        })
    }
}

fn decode_settings(mut p: &[u8]) -> Result<Control, FrameError> {
    let count = p.get_u32() as usize;
    if p.len() != count.saturating_mul(8) {
        return Err(FrameError::Malformed(4));
    }
    let mut initial_window = None;
    for _ in 0..count {
        let id = p.get_u32() & 0x00ff_ffff;
        let value = p.get_u32();
        if id == SETTING_INITIAL_WINDOW {
            initial_window = Some(value & STREAM_MASK);
        }
    }
    Ok(Control::Settings { initial_window })
}

/// Writes frames. Keeps the state of the header blocks, so the order of calls must be the order of the wire.
pub struct Encoder {
    deflater: Deflater,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// For a new connection.
    pub fn new() -> Self {
        Self { deflater: Deflater::new() }
    }

    /// Appends a control frame. Unknown frames cannot be written and append nothing.
    pub fn control(&mut self, frame: &Control, out: &mut BytesMut) {
        let (kind, flags) = match frame {
            Control::SynStream { fin, unidirectional, .. } => {
                (1, (u8::from(*fin) * FLAG_FIN) | (u8::from(*unidirectional) * FLAG_UNIDIRECTIONAL))
            }
            Control::SynReply { fin, .. } => (2, u8::from(*fin) * FLAG_FIN),
            Control::RstStream { .. } => (3, 0),
            Control::Settings { .. } => (4, 0),
            Control::Ping(_) => (6, 0),
            Control::GoAway { .. } => (7, 0),
            Control::Headers { fin, .. } => (8, u8::from(*fin) * FLAG_FIN),
            Control::WindowUpdate { .. } => (9, 0),
            Control::Unknown(_) => return,
        };
        let mut body = BytesMut::new();
        self.payload(frame, &mut body);
        out.put_u16(0x8000 | VERSION);
        out.put_u16(kind);
        out.put_u32(u32::from(flags) << 24 | body.len() as u32);
        out.put_slice(&body);
    }

    fn payload(&mut self, frame: &Control, body: &mut BytesMut) {
        match frame {
            Control::SynStream { stream, priority, headers, .. } => {
                body.put_u32(*stream);
                body.put_u32(0);
                body.put_u8(priority << 5);
                body.put_u8(0);
                self.deflater.encode(headers, body);
            }
            Control::SynReply { stream, headers, .. } | Control::Headers { stream, headers, .. } => {
                body.put_u32(*stream);
                self.deflater.encode(headers, body);
            }
            Control::RstStream { stream: a, status: b }
            | Control::GoAway { last_stream: a, status: b }
            | Control::WindowUpdate { stream: a, delta: b } => {
                body.put_u32(*a);
                body.put_u32(*b);
            }
            Control::Settings { initial_window } => {
                body.put_u32(u32::from(initial_window.is_some()));
                if let Some(bytes) = initial_window {
                    body.put_u32(SETTING_INITIAL_WINDOW);
                    body.put_u32(*bytes);
                }
            }
            Control::Ping(id) => body.put_u32(*id),
            Control::Unknown(_) => {}
        }
    }

    /// Appends a data frame.
    pub fn data(&mut self, stream: u32, fin: bool, bytes: &Bytes, out: &mut BytesMut) {
        debug_assert!(bytes.len() < 1 << 24, "invariant: data is cut into pieces before");
        out.put_u32(stream & STREAM_MASK);
        out.put_u32(u32::from(u8::from(fin) * FLAG_FIN) << 24 | bytes.len() as u32);
        out.put_slice(bytes);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes_of(frame: &Control) -> Vec<u8> {
        let mut out = BytesMut::new();
        Encoder::new().control(frame, &mut out);
        out.to_vec()
    }

    fn read(bytes: &[u8]) -> Result<Control, FrameError> {
        let header = decode_header(bytes[..8].try_into().unwrap())?;
        let FrameHeader::Control { kind, flags, len } = header else { panic!("a data frame") };
        assert_eq!(len, bytes.len() - 8);
        Decoder::new().decode(kind, flags, &bytes[8..])
    }

    #[test]
    fn fixed_frames_are_as_in_the_draft() {
        let cases: &[(Control, &[u8])] = &[
            (Control::Ping(1), &[0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]),
            (
                Control::RstStream { stream: 3, status: CANCEL },
                &[0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 3, 0, 0, 0, 5],
            ),
            (
                Control::GoAway { last_stream: 9, status: 0 },
                &[0x80, 3, 0, 7, 0, 0, 0, 8, 0, 0, 0, 9, 0, 0, 0, 0],
            ),
            (
                Control::WindowUpdate { stream: 0, delta: 65536 },
                &[0x80, 3, 0, 9, 0, 0, 0, 8, 0, 0, 0, 0, 0, 1, 0, 0],
            ),
            (
                Control::Settings { initial_window: Some(4096) },
                &[0x80, 3, 0, 4, 0, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 16, 0],
            ),
        ];
        for (frame, bytes) in cases {
            assert_eq!(bytes_of(frame), *bytes, "{frame:?}");
            assert_eq!(&read(bytes).unwrap(), frame);
        }
    }

    #[test]
    fn header_frames_read_back() {
        let headers: Headers = vec![("streamtype".into(), "error".into())];
        for frame in [
            Control::SynStream {
                stream: 1,
                fin: true,
                unidirectional: false,
                priority: 5,
                headers: headers.clone(),
            },
            Control::SynReply { stream: 1, fin: false, headers: headers.clone() },
            Control::Headers { stream: 7, fin: true, headers },
        ] {
            let bytes = bytes_of(&frame);
            // CMF of zlib with a preset dictionary, and the dictionary's id.
            let at = if matches!(frame, Control::SynStream { .. }) { 18 } else { 12 };
            assert_eq!(bytes[at], 0x78);
            assert_eq!(bytes[at + 2..at + 6], [0xe3, 0xc6, 0xa7, 0xc2]);
            assert_eq!(read(&bytes).unwrap(), frame);
        }
    }

    #[test]
    fn data_frames_are_as_in_the_draft() {
        let mut out = BytesMut::new();
        Encoder::new().data(5, true, &Bytes::from_static(b"hi"), &mut out);
        assert_eq!(out[..], [0, 0, 0, 5, 1, 0, 0, 2, b'h', b'i']);
        let header = decode_header(out[..8].try_into().unwrap()).unwrap();
        assert_eq!(header, FrameHeader::Data { stream: 5, fin: true, len: 2 });
    }

    proptest! {
        #[test]
        fn decoding_never_panics(kind in 0u16..12, flags: u8, payload in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Decoder::new().decode(kind, flags, &payload);
        }

        #[test]
        fn broken_header_blocks_never_panic(cut in 0usize..60, flip in 0usize..60, bit in 0u8..8) {
            let headers: Headers = vec![("streamtype".into(), "data".into()), ("port".into(), "80".into())];
            let mut bytes = bytes_of(&Control::SynReply { stream: 1, fin: false, headers });
            let flip = 8 + flip % (bytes.len() - 8);
            bytes[flip] ^= 1 << bit;
            let end = bytes.len().saturating_sub(cut).max(8);
            let _ = Decoder::new().decode(2, 0, &bytes[8..end]);
        }

        #[test]
        fn headers_of_frames_never_panic(bytes: [u8; 8]) {
            let _ = decode_header(bytes);
        }
    }
}
