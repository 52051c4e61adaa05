//! Paths and queries of URLs.

use std::fmt::Write as _;

/// A path and its query, percent-encoded (RFC 3986 §2.1; only unreserved characters stay).
pub fn uri(path: &str, query: &[(String, String)]) -> String {
    let mut uri = path.to_owned();
    for (at, (key, value)) in query.iter().enumerate() {
        uri.push(if at == 0 && !path.contains('?') { '?' } else { '&' });
        uri.push_str(&encode(key));
        uri.push('=');
        uri.push_str(&encode(value));
    }
    uri
}

/// One path segment or query word.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("invariant: a String takes every write");
        }
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    #[test]
    fn queries_are_encoded() {
        let query =
            [("labelSelector".to_owned(), "a=b,c in (d)".to_owned()), ("x".to_owned(), "1".to_owned())];
        assert_eq!(super::uri("/api", &query), "/api?labelSelector=a%3Db%2Cc%20in%20%28d%29&x=1");
    }
}
