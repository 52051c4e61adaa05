//! The `kube-root-ca.crt` config map of every namespace, by which pods know the API server (KEP-1205).

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use xebec_reconcile::{Informer, Key, Queue, Reconciler, Requeue};

use crate::Informers;

const NAME: &str = "kube-root-ca.crt";
const FILE: &str = "ca.crt";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
                           endpoints such as the internal service IP or kubernetes.default.svc. No other usage is \
                           guaranteed across distributions of Kubernetes clusters.";

/// The controller; its keys are namespaces.
pub struct RootCa {
    client: Client,
    namespaces: Informer<Namespace>,
    published: Informer<ConfigMap>,
    certificates: String,
}

impl RootCa {
    /// A controller that publishes these PEM certificates, and its queue.
    pub fn new(client: Client, informers: &Informers, certificates: String) -> (Self, Queue<Key>) {
        let queue = Queue::new();
        let q = queue.clone();
        informers.namespaces.on_change(move |change| q.add(Key::of(change.object().as_ref())));
        let q = queue.clone();
        informers.root_ca.on_change(move |change| {
            q.add(Key::new("", change.object().metadata.namespace.clone().unwrap_or_default()));
        });
        let (namespaces, published) = (informers.namespaces.clone(), informers.root_ca.clone());
        (Self { client, namespaces, published, certificates }, queue)
    }
}

impl Reconciler for RootCa {
    type Key = Key;
    type Error = kube::Error;
    const NAME: &'static str = "root-ca-cert-publisher";

    async fn reconcile(&self, key: &Key) -> Result<Requeue, kube::Error> {
        if self.namespaces.get(key).is_none_or(|n| n.metadata.deletion_timestamp.is_some()) {
            return Ok(Requeue::Never);
        }
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &key.name);
        let annotations = [("kubernetes.io/description".to_owned(), DESCRIPTION.to_owned())];
        match self.published.get(&Key::new(&key.name, NAME)) {
            None => {
                let map = ConfigMap {
                    metadata: ObjectMeta {
                        name: Some(NAME.into()),
                        annotations: Some(annotations.into()),
                        ..ObjectMeta::default()
                    },
                    data: Some([(FILE.to_owned(), self.certificates.clone())].into()),
                    ..ConfigMap::default()
                };
                crate::tolerate_in_namespace(api.create(&PostParams::default(), &map).await)?;
            }
            Some(map) if map.data.as_ref().and_then(|data| data.get(FILE)) != Some(&self.certificates) => {
                let mut changed = map.as_ref().clone();
                changed.metadata.managed_fields = None;
                changed.data.get_or_insert_default().insert(FILE.into(), self.certificates.clone());
                crate::tolerate(api.replace(NAME, &PostParams::default(), &changed).await, &[404])?;
            }
            Some(_) => {}
        }
        Ok(Requeue::Never)
    }
}
