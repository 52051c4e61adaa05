//! Header blocks: names and values, deflated with a dictionary both sides know (SPDY/3, section 2.6.10).
//!
//! All header blocks of one direction are one zlib stream, flushed after each block, so that both objects here live as
//! long as the connection and must see every block in the order of the wire.

use bytes::{BufMut, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::FrameError;

/// Names (lower case) and values in order. A name can have several values.
pub type Headers = Vec<(String, String)>;

/// A header block may not inflate to more than this many bytes.
const MAX_BLOCK: usize = 64 * 1024;

/// The dictionary's length-prefixed part: frequent header names and values.
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language \
    accept-ranges age allow authorization cache-control connection content-base content-encoding content-language \
    content-length content-location content-md5 content-range content-type date etag expect expires from host \
    if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma \
    proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
    user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie \
    keep-alive origin";
/// The dictionary's plain tail.
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
    203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized\
    403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable\
    Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT\
    chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,\
    text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

/// The zlib dictionary of SPDY/3; its Adler-32 is `e3c6a7c2`.
pub(crate) fn dictionary() -> Vec<u8> {
    let mut out = Vec::with_capacity(1423);
    for word in WORDS.split_whitespace() {
        let word = word.replace('_', " ");
        out.extend_from_slice(&(word.len() as u32).to_be_bytes());
        out.extend_from_slice(word.as_bytes());
    }
    out.extend_from_slice(TAIL.as_bytes());
    out
}

/// Writes header blocks.
pub(crate) struct Deflater(Compress);

impl Deflater {
    pub(crate) fn new() -> Self {
        let mut zlib = Compress::new(Compression::default(), true);
        zlib.set_dictionary(&dictionary()).expect("invariant: a fresh stream takes a dictionary");
        Self(zlib)
    }

    /// Appends the block to `out`.
    pub(crate) fn encode(&mut self, headers: &Headers, out: &mut BytesMut) {
        let plain = plain_block(headers);
        let mut packed = Vec::with_capacity(plain.len() + 64);
        let mut taken = 0;
        loop {
            packed.reserve(256);
            let before = self.0.total_in();
            let room = packed.capacity();
            self.0
                .compress_vec(&plain[taken..], &mut packed, FlushCompress::Sync)
                .expect("invariant: deflate to memory does not fail");
            taken += (self.0.total_in() - before) as usize;
            if taken == plain.len() && packed.len() < room {
                break;
            }
        }
        out.put_slice(&packed);
    }
}

/// The block before compression. Several values of one name are one value with NUL between them.
fn plain_block(headers: &Headers) -> Vec<u8> {
    let mut merged: Vec<(&str, String)> = Vec::new();
    for (name, value) in headers {
        match merged.iter_mut().find(|(n, _)| n == name) {
            Some((_, values)) => {
                values.push('\0');
                values.push_str(value);
            }
            None => merged.push((name, value.clone())),
        }
    }
    let mut out = Vec::new();
    out.put_u32(merged.len() as u32);
    for (name, value) in &merged {
        out.put_u32(name.len() as u32);
        out.put_slice(name.as_bytes());
        out.put_u32(value.len() as u32);
        out.put_slice(value.as_bytes());
    }
    out
}

/// Reads header blocks.
pub(crate) struct Inflater(Decompress);

impl Inflater {
    pub(crate) fn new() -> Self {
        Self(Decompress::new(true))
    }

    pub(crate) fn decode(&mut self, packed: &[u8]) -> Result<Headers, FrameError> {
        let mut plain = Vec::new();
        let mut taken = 0;
        loop {
            if plain.len() > MAX_BLOCK {
                return Err(FrameError::Headers("larger than 64 KiB"));
            }
            plain.reserve(4096);
            let (before_in, before_out) = (self.0.total_in(), plain.len());
            let result = self.0.decompress_vec(&packed[taken..], &mut plain, FlushDecompress::Sync);
            taken += (self.0.total_in() - before_in) as usize;
            match result {
                Ok(Status::StreamEnd) => break,
                Ok(_) if taken == packed.len() && plain.len() < plain.capacity() => break,
                Ok(_) if self.0.total_in() == before_in && plain.len() == before_out => break,
                Ok(_) => {}
                Err(e) if e.needs_dictionary().is_some() => {
                    self.0
                        .set_dictionary(&dictionary())
                        .map_err(|_| FrameError::Headers("another dictionary"))?;
                }
                Err(_) => return Err(FrameError::Headers("not a zlib stream")),
            }
        }
        parse_block(&plain)
    }
}

fn parse_block(mut rest: &[u8]) -> Result<Headers, FrameError> {
    let count = take_u32(&mut rest)?;
    let mut headers = Vec::new();
    for _ in 0..count {
        let name = take_string(&mut rest)?;
        let values = take_string(&mut rest)?;
        for value in values.split('\0') {
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
    }
    Ok(headers)
}

fn take_u32(rest: &mut &[u8]) -> Result<u32, FrameError> {
    let (head, tail) = rest.split_first_chunk::<4>().ok_or(FrameError::Headers("cut short"))?;
    *rest = tail;
    Ok(u32::from_be_bytes(*head))
}

fn take_string(rest: &mut &[u8]) -> Result<String, FrameError> {
    let len = take_u32(rest)? as usize;
    if len > rest.len() {
        return Err(FrameError::Headers("cut short"));
    }
    let (head, tail) = rest.split_at(len);
    *rest = tail;
    String::from_utf8(head.to_vec()).map_err(|_| FrameError::Headers("not UTF-8"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_is_the_one_of_the_draft() {
        assert_eq!(dictionary().len(), 1423);
        let id = Compress::new(Compression::default(), true).set_dictionary(&dictionary()).unwrap();
        assert_eq!(id, 0xe3c6_a7c2);
    }

    #[test]
    fn blocks_share_one_stream() {
        let (mut deflater, mut inflater) = (Deflater::new(), Inflater::new());
        for i in 0..200 {
            let headers: Headers = vec![
                ("streamtype".into(), "data".into()),
                ("port".into(), "8080".into()),
                ("requestid".into(), i.to_string()),
                ("many".into(), "a".into()),
                ("many".into(), "x".repeat(i * 17)),
            ];
            let mut out = BytesMut::new();
            deflater.encode(&headers, &mut out);
            assert_eq!(inflater.decode(&out).unwrap(), headers);
        }
    }

    #[test]
    fn a_bomb_is_refused() {
        let mut out = BytesMut::new();
        Deflater::new().encode(&vec![("a".into(), "b".repeat(1 << 20))], &mut out);
        assert!(out.len() < 8192);
        assert!(Inflater::new().decode(&out).is_err());
    }
}
