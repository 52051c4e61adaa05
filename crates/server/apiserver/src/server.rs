//! The server as a whole: what it is made of, how it starts and stops.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use xebec_admission::Chain;
use xebec_auth::UserInfo;
use xebec_auth::authn::jws::{PublicKey, SigningKey};
use xebec_auth::authn::{
    Authenticator, Authenticators, ClientCertificates, ServiceAccountTokens, TokenVerifier,
};
use xebec_auth::authz::RbacIndex;
use xebec_lifecycle::{Readiness, ReadyHandle};
use xebec_registry::Resource;
use xebec_schema::TypeDefaults;
use xebec_store::Store;

use crate::api::Api;
use crate::cache::{Cache, CacheError, Feed};
use crate::catalog::{Catalog, Served};
use crate::codec::SharedTransformer;
use crate::door::Door;
use crate::gate::Gate;
use crate::health::Health;
use crate::kubelet::KubeletDialer;
use crate::live::CachedObjects;
use crate::metrics::Metrics;
use crate::pages::Pages;
use crate::{openapi, rbac};

/// What a server is made of.
pub struct Config {
    /// The built-in resources.
    pub resources: Vec<Resource>,
    /// Defaults of built-in types.
    pub defaults: Arc<TypeDefaults>,
    /// Between store and cache.
    pub transformer: SharedTransformer,
    /// What is admitted.
    pub admission: Chain,
    /// Service-account tokens.
    pub tokens: TokenConfig,
    /// Where clients reach the server, as discovery and the `kubernetes` Service tell it.
    pub advertise: SocketAddr,
    /// The address of the `kubernetes` Service: the first of the service range. Without one the Service is not made.
    pub service_address: Option<std::net::IpAddr>,
    /// How to reach kubelets; without it logs, exec, attach and port-forward are refused.
    pub kubelets: Option<KubeletDialer>,
}

/// Who signs service-account tokens, and which are taken.
pub struct TokenConfig {
    /// The issuer's URL.
    pub issuer: String,
    /// Whom tokens are for when nobody says otherwise; tokens for others do not authenticate.
    pub audiences: Vec<String>,
    /// Signs.
    pub signing_key: Arc<SigningKey>,
    /// Verify.
    pub keys: Vec<PublicKey>,
}

/// Service-account tokens as the verbs use them.
pub(crate) struct Tokens {
    pub issuer: ServiceAccountTokens,
    pub verifier: Arc<TokenVerifier>,
    pub audiences: Vec<String>,
    pub url: String,
    pub keys: Vec<PublicKey>,
}

/// All that answers requests.
pub struct Server {
    pub(crate) api: Arc<Api>,
    pub(crate) metrics: Metrics,
    pub(crate) health: Health,
    pub(crate) openapi: openapi::Documents,
    advertise: SocketAddr,
}

/// An API server. Cloning is cheap.
#[derive(Clone)]
pub struct ApiServer {
    server: Arc<Server>,
    ready: Readiness,
    service_address: Option<std::net::IpAddr>,
}

/// The tasks of a server, before they are started.
pub struct Tasks {
    feed: Feed,
    loaded: ReadyHandle,
    ready: ReadyHandle,
    server: ApiServer,
}

/// Why a server ended.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The watch cache cannot go on.
    #[error("API server")]
    Cache(#[from] CacheError),
    /// The objects every cluster starts with cannot be made.
    #[error("API server: bootstrap: {0}")]
    Bootstrap(#[from] crate::bootstrap::BootstrapError),
    /// Connections can no longer be accepted.
    #[error("API server: accept")]
    Accept(#[source] std::io::Error),
}

impl ApiServer {
    /// Puts a server together. It answers once its [`Tasks`] run.
    pub fn new(config: Config, store: Arc<dyn Store>) -> (Self, Tasks) {
        let (cache, feed) = Cache::new(store.clone(), config.transformer.clone());
        let index = Arc::new(RbacIndex::new());
        let catalog = Catalog::default();
        for resource in config.resources {
            let resource = Arc::new(resource);
            let (objects, _) = cache.add(&resource, rbac::observer(&resource, &index));
            catalog.put(Served { resource, cache: objects, custom: false });
        }
        let tokens = config.tokens;
        let live = Arc::new(CachedObjects(cache.clone()));
        let verifier =
            Arc::new(TokenVerifier::new(&tokens.issuer, &tokens.audiences, tokens.keys.clone(), live));
        let chain: Vec<Box<dyn Authenticator>> =
            vec![Box::new(ClientCertificates), Box::new(SharedVerifier(verifier.clone()))];
        let gate = Gate {
            authenticators: Authenticators::new(chain, true),
            authorizer: index.clone(),
            rbac: index,
            admission: config.admission,
        };
        let tokens = Tokens {
            issuer: ServiceAccountTokens::new(&tokens.issuer, &tokens.audiences, tokens.signing_key),
            verifier,
            audiences: tokens.audiences,
            url: tokens.issuer,
            keys: tokens.keys,
        };
        let api = Api {
            catalog,
            cache,
            store,
            transformer: config.transformer,
            gate,
            pages: Pages::default(),
            defaults: config.defaults,
            tokens,
            kubelets: config.kubelets,
            definitions: watch::Sender::new(0),
            stopping: CancellationToken::new(),
        };
        Self::assemble(api, feed, config.advertise, config.service_address)
    }

    fn assemble(
        api: Api,
        feed: Feed,
        advertise: SocketAddr,
        service_address: Option<std::net::IpAddr>,
    ) -> (Self, Tasks) {
        let (loaded, loaded_readiness) = Readiness::new();
        let (ready_handle, ready) = Readiness::new();
        let health = Health::default();
        health.wait_for("informer-sync", loaded_readiness);
        health.wait_for("poststarthook/bootstrap", ready.clone());
        let server = Server {
            api: Arc::new(api),
            metrics: Metrics::default(),
            health,
            openapi: openapi::Documents::default(),
            advertise,
        };
        let this = Self { server: Arc::new(server), ready, service_address };
        let tasks = Tasks { feed, loaded, ready: ready_handle, server: this.clone() };
        (this, tasks)
    }

    /// A door for a client in this process that acts as `user`.
    pub fn service(&self, user: UserInfo) -> Door {
        Door::new(self.server.clone(), user)
    }

    /// Tells when the server has loaded everything and the objects every cluster starts with are there.
    pub fn ready(&self) -> Readiness {
        self.ready.clone()
    }

    pub(crate) fn server(&self) -> &Arc<Server> {
        &self.server
    }
}

impl Server {
    pub(crate) fn address(&self) -> String {
        self.advertise.to_string()
    }

    /// Ends watches and says that no more requests should come.
    pub(crate) fn stop(&self) {
        self.health.stop();
        self.api.stopping.cancel();
    }

    /// The two documents with which others check service-account tokens.
    pub(crate) fn oidc(&self, which: &str) -> crate::reply::Reply {
        use xebec_auth::authn::jws;
        let tokens = &self.api.tokens;
        let document = match which {
            "openid" => serde_json::to_vec(&jws::jwks(&tokens.keys)),
            _ => {
                let keys = format!("https://{}/openid/v1/jwks", self.advertise);
                serde_json::to_vec(&jws::discovery(&tokens.url, &keys))
            }
        };
        Ok(crate::reply::json(200, document.map_err(xebec_types::Status::internal)?))
    }
}

impl Tasks {
    /// Loads the store, makes what every cluster starts with, and keeps everything going until `cancel`.
    ///
    /// # Errors
    /// What makes the server unable to go on.
    pub async fn run(self, cancel: CancellationToken) -> Result<(), ServerError> {
        let Self { feed, loaded, ready, server } = self;
        let (signal, wait) = tokio::sync::oneshot::channel();
        let feeding = feed.run(cancel.clone(), move || {
            loaded.ready();
            // Nobody waits any more when the server is being stopped.
            let _ = signal.send(());
        });
        let api = server.server.api.clone();
        let advertise = server.server.advertise;
        let working = async {
            if wait.await.is_err() {
                return Ok(());
            }
            crate::crd::load(&api).await?;
            crate::bootstrap::run(&server, advertise, server.service_address).await?;
            ready.ready();
            crate::crd::run(&api, cancel.clone()).await;
            Ok::<(), ServerError>(())
        };
        let stopping = async {
            cancel.cancelled().await;
            server.server.stop();
        };
        tokio::pin!(feeding, working);
        tokio::select! {
            fed = &mut feeding => fed.map_err(ServerError::from),
            worked = &mut working => match worked {
                Ok(()) => feeding.await.map_err(ServerError::from),
                Err(error) => Err(error),
            },
            () = stopping => Ok(()),
        }
    }
}

struct SharedVerifier(Arc<TokenVerifier>);

impl Authenticator for SharedVerifier {
    fn authenticate(
        &self,
        credentials: &xebec_auth::authn::Credentials<'_>,
        now: jiff::Timestamp,
    ) -> Result<Option<UserInfo>, xebec_auth::authn::AuthnError> {
        self.0.authenticate(credentials, now)
    }
}
