//! The informers that the controllers share, and the indexes over them.

use std::borrow::Cow;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Namespace, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use xebec_reconcile::{ByController, Index, Informer};

use crate::resources::Definition;
use crate::{endpoints, trim};

/// One informer per kind that more than one controller looks at.
#[derive(Clone)]
pub struct Informers {
    /// Pods, without what `trim::pod` takes from them.
    pub pods: Informer<Pod>,
    /// ReplicaSets.
    pub replica_sets: Informer<ReplicaSet>,
    /// Deployments.
    pub deployments: Informer<Deployment>,
    /// Services.
    pub services: Informer<Service>,
    /// Endpoints.
    pub endpoints: Informer<Endpoints>,
    /// EndpointSlices.
    pub endpoint_slices: Informer<EndpointSlice>,
    /// Namespaces.
    pub namespaces: Informer<Namespace>,
    /// ServiceAccounts.
    pub service_accounts: Informer<ServiceAccount>,
    /// The `kube-root-ca.crt` config map of every namespace.
    pub root_ca: Informer<ConfigMap>,
    /// Nodes.
    pub nodes: Informer<Node>,
    /// ClusterRoles.
    pub cluster_roles: Informer<ClusterRole>,
    /// Leases of `kube-node-lease`.
    pub leases: Informer<Lease>,
    /// CustomResourceDefinitions, of which only the metadata is fetched.
    pub definitions: Informer<Definition>,
    /// Pods by controller.
    pub pods_by_controller: ByController<Pod>,
    /// Pods by the node that they are bound to.
    pub pods_by_node: Index<Pod>,
    /// ReplicaSets by controller.
    pub replica_sets_by_controller: ByController<ReplicaSet>,
    /// EndpointSlices by Service, as `service_index` writes it.
    pub endpoint_slices_by_service: Index<EndpointSlice>,
}

impl Default for Informers {
    fn default() -> Self {
        Self::new()
    }
}

impl Informers {
    /// Empty informers; controllers add their handlers before [`Informers::run`].
    pub fn new() -> Self {
        let pods = Informer::trimmed(trim::pod);
        let (replica_sets, endpoint_slices) = (Informer::new(), Informer::new());
        Self {
            pods_by_controller: ByController::of(&pods),
            pods_by_node: pods.index(node_of),
            replica_sets_by_controller: ByController::of(&replica_sets),
            endpoint_slices_by_service: endpoint_slices.index(service_of),
            pods,
            replica_sets,
            deployments: Informer::new(),
            services: Informer::new(),
            endpoints: Informer::new(),
            endpoint_slices,
            namespaces: Informer::new(),
            service_accounts: Informer::new(),
            root_ca: Informer::new(),
            nodes: Informer::new(),
            cluster_roles: Informer::new(),
            leases: Informer::new(),
            definitions: Informer::new(),
        }
    }

    /// Follows all of them until the token is cancelled.
    pub async fn run(self, client: Client, token: CancellationToken) {
        let mut tasks = JoinSet::new();
        let plain = watcher::Config::default;
        let t = || token.clone();
        tasks.spawn(self.pods.run(Api::all(client.clone()), plain(), t()));
        tasks.spawn(self.replica_sets.run(Api::all(client.clone()), plain(), t()));
        tasks.spawn(self.deployments.run(Api::all(client.clone()), plain(), t()));
        tasks.spawn(self.services.run(Api::all(client.clone()), plain(), t()));
        tasks.spawn(self.endpoints.run(Api::all(client.clone()), plain(), t()));
        tasks.spawn(self.endpoint_slices.run(Api::all(client.clone()), plain(), t()));
        tasks.spawn(self.namespaces.run(Api::all(client.clone()), plain(), t()));
        tasks.spawn(self.service_accounts.run(Api::all(client.clone()), plain(), t()));
        let root_ca = plain().fields("metadata.name=kube-root-ca.crt");
        tasks.spawn(self.root_ca.run(Api::all(client.clone()), root_ca, t()));
        tasks.spawn(self.nodes.run(Api::all(client.clone()), plain(), t()));
        tasks.spawn(self.cluster_roles.run(Api::all(client.clone()), plain(), t()));
        tasks.spawn(self.definitions.run(Api::all(client.clone()), plain(), t()));
        tasks.spawn(self.leases.run(Api::namespaced(client, "kube-node-lease"), plain(), t()));
        while tasks.join_next().await.is_some() {}
    }

    /// Waits until every first list is in memory. `false`: an informer has ended.
    pub async fn synced(&self) -> bool {
        self.pods.synced().await
            && self.replica_sets.synced().await
            && self.deployments.synced().await
            && self.services.synced().await
            && self.endpoints.synced().await
            && self.endpoint_slices.synced().await
            && self.namespaces.synced().await
            && self.service_accounts.synced().await
            && self.root_ca.synced().await
            && self.nodes.synced().await
            && self.cluster_roles.synced().await
            && self.leases.synced().await
            && self.definitions.synced().await
    }
}

/// The value of [`Informers::endpoint_slices_by_service`] for a Service.
pub fn service_index(namespace: &str, service: &str) -> String {
    format!("{namespace}/{service}")
}

fn service_of(slice: &EndpointSlice) -> Option<Cow<'_, str>> {
    let service = slice.labels().get(endpoints::SERVICE_NAME)?;
    Some(service_index(slice.metadata.namespace.as_deref()?, service).into())
}

fn node_of(pod: &Pod) -> Option<Cow<'_, str>> {
    pod.spec.as_ref()?.node_name.as_deref().map(Cow::Borrowed)
}
