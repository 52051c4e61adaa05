//! From request headers to the protocol both sides will speak.

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// What is asked for. Attach speaks the same protocols as exec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// Exec and attach.
    Exec,
    /// Port-forward.
    PortForward,
}

/// How bytes are put on the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// SPDY/3.1 frames.
    Spdy,
    /// WebSocket messages whose first byte is the channel.
    WebSocket,
    /// WebSocket text messages whose first character is the channel's digit, the rest base64.
    WebSocketBase64,
    /// SPDY/3.1 frames cut into binary WebSocket messages (KEP-4006).
    WebSocketTunnel,
}

/// What both sides agreed to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocol {
    /// The framing.
    pub wire: Wire,
    /// Version of the channel protocol: 5 for `v5.channel.k8s.io`, 0 for the one without a version. Versions from 4 on
    /// report the end as a `Status`, from 3 on carry terminal sizes, 5 can close stdin over WebSocket.
    pub version: u8,
}

/// A request that can be upgraded.
#[derive(Debug, Clone)]
pub struct Handshake {
    /// What to speak after the upgrade.
    pub protocol: Protocol,
    /// Headers of the `101 Switching Protocols` answer.
    pub headers: HeaderMap,
}

/// Why a request cannot be upgraded.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct NegotiateError {
    /// HTTP status of the answer.
    pub status: StatusCode,
    /// Its text.
    pub message: String,
    /// Protocols that would have been accepted.
    pub accepted: Vec<&'static str>,
}

impl NegotiateError {
    /// Headers of the answer, which tell the client what would have been accepted.
    pub fn headers(&self) -> HeaderMap {
        let values = self.accepted.iter().map(|name| (ACCEPTED_VERSIONS, HeaderValue::from_static(name)));
        let mut headers = HeaderMap::new();
        for (name, value) in values {
            headers.append(name, value);
        }
        headers
    }
}

const SPDY: &str = "SPDY/3.1";
const STREAM_VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED_VERSIONS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");
const WS_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const WS_ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");
const WS_PROTOCOL: HeaderName = HeaderName::from_static("sec-websocket-protocol");
const WS_VERSION: HeaderName = HeaderName::from_static("sec-websocket-version");

type Offer = (&'static str, Protocol);

const fn offer(name: &'static str, wire: Wire, version: u8) -> Offer {
    (name, Protocol { wire, version })
}

/// In the server's order of preference, which decides over SPDY; over WebSocket the client's order does.
const EXEC_SPDY: &[Offer] = &[
    offer("v4.channel.k8s.io", Wire::Spdy, 4),
    offer("v3.channel.k8s.io", Wire::Spdy, 3),
    offer("v2.channel.k8s.io", Wire::Spdy, 2),
    offer("channel.k8s.io", Wire::Spdy, 1),
];
const EXEC_WS: &[Offer] = &[
    offer("v5.channel.k8s.io", Wire::WebSocket, 5),
    offer("v4.channel.k8s.io", Wire::WebSocket, 4),
    offer("v4.base64.channel.k8s.io", Wire::WebSocketBase64, 4),
    offer("channel.k8s.io", Wire::WebSocket, 0),
    offer("base64.channel.k8s.io", Wire::WebSocketBase64, 0),
];
const FORWARD_SPDY: &[Offer] = &[offer("portforward.k8s.io", Wire::Spdy, 1)];
const FORWARD_WS: &[Offer] = &[
    offer("SPDY/3.1+portforward.k8s.io", Wire::WebSocketTunnel, 1),
    offer("v4.channel.k8s.io", Wire::WebSocket, 4),
    offer("v4.base64.channel.k8s.io", Wire::WebSocketBase64, 4),
];

/// Chooses the protocol of an upgrade request.
///
/// # Errors
/// A request that is no upgrade, or offers only protocols that are not spoken here; the error carries the answer.
pub fn negotiate(endpoint: Endpoint, headers: &HeaderMap) -> Result<Handshake, NegotiateError> {
    if !tokens(headers, &CONNECTION).any(|t| t.eq_ignore_ascii_case("upgrade")) {
        return Err(bad_request("Upgrade request required: the Connection header does not say Upgrade"));
    }
    if tokens(headers, &UPGRADE).any(|t| t.eq_ignore_ascii_case("websocket")) {
        negotiate_websocket(endpoint, headers)
    } else if tokens(headers, &UPGRADE).any(|t| t.eq_ignore_ascii_case(SPDY)) {
        negotiate_spdy(endpoint, headers)
    } else {
        Err(bad_request("unable to upgrade: the Upgrade header names neither websocket nor SPDY/3.1"))
    }
}

fn negotiate_spdy(endpoint: Endpoint, headers: &HeaderMap) -> Result<Handshake, NegotiateError> {
    let offers = if endpoint == Endpoint::Exec { EXEC_SPDY } else { FORWARD_SPDY };
    let asked: Vec<&str> = tokens(headers, &STREAM_VERSION).collect();
    if asked.is_empty() {
        return Err(bad_request("unable to upgrade: X-Stream-Protocol-Version is required"));
    }
    let Some((name, protocol)) = offers.iter().find(|(name, _)| asked.contains(name)) else {
        return Err(mismatch(&asked, offers));
    };
    let mut answer = HeaderMap::new();
    answer.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(UPGRADE, HeaderValue::from_static(SPDY));
    answer.insert(STREAM_VERSION, HeaderValue::from_static(name));
    Ok(Handshake { protocol: *protocol, headers: answer })
}

fn negotiate_websocket(endpoint: Endpoint, headers: &HeaderMap) -> Result<Handshake, NegotiateError> {
    if headers.get(WS_VERSION).is_none_or(|v| v != "13") {
        return Err(bad_request("unable to upgrade: Sec-WebSocket-Version must be 13"));
    }
    let key =
        headers.get(WS_KEY).ok_or_else(|| bad_request("unable to upgrade: Sec-WebSocket-Key is required"))?;
    let accept =
        HeaderValue::from_str(&derive_accept_key(key.as_bytes())).expect("invariant: base64 is ASCII");
    let offers = if endpoint == Endpoint::Exec { EXEC_WS } else { FORWARD_WS };
    let asked: Vec<&str> = tokens(headers, &WS_PROTOCOL).collect();
    let mut answer = HeaderMap::new();
    answer.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(WS_ACCEPT, accept);
    if asked.is_empty() {
        // A browser's plain WebSocket: the channel protocol before it had versions.
        return Ok(Handshake { protocol: Protocol { wire: Wire::WebSocket, version: 0 }, headers: answer });
    }
    let found = asked.iter().find_map(|a| offers.iter().find(|(name, _)| name == a));
    let Some((name, protocol)) = found else { return Err(mismatch(&asked, offers)) };
    answer.insert(WS_PROTOCOL, HeaderValue::from_static(name));
    Ok(Handshake { protocol: *protocol, headers: answer })
}

/// The comma separated values of all header lines of one name.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).into_iter().filter_map(|v| v.to_str().ok());
    lines.flat_map(|v| v.split(',')).map(str::trim).filter(|t| !t.is_empty())
}

fn bad_request(message: &str) -> NegotiateError {
    NegotiateError { status: StatusCode::BAD_REQUEST, message: message.to_owned(), accepted: Vec::new() }
}

fn mismatch(asked: &[&str], offers: &[Offer]) -> NegotiateError {
    let names: Vec<&str> = offers.iter().map(|(name, _)| *name).collect();
    NegotiateError {
        status: StatusCode::FORBIDDEN,
        message: format!(
            "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
            asked.join(" "),
            names.join(" ")
        ),
        accepted: names,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        map
    }

    fn websocket(protocols: &'static str) -> HeaderMap {
        headers(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", protocols),
        ])
    }

    #[test]
    fn spdy_takes_the_highest_version() {
        let asked = headers(&[
            ("connection", "Upgrade"),
            ("upgrade", "SPDY/3.1"),
            ("x-stream-protocol-version", "channel.k8s.io"),
            ("x-stream-protocol-version", "v4.channel.k8s.io"),
        ]);
        let handshake = negotiate(Endpoint::Exec, &asked).unwrap();
        assert_eq!(handshake.protocol, Protocol { wire: Wire::Spdy, version: 4 });
        assert_eq!(handshake.headers["x-stream-protocol-version"], "v4.channel.k8s.io");
        assert_eq!(handshake.headers["upgrade"], "SPDY/3.1");
        let refused = negotiate(Endpoint::PortForward, &asked).unwrap_err();
        assert_eq!(refused.status, StatusCode::FORBIDDEN);
        assert_eq!(refused.headers()["x-accepted-stream-protocol-versions"], "portforward.k8s.io");
    }

    #[test]
    fn websocket_takes_the_first_that_is_known() {
        let handshake =
            negotiate(Endpoint::Exec, &websocket("v9.channel.k8s.io, v5.channel.k8s.io")).unwrap();
        assert_eq!(handshake.protocol, Protocol { wire: Wire::WebSocket, version: 5 });
        // The example of RFC 6455, section 1.3.
        assert_eq!(handshake.headers["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let tunnel = negotiate(Endpoint::PortForward, &websocket("SPDY/3.1+portforward.k8s.io")).unwrap();
        assert_eq!(tunnel.protocol.wire, Wire::WebSocketTunnel);
        assert!(negotiate(Endpoint::PortForward, &websocket("v5.channel.k8s.io")).is_err());
    }

    #[test]
    fn plain_requests_are_refused() {
        assert_eq!(negotiate(Endpoint::Exec, &HeaderMap::new()).unwrap_err().status, StatusCode::BAD_REQUEST);
        let no_version = headers(&[("connection", "Upgrade"), ("upgrade", "SPDY/3.1")]);
        assert!(negotiate(Endpoint::Exec, &no_version).unwrap_err().message.contains("is required"));
    }
}
