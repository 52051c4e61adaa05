//! What a request is about, read from its method and path as upstream's `RequestInfo` does.

use http::Method;

use crate::query::{Query, percent_decode};

/// What a request is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// Whether the path names a resource; otherwise only `verb` and `path` count.
    pub is_resource: bool,
    /// The path.
    pub path: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; for other paths the
    /// method in lower case.
    pub verb: &'static str,
    /// API group, empty for core.
    pub group: String,
    /// API version.
    pub version: String,
    /// Namespace; empty for none.
    pub namespace: String,
    /// Plural name.
    pub resource: String,
    /// Subresource; empty for none.
    pub subresource: String,
    /// Object name; empty for collections.
    pub name: String,
    /// What follows the subresource, without the slash before it (`services/x/proxy/REST`).
    pub rest: String,
}

impl RequestInfo {
    /// Reads method, path and query.
    pub fn parse(method: &Method, path: &str, query: &Query) -> Self {
        let mut info = Self { path: path.into(), verb: method_verb(method), ..Self::default() };
        let mut segments: Vec<String> =
            path.split('/').filter(|s| !s.is_empty()).map(|s| percent_decode(s, false)).collect();
        let skip = match segments.first().map(String::as_str) {
            Some("api") if segments.len() >= 3 => 1,
            Some("apis") if segments.len() >= 4 => {
                info.group = std::mem::take(&mut segments[1]);
                2
            }
            _ => return info,
        };
        info.version = std::mem::take(&mut segments[skip]);
        info.is_resource = true;
        let mut parts = segments.into_iter().skip(skip + 1).peekable();
        let mut watch = query.flag("watch");
        // The old form /api/v1/watch/…, still in use by some clients.
        if parts.peek().is_some_and(|part| part == "watch") {
            parts.next();
            watch = true;
        }
        info.read_parts(parts.collect());
        info.verb = match *method {
            Method::POST => "create",
            Method::GET | Method::HEAD => read_verb(&info, watch, query),
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if info.name.is_empty() => "deletecollection",
            Method::DELETE => "delete",
            _ => "",
        };
        info
    }

    fn read_parts(&mut self, parts: Vec<String>) {
        let mut parts = parts.into_iter().peekable();
        let Some(first) = parts.next() else {
            self.is_resource = false;
            return;
        };
        if first == "namespaces" && parts.peek().is_some() {
            self.namespace = parts.next().unwrap_or_default();
            match parts.peek().map(String::as_str) {
                // The namespace itself, or its own subresources.
                None | Some("status" | "finalize") => {
                    self.resource = first;
                    self.name = self.namespace.clone();
                }
                Some(_) => {
                    self.resource = parts.next().unwrap_or_default();
                    self.name = parts.next().unwrap_or_default();
                }
            }
        } else {
            self.resource = first;
            self.name = parts.next().unwrap_or_default();
        }
        self.subresource = parts.next().unwrap_or_default();
        self.rest = parts.collect::<Vec<_>>().join("/");
    }

    /// Whether the answer may take as long as it likes.
    pub fn long_running(&self) -> bool {
        self.verb == "watch"
            || matches!(self.subresource.as_str(), "log" | "exec" | "attach" | "portforward" | "proxy")
    }

    /// `namespace`, `cluster` or `resource`, the label of request metrics.
    pub fn scope(&self) -> &'static str {
        match (self.is_resource, self.name.is_empty(), self.namespace.is_empty()) {
            (false, ..) => "",
            (_, false, _) => "resource",
            (.., false) => "namespace",
            _ => "cluster",
        }
    }
}

fn read_verb(info: &RequestInfo, watch: bool, query: &Query) -> &'static str {
    match (info.name.is_empty(), watch) {
        (true, true) => "watch",
        (true, false) => "list",
        // A watch of one object by path, deprecated upstream, is a watch of a collection that is selected by name.
        (false, true) if info.subresource.is_empty() && query.flag("watch") => "watch",
        (false, _) => "get",
    }
}

fn method_verb(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::HEAD => "head",
        Method::OPTIONS => "options",
        _ => "",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn shown(method: &str, uri: &str) -> String {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let method = method.parse().unwrap();
        let i = RequestInfo::parse(&method, path, &Query::parse(query));
        format!(
            "{} {}/{}/{} ns={} {}/{} {}",
            i.verb, i.group, i.version, i.resource, i.namespace, i.name, i.subresource, i.rest
        )
    }

    #[test]
    fn paths_become_attributes() {
        for (method, uri, wanted) in [
            ("GET", "/api/v1/namespaces/a/pods/b/log", "get /v1/pods ns=a b/log "),
            ("GET", "/api/v1/namespaces/a", "get /v1/namespaces ns=a a/ "),
            ("PUT", "/api/v1/namespaces/a/finalize", "update /v1/namespaces ns=a a/finalize "),
            ("GET", "/api/v1/namespaces", "list /v1/namespaces ns= / "),
            ("GET", "/apis/apps/v1/deployments?watch=true", "watch apps/v1/deployments ns= / "),
            ("GET", "/api/v1/watch/namespaces/a/pods", "watch /v1/pods ns=a / "),
            ("DELETE", "/api/v1/namespaces/a/pods", "deletecollection /v1/pods ns=a / "),
            ("POST", "/api/v1/namespaces/a/services/s/proxy/x/y", "create /v1/services ns=a s/proxy x/y"),
            (
                "GET",
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
                "get rbac.authorization.k8s.io/v1/clusterroles ns= system:node/ ",
            ),
            ("GET", "/healthz", "get // ns= / "),
            ("GET", "/apis/apps/v1", "get // ns= / "),
        ] {
            assert_eq!(shown(method, uri), wanted, "{uri}");
        }
    }
}
