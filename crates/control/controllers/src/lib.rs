//! The controllers of the cluster, one folder each.
//!
//! Every controller is a pure `plan` (a function from a snapshot of objects to what should be done, testable without a
//! cluster) and a thin reconciler that reads the shared [`Informers`], plans, and writes through the client.
//!
//! Adding a controller is one folder and a few lines in [`Controllers::run`].

mod clusterroles;
mod deployment;
mod endpoints;
mod expectations;
mod gc;
mod informers;
mod namespace;
mod node;
mod owners;
mod podgc;
mod pods;
mod replicaset;
mod resources;
mod rootca;
mod serviceaccount;
mod trim;

use std::sync::Arc;

use kube::Client;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use xebec_reconcile::{Queue, Reconciler};

pub use informers::Informers;
pub use node::{CidrError, ClusterCidr};
pub use xebec_reconcile::Recorder;

/// What the controllers need to know of the cluster.
#[derive(Debug, Clone)]
pub struct Config {
    /// Pod ranges that nodes get a share of, one per address family; empty leaves nodes alone.
    pub cluster_cidrs: Vec<ClusterCidr>,
    /// PEM certificates that pods verify the API server with.
    pub root_ca: String,
}

/// All controllers of the cluster.
pub struct Controllers {
    config: Config,
    informers: Informers,
    /// Makes a client for a controller: each acts as `system:serviceaccount:kube-system:<name>`.
    clients: Box<dyn Fn(&str) -> Client + Send + Sync>,
}

impl Controllers {
    /// Controllers on these informers. `clients` makes a client for the service account of that name in `kube-system`.
    pub fn new(
        config: Config,
        informers: Informers,
        clients: impl Fn(&str) -> Client + Send + Sync + 'static,
    ) -> Self {
        Self { config, informers, clients: Box::new(clients) }
    }

    /// Runs them until the token is cancelled. The informers must be run beside; work begins when they are in sync.
    pub async fn run(self, token: CancellationToken) {
        let Self { config, informers, clients } = self;
        let mut tasks = Tasks { set: JoinSet::new(), token: token.clone(), informers: informers.clone() };
        let client = |name: &str| clients(name);

        let c = client("deployment-controller");
        let recorder = tasks.recorder(&c, "deployment-controller");
        tasks.controller(deployment::Deployments::new(c, &informers, recorder), 5);

        let c = client("replicaset-controller");
        let recorder = tasks.recorder(&c, "replicaset-controller");
        tasks.controller(replicaset::ReplicaSets::new(c, &informers, recorder), 5);

        let endpoint_clients = endpoints::Clients {
            endpoints: client("endpoint-controller"),
            slices: client("endpointslice-controller"),
            mirror: client("endpointslicemirroring-controller"),
        };
        tasks.controller(endpoints::EndpointsController::new(endpoint_clients, &informers), 5);
        tasks.controller(namespace::Namespaces::new(client("namespace-controller"), &informers), 3);
        tasks.controller(
            serviceaccount::ServiceAccounts::new(client("service-account-controller"), &informers),
            1,
        );
        let root_ca = rootca::RootCa::new(client("root-ca-cert-publisher"), &informers, config.root_ca);
        tasks.controller(root_ca, 1);

        let c = client("node-controller");
        let recorder = tasks.recorder(&c, "node-controller");
        tasks.controller(node::Nodes::new(c, &informers, config.cluster_cidrs, recorder), 2);

        let (collector, queue, monitors) = gc::GarbageCollector::new(client("generic-garbage-collector"));
        tasks.set.spawn(monitors.run(token));
        tasks.controller((collector, queue), 5);
        let c = client("clusterrole-aggregation-controller");
        tasks.controller(clusterroles::Aggregation::new(c, &informers), 1);
        let c = client("pod-garbage-collector");
        tasks.controller(podgc::PodCollector::new(c, &informers, podgc::Limits::default()), 1);
        while tasks.set.join_next().await.is_some() {}
    }
}

struct Tasks {
    set: JoinSet<()>,
    token: CancellationToken,
    informers: Informers,
}

impl Tasks {
    fn controller<R: Reconciler>(&mut self, (reconciler, queue): (R, Queue<R::Key>), workers: usize) {
        let (token, informers) = (self.token.clone(), self.informers.clone());
        self.set.spawn(async move {
            if token.run_until_cancelled(informers.synced()).await == Some(true) {
                xebec_reconcile::run(Arc::new(reconciler), queue, workers, token).await;
            }
        });
    }

    fn recorder(&mut self, client: &Client, component: &'static str) -> Recorder {
        let (recorder, writer) = Recorder::new(client.clone(), component, self.token.clone());
        self.set.spawn(writer);
        recorder
    }
}

/// Whether the API refused to create something because its namespace is going away: trying again would only make
/// noise.
fn namespace_ends(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let causes = status.details.as_ref().map(|details| details.causes.as_slice()).unwrap_or_default();
    status.code == 403 && causes.iter().any(|cause| cause.reason == "NamespaceTerminating")
}

/// Treats the creation of something that every namespace has as success if the namespace goes away or is gone, or if
/// the object is there already.
fn tolerate_in_namespace<T>(created: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match created {
        Err(error) if namespace_ends(&error) => Ok(()),
        other => tolerate(other, &[404, 409]),
    }
}

/// Treats API errors with one of these codes as success: the object is gone, or somebody else was faster.
fn tolerate<T>(result: Result<T, kube::Error>, codes: &[u16]) -> Result<(), kube::Error> {
    match result {
        Err(kube::Error::Api(status)) if codes.contains(&status.code) => Ok(()),
        other => other.map(drop),
    }
}
