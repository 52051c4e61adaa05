//! gzip for large answers, as upstream: from 128 KiB on, at the fastest level.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderValue, VARY};
use http::{HeaderMap, Response};

use crate::body::Body;

/// Answers smaller than this go as they are.
const MIN: usize = 128 << 10;

/// Whether the client takes gzip.
pub fn accepts(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|text| text.split(',')).any(|part| part.split(';').next().unwrap_or("").trim() == "gzip")
}

/// Compresses a large answer, away from the threads that serve requests.
pub async fn large(response: Response<Body>) -> Response<Body> {
    let Some(bytes) = response.body().full().filter(|bytes| bytes.len() >= MIN).cloned() else {
        return response;
    };
    let packed = tokio::task::spawn_blocking(move || gzip(&bytes)).await;
    let Ok(Ok(packed)) = packed else { return response };
    let (mut parts, _) = response.into_parts();
    parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    Response::from_parts(parts, packed.into())
}

fn gzip(bytes: &Bytes) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish()
}
