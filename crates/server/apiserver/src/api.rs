//! The state that all verbs share, and one request as they see it.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::HeaderMap;
use hyper::upgrade::OnUpgrade;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use xebec_auth::UserInfo;
use xebec_registry::{Context, SubresourceName};
use xebec_schema::defaults::TypeDefaults;
use xebec_store::{Store, StoreError};
use xebec_types::Status;

use crate::cache::{Cache, CacheError, Entry};
use crate::catalog::{Catalog, Target};
use crate::codec::SharedTransformer;
use crate::gate::Gate;
use crate::kubelet::KubeletDialer;
use crate::pages::Pages;
use crate::query::Query;
use crate::request::RequestInfo;
use crate::server::Tokens;

/// One request after the filters: who asks for what.
pub struct Call {
    /// What it is about.
    pub info: RequestInfo,
    /// Query parameters.
    pub query: Query,
    /// Headers.
    pub headers: HeaderMap,
    /// Who asks.
    pub user: UserInfo,
    /// The whole body.
    pub body: Bytes,
    /// One moment for the whole request.
    pub now: Timestamp,
    /// The connection itself, when the client wants to speak another protocol.
    pub upgrade: Mutex<Option<OnUpgrade>>,
}

/// What the verbs work on.
pub struct Api {
    /// The resources served.
    pub catalog: Catalog,
    /// All objects.
    pub cache: Arc<Cache>,
    /// Where writes go.
    pub store: Arc<dyn Store>,
    /// Between store and cache.
    pub transformer: SharedTransformer,
    /// Who may do what, and what is admitted.
    pub gate: Gate,
    /// Lists in progress.
    pub pages: Pages,
    /// Defaults of built-in types.
    pub defaults: Arc<TypeDefaults>,
    /// Service-account tokens.
    pub(crate) tokens: Tokens,
    /// How to reach kubelets.
    pub(crate) kubelets: Option<KubeletDialer>,
    /// Up to which revision CustomResourceDefinitions have become resources.
    pub(crate) definitions: watch::Sender<u64>,
    /// Ends all watches when the server stops.
    pub(crate) stopping: CancellationToken,
}

impl Api {
    /// The resource version a request names.
    ///
    /// # Errors
    /// 404.
    pub fn target(&self, info: &RequestInfo) -> Result<Target, Status> {
        let target = self
            .catalog
            .snapshot()
            .find(&info.group, &info.version, &info.resource)
            .ok_or_else(Status::no_such_resource)?;
        let namespaced = target.resource().namespaced();
        let itself = info.resource == "namespaces" && info.group.is_empty();
        // Collections of namespaced resources are also served across namespaces; objects never are.
        let reachable = match (namespaced, info.namespace.is_empty()) {
            (true, true) => info.name.is_empty(),
            (false, false) => itself,
            _ => true,
        };
        if reachable { Ok(target) } else { Err(Status::no_such_resource()) }
    }

    /// An object as it was after every write acknowledged before this call.
    ///
    /// # Errors
    /// 404, and the store's.
    pub async fn find(&self, target: &Target, namespace: &str, name: &str) -> Result<Arc<Entry>, Status> {
        self.cache.wait_fresh().await.map_err(cache_status)?;
        self.cached(target, namespace, name)
    }

    /// An object as the cache knows it.
    ///
    /// # Errors
    /// 404.
    pub fn cached(&self, target: &Target, namespace: &str, name: &str) -> Result<Arc<Entry>, Status> {
        let key = self.key(target, namespace, name);
        target.cache().get(&key).ok_or_else(|| Status::not_found(&target.group_resource(), name))
    }

    /// The key of an object.
    pub fn key(&self, target: &Target, namespace: &str, name: &str) -> String {
        let prefix = target.cache().prefix();
        match target.resource().namespaced() {
            true => format!("{prefix}{namespace}/{name}"),
            false => format!("{prefix}{name}"),
        }
    }

    /// What strategies may know of a request.
    pub fn context<'a>(&'a self, call: &'a Call, subresource: SubresourceName, dry_run: bool) -> Context<'a> {
        Context { now: call.now, user: &call.user.name, dry_run, subresource, objects: &*self.cache }
    }
}

impl Call {
    /// A request of the server itself.
    pub fn internal(now: Timestamp) -> Self {
        let groups = vec![xebec_auth::groups::MASTERS.to_owned()];
        let user = UserInfo { name: "system:apiserver".into(), groups, ..UserInfo::default() };
        Self {
            info: RequestInfo::default(),
            query: Query::default(),
            headers: HeaderMap::new(),
            user,
            body: Bytes::new(),
            now,
            upgrade: Mutex::new(None),
        }
    }

    /// Whether nothing shall be stored.
    ///
    /// # Errors
    /// 422 for other values of `dryRun` than `All`.
    pub fn dry_run(&self, body: &Value) -> Result<bool, Status> {
        let in_body =
            body.get("dryRun").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let mut any = false;
        for value in self.query.all("dryRun").chain(in_body) {
            if value != "All" {
                let message = format!("Unsupported value: [{value:?}]: supported values: \"All\"");
                let cause = xebec_types::Cause {
                    reason: "FieldValueNotSupported".into(),
                    message,
                    field: "dryRun".into(),
                };
                let kind = xebec_types::GroupKind::new("meta.k8s.io", "CreateOptions");
                return Err(Status::invalid(&kind, "", vec![cause]));
            }
            any = true;
        }
        Ok(any)
    }

    /// The media type of the body.
    pub fn content_type(&self) -> &str {
        crate::negotiate::content_type(&self.headers)
    }
}

/// A failure of the cache as clients see it.
pub fn cache_status(error: CacheError) -> Status {
    match error {
        CacheError::Store(error) => store_status(&error),
        CacheError::Behind { wanted, applied } => {
            // Client libraries look for this cause and list again.
            let cause = xebec_types::Cause {
                reason: "ResourceVersionTooLarge".into(),
                message: "Too large resource version".into(),
                field: String::new(),
            };
            let text = format!("Too large resource version: {wanted}, current: {applied}");
            let mut status = Status::timeout(text, 1);
            status.details.get_or_insert_default().causes.push(cause);
            status
        }
        CacheError::Stopped => Status::unavailable("the server is shutting down"),
    }
}

/// A failure of the store as clients see it. Conflicts are told by the verbs, which know the object.
pub fn store_status(error: &StoreError) -> Status {
    match error {
        StoreError::TooLarge { .. } => Status::too_large(error.to_string()),
        StoreError::Full { .. } | StoreError::Unavailable { .. } | StoreError::Closed => {
            tracing::error!(error = %chain(error), "store");
            Status::unavailable(error.to_string())
        }
        other => {
            tracing::error!(error = %chain(other), "store");
            Status::internal(other)
        }
    }
}

/// An error with its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
