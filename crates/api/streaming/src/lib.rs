//! The wire protocols of `kubectl exec`, `attach` and `port-forward`, server side and client side.
//!
//! A request is first negotiated from its headers ([`negotiate()`]); the caller answers `101 Switching Protocols` with
//! the headers of the [`Handshake`] and hands the upgraded connection to [`exec::serve`] or [`portforward::serve`].
//! Both speak every protocol a Kubernetes client may bring: WebSocket channels (`v5.channel.k8s.io` and older),
//! SPDY/3.1, and SPDY inside WebSocket messages (KEP-4006). What comes out are plain byte streams that know nothing
//! of the wire.
//!
//! Nothing here depends on hyper: any `AsyncRead + AsyncWrite` will do.

mod channels;
pub mod client;
pub mod exec;
mod negotiate;
pub mod portforward;
pub mod spdy;
mod status;
mod streams;
mod tunnel;

pub use negotiate::{Endpoint, Handshake, NegotiateError, Protocol, Wire, negotiate};
pub use status::{Outcome, exit_code, outcome_from_status};
pub use streams::{ReadStream, StreamError, TerminalSize, WriteStream};

use tokio::io::{AsyncRead, AsyncWrite};

/// A connection after its upgrade.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}
