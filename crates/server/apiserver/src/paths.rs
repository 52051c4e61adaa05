//! Paths that are no resources: health, version, metrics, discovery, OpenAPI.

use std::sync::Arc;

use serde_json::{Value, json};
use xebec_types::Status;

use crate::api::Call;
use crate::reply::{self, Reply};
use crate::server::Server;
use crate::{discovery, openapi};

/// Answers a GET of such a path.
///
/// # Errors
/// 404.
pub fn answer(server: &Arc<Server>, call: &Call) -> Reply {
    let path = call.info.path.trim_end_matches('/');
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    match segments.as_slice() {
        [] => Ok(reply::value(200, &root(server))),
        ["healthz" | "livez" | "readyz", rest @ ..] => server.health.answer(segments[0], rest, &call.query),
        ["version"] => Ok(reply::value(200, &version())),
        ["metrics"] => Ok(reply::text(200, server.metrics.write())),
        ["api" | "apis", ..] => discovery::answer(server, call, &segments),
        ["openapi", rest @ ..] => openapi::answer(server, call, rest),
        [".well-known", "openid-configuration"] | ["openid", "v1", "jwks"] => server.oidc(segments[0]),
        _ => Err(Status::no_such_resource()),
    }
}

/// What a request for nothing that exists is told: a `Status` below what the server knows, and elsewhere, as upstream,
/// the text that no part of the server claimed the path.
pub fn nowhere(server: &Server, path: &str) -> Reply {
    let mut segments = path.split('/').filter(|segment| !segment.is_empty());
    let known = match segments.next() {
        Some("api" | "version") => true,
        Some("apis") => segments.next().is_none_or(|group| server.api.catalog.snapshot().has_group(group)),
        _ => false,
    };
    if known { Err(Status::no_such_resource()) } else { Ok(reply::text(404, "404 page not found\n")) }
}

/// What `kubectl version` shows.
pub fn version() -> Value {
    json!({
        "major": "1",
        "minor": "36",
        "gitVersion": xebec_types::KUBERNETES_VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("linux/{}", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }),
    })
}

fn root(server: &Server) -> Value {
    let mut paths = vec!["/api".to_owned(), "/api/v1".into(), "/apis".into()];
    for (group, versions) in discovery::groups(&server.api.catalog.snapshot()) {
        paths.push(format!("/apis/{group}"));
        paths.extend(versions.iter().map(|version| format!("/apis/{group}/{version}")));
    }
    for path in ["/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"] {
        paths.push(path.into());
    }
    json!({ "paths": paths })
}
