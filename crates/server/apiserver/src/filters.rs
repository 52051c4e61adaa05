//! What every request passes before its verb: counting, authentication, impersonation, authorization, limits.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::upgrade::OnUpgrade;
use jiff::Timestamp;
use xebec_auth::UserInfo;
use xebec_auth::authn::{ClientCertificate, Credentials, Impersonation};
use xebec_auth::authz::{Attributes, Target};
use xebec_types::Status;

use crate::api::{Call, chain};
use crate::body::{Body, BodyError};
use crate::query::Query;
use crate::reply::{self, Reply};
use crate::request::RequestInfo;
use crate::server::Server;
use crate::{compress, meta, paths, wire};

/// The largest body of a request, in bytes; upstream's limit.
const MAX_BODY: usize = 3 << 20;
/// How long a request may take that is no watch or stream.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How many requests may be in flight that are no watches or streams: upstream's reads and writes together.
const MAX_IN_FLIGHT: i64 = 600;
static AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// Where a request comes from.
#[derive(Clone)]
pub enum Peer {
    /// From within the process, with an identity that is already known.
    Known(Arc<UserInfo>),
    /// From a connection, with the client certificate that the handshake has verified.
    Remote {
        /// The certificate.
        certificate: Option<Arc<ClientCertificate>>,
    },
}

impl Server {
    /// Answers a request; whatever goes wrong becomes an answer, too.
    pub async fn handle<B>(self: Arc<Self>, request: Request<B>, peer: Peer) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        let started = Instant::now();
        let (mut parts, body) = request.into_parts();
        let query = Query::parse(parts.uri.query().unwrap_or(""));
        let info = RequestInfo::parse(&parts.method, parts.uri.path(), &query);
        let audit_id = audit_id(&parts);
        let protobuf = wire::wanted(&self.api, &info, &mut parts.headers);
        let summary = info.clone();
        let answer = AssertUnwindSafe(self.limited(parts, query, info, body, &peer)).catch_unwind();
        let reply = match answer.await {
            Ok(reply) => reply,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown");
                tracing::error!(path = %summary.path, panic = text, "a request panicked");
                Err(Status::new(
                    500,
                    "InternalError",
                    "This request caused apiserver to panic. Look in the logs for details.",
                ))
            }
        };
        let mut response = reply.unwrap_or_else(|status| reply::status(&status));
        if protobuf {
            response = wire::answer(response);
        }
        response.headers_mut().insert(AUDIT_ID.clone(), audit_id);
        let known = self.api.target(&summary).is_ok();
        self.metrics.count(&summary, known, response.status().as_u16(), started.elapsed());
        response
    }

    async fn limited<B>(
        self: &Arc<Self>,
        parts: Parts,
        query: Query,
        info: RequestInfo,
        body: B,
        peer: &Peer,
    ) -> Reply
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        if info.long_running() {
            return self.admit(parts, query, info, body, peer).await;
        }
        let _guard = InFlight::enter(self)?;
        let gzip = compress::accepts(&parts.headers);
        let answer = self.admit(parts, query, info, body, peer);
        let reply = tokio::time::timeout(TIMEOUT, answer).await;
        let response =
            reply.unwrap_or_else(|_| Err(Status::timeout("request did not complete within 60s", 0)))?;
        if gzip { Ok(compress::large(response).await) } else { Ok(response) }
    }

    async fn admit<B>(
        self: &Arc<Self>,
        mut parts: Parts,
        query: Query,
        info: RequestInfo,
        body: B,
        peer: &Peer,
    ) -> Reply
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        let now = Timestamp::now();
        let user = self.authenticate(&parts, peer, now)?;
        let user = self.impersonate(&mut parts, user)?;
        self.api.gate.authorize(&user, &info)?;
        let body = wire::request(&parts.method, &info, &mut parts.headers, read(body).await?)?;
        let upgrade = Mutex::new(parts.extensions.remove::<OnUpgrade>());
        let call = Call { info, query, headers: parts.headers, user, body, now, upgrade };
        let reply = match parts.method {
            method if call.info.is_resource => self.api.dispatch(&call, &method).await,
            Method::GET | Method::HEAD => paths::answer(self, &call),
            _ => Err(Status::method_not_allowed()),
        };
        match reply {
            Err(status) if status == Status::no_such_resource() => paths::nowhere(self, &call.info.path),
            reply => reply,
        }
    }

    fn authenticate(&self, parts: &Parts, peer: &Peer, now: Timestamp) -> Result<UserInfo, Status> {
        let certificate = match peer {
            Peer::Known(user) => return Ok((**user).clone()),
            Peer::Remote { certificate } => certificate,
        };
        let authorization = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let credentials = Credentials { certificate: certificate.as_deref(), authorization };
        self.api.gate.authenticators.authenticate(&credentials, now).map_err(|error| {
            tracing::debug!(error = %chain(&error), "unable to authenticate a request");
            Status::unauthorized()
        })
    }

    fn impersonate(&self, parts: &mut Parts, user: UserInfo) -> Result<UserInfo, Status> {
        let wanted = Impersonation::from_headers(&parts.headers)
            .map_err(|error| Status::bad_request(error.to_string()))?;
        let Some(Impersonation { user: wanted, checks }) = wanted else { return Ok(user) };
        for check in &checks {
            let target = Target::Resource {
                group: check.group,
                resource: check.resource,
                subresource: &check.subresource,
                namespace: &check.namespace,
                name: &check.name,
            };
            self.api.gate.check(&Attributes { user: &user, verb: "impersonate", target })?;
        }
        Impersonation::strip(&mut parts.headers);
        Ok(wanted)
    }
}

/// The client's own audit id, or a new one.
fn audit_id(parts: &Parts) -> HeaderValue {
    let given = parts.headers.get(&AUDIT_ID).filter(|id| id.len() <= 64).cloned();
    given.unwrap_or_else(|| {
        HeaderValue::from_str(&meta::new_uid()).unwrap_or_else(|_| HeaderValue::from_static(""))
    })
}

/// Reads a whole body.
async fn read<B>(body: B) -> Result<Bytes, Status>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(Status::too_large(format!("Request entity too large: limit is {MAX_BODY}")))
        }
        Err(error) => Err(Status::bad_request(format!("the body cannot be read: {error}"))),
    }
}

struct InFlight(Arc<Server>);

impl InFlight {
    fn enter(server: &Arc<Server>) -> Result<Self, Status> {
        server.metrics.in_flight.add(1);
        let guard = Self(server.clone());
        if server.metrics.in_flight.get() > MAX_IN_FLIGHT {
            return Err(Status::too_many_requests("Too many requests, please try again later.", 1));
        }
        Ok(guard)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.metrics.in_flight.add(-1);
    }
}
