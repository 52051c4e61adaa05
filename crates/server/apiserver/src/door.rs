//! The door for clients in the same process: the same pipeline, without sockets and TLS.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use tower::Service;
use xebec_auth::UserInfo;

use crate::body::{Body, BodyError};
use crate::filters::Peer;
use crate::server::Server;

/// A tower service that answers requests in the name of one user; authorization applies as everywhere.
///
/// `kube::Client::new(door, "default")` makes a client of it. Requests that upgrade (exec, attach,
/// port-forward) need a connection and are refused here.
#[derive(Clone)]
pub struct Door {
    server: Arc<Server>,
    user: Arc<UserInfo>,
}

impl Door {
    pub(crate) fn new(server: Arc<Server>, user: UserInfo) -> Self {
        Self { server, user: Arc::new(user) }
    }
}

impl<B> Service<Request<B>> for Door
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let server = self.server.clone();
        let peer = Peer::Known(self.user.clone());
        Box::pin(async move { Ok(server.handle(request, peer).await) })
    }
}
