//! Endpoints, EndpointSlices and the mirroring of hand-written Endpoints: which pods stand behind a Service.

mod backends;
mod legacy;
mod mirror;
mod slices;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client, ResourceExt};
use xebec_reconcile::{Change, Index, Informer, Key, Queue, Reconciler, Requeue};

use crate::informers::service_index;
use crate::{Informers, pods};

/// Label that ties a slice to its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Label that tells who keeps a slice.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const SLICE_CONTROLLER: &str = "endpointslice-controller.k8s.io";
const MIRROR_CONTROLLER: &str = "endpointslicemirroring-controller.k8s.io";
/// Label of slices and Endpoints of Services without an address.
const HEADLESS: &str = "service.kubernetes.io/headless";

/// The clients of the three controllers that upstream makes of this one, so that each write has its own role.
pub struct Clients {
    /// `endpoint-controller`.
    pub endpoints: Client,
    /// `endpointslice-controller`.
    pub slices: Client,
    /// `endpointslicemirroring-controller`.
    pub mirror: Client,
}

/// The controller.
pub struct EndpointsController {
    clients: Clients,
    services: Informer<Service>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    endpoints: Informer<Endpoints>,
    slices: Informer<EndpointSlice>,
    slices_by_service: Index<EndpointSlice>,
}

impl EndpointsController {
    /// A controller whose queue is fed by these informers.
    pub fn new(clients: Clients, informers: &Informers) -> (Self, Queue<Key>) {
        let queue = Queue::new();
        let q = queue.clone();
        informers.services.on_change(move |change| q.add(Key::of(change.object().as_ref())));
        let q = queue.clone();
        informers.endpoints.on_change(move |change| q.add(Key::of(change.object().as_ref())));
        let q = queue.clone();
        informers.endpoint_slices.on_change(move |change| {
            let slice = change.object();
            if let Some(service) = slice.labels().get(SERVICE_NAME) {
                q.add(Key::new(slice.namespace().unwrap_or_default(), service));
            }
        });
        let (q, services) = (queue.clone(), informers.services.clone());
        informers.pods.on_change(move |change| pod_changed(change, &services, &q));
        let controller = Self {
            clients,
            services: informers.services.clone(),
            pods: informers.pods.clone(),
            nodes: informers.nodes.clone(),
            endpoints: informers.endpoints.clone(),
            slices: informers.endpoint_slices.clone(),
            slices_by_service: informers.endpoint_slices_by_service.clone(),
        };
        (controller, queue)
    }

    fn slices_of(&self, key: &Key, managed_by: &str) -> Vec<Arc<EndpointSlice>> {
        let mut slices = self.slices_by_service.get(&service_index(&key.namespace, &key.name));
        slices.retain(|slice| slice.labels().get(MANAGED_BY).map(String::as_str) == Some(managed_by));
        slices
    }

    async fn apply_slices(&self, client: &Client, key: &Key, plan: slices::Plan) -> Result<(), kube::Error> {
        let api: Api<EndpointSlice> = Api::namespaced(client.clone(), &key.namespace);
        for slice in plan.update {
            let written = api.replace(&slice.name_any(), &PostParams::default(), &slice).await?;
            self.slices.written(written);
        }
        for slice in plan.create {
            let written = api.create(&PostParams::default(), &slice).await?;
            self.slices.written(written);
        }
        for name in plan.delete {
            match api.delete(&name, &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                other => drop(other?),
            }
        }
        Ok(())
    }

    async fn apply_endpoints(&self, key: &Key, wanted: Endpoints) -> Result<(), kube::Error> {
        let api: Api<Endpoints> = Api::namespaced(self.clients.endpoints.clone(), &key.namespace);
        match self.endpoints.get(key) {
            None => api.create(&PostParams::default(), &wanted).await.map(drop),
            Some(existing) => match legacy::updated(&existing, &wanted) {
                None => Ok(()),
                Some(changed) => api.replace(&key.name, &PostParams::default(), &changed).await.map(drop),
            },
        }
    }

    async fn remove_endpoints(&self, key: &Key) -> Result<(), kube::Error> {
        let ours = self.endpoints.get(key).is_some_and(|e| legacy::is_ours(&e));
        if !ours {
            return Ok(());
        }
        let api: Api<Endpoints> = Api::namespaced(self.clients.endpoints.clone(), &key.namespace);
        match api.delete(&key.name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            other => other.map(drop),
        }
    }

    async fn selected(
        &self,
        key: &Key,
        service: &Service,
        selector: &BTreeMap<String, String>,
    ) -> Result<(), kube::Error> {
        let pods = self.pods.in_namespace(&key.namespace, |pod| {
            selector.iter().all(|(k, v)| pod.labels().get(k) == Some(v)) && !pods::is_terminal(pod)
        });
        let zones: BTreeMap<String, String> =
            self.nodes.list().iter().filter_map(|node| zone_of(node)).collect();
        let backends = backends::of(service, &pods, &zones);
        let existing = self.slices_of(key, SLICE_CONTROLLER);
        let groups = slices::group(service, &backends);
        let plan = slices::plan(&slices::for_service(service), groups, &existing);
        self.apply_slices(&self.clients.slices, key, plan).await?;
        self.apply_endpoints(key, legacy::make(service, &backends)).await
    }

    /// A Service without selector: its Endpoints are written by someone else and mirrored into slices.
    async fn mirrored(&self, key: &Key, service: &Service) -> Result<(), kube::Error> {
        let existing = self.slices_of(key, MIRROR_CONTROLLER);
        let endpoints = self.endpoints.get(key).filter(|endpoints| mirror::wanted(endpoints));
        let plan = match endpoints {
            Some(endpoints) => {
                let (template, groups) = mirror::groups(service, &endpoints);
                slices::plan(&template, groups, &existing)
            }
            None => slices::Plan::delete_all(&existing),
        };
        self.apply_slices(&self.clients.mirror, key, plan).await
    }
}

impl Reconciler for EndpointsController {
    type Key = Key;
    type Error = kube::Error;
    const NAME: &'static str = "endpoints";

    async fn reconcile(&self, key: &Key) -> Result<Requeue, kube::Error> {
        let service = self.services.get(key);
        let spec = service.as_ref().and_then(|service| service.spec.clone()).unwrap_or_default();
        let external = spec.type_.as_deref() == Some("ExternalName");
        let Some(service) = service.filter(|s| !external && s.metadata.deletion_timestamp.is_none()) else {
            let gone = |by| slices::Plan::delete_all(&self.slices_of(key, by));
            self.apply_slices(&self.clients.slices, key, gone(SLICE_CONTROLLER)).await?;
            self.apply_slices(&self.clients.mirror, key, gone(MIRROR_CONTROLLER)).await?;
            self.remove_endpoints(key).await?;
            return Ok(Requeue::Never);
        };
        match spec.selector.filter(|selector| !selector.is_empty()) {
            Some(selector) => self.selected(key, &service, &selector).await?,
            None => self.mirrored(key, &service).await?,
        }
        Ok(Requeue::Never)
    }
}

fn zone_of(node: &Node) -> Option<(String, String)> {
    Some((node.name_any(), node.labels().get("topology.kubernetes.io/zone")?.clone()))
}

fn pod_changed(change: &Change<'_, Pod>, services: &Informer<Service>, queue: &Queue<Key>) {
    if let Change::Updated(old, new) = change
        && !backends::concerns_endpoints(old, new)
    {
        return;
    }
    for pod in change.sides() {
        let matching = services.in_namespace(&pod.namespace().unwrap_or_default(), |service| {
            let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
            selector.is_some_and(|s| !s.is_empty() && s.iter().all(|(k, v)| pod.labels().get(k) == Some(v)))
        });
        for service in matching {
            queue.add(Key::of(service.as_ref()));
        }
    }
}
