//! The `default` service account of every namespace.

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use xebec_reconcile::{Change, Informer, Key, Queue, Reconciler, Requeue};

use crate::Informers;

const NAME: &str = "default";

/// The controller; its keys are namespaces.
pub struct ServiceAccounts {
    client: Client,
    namespaces: Informer<Namespace>,
    accounts: Informer<ServiceAccount>,
}

impl ServiceAccounts {
    /// A controller whose queue is fed by these informers.
    pub fn new(client: Client, informers: &Informers) -> (Self, Queue<Key>) {
        let queue = Queue::new();
        let q = queue.clone();
        informers.namespaces.on_change(move |change| q.add(Key::of(change.object().as_ref())));
        let q = queue.clone();
        informers.service_accounts.on_change(move |change| {
            if let Change::Deleted(account) = change {
                q.add(Key::new("", account.metadata.namespace.clone().unwrap_or_default()));
            }
        });
        let (namespaces, accounts) = (informers.namespaces.clone(), informers.service_accounts.clone());
        (Self { client, namespaces, accounts }, queue)
    }
}

impl Reconciler for ServiceAccounts {
    type Key = Key;
    type Error = kube::Error;
    const NAME: &'static str = "serviceaccount";

    async fn reconcile(&self, key: &Key) -> Result<Requeue, kube::Error> {
        let live = self.namespaces.get(key).is_some_and(|n| n.metadata.deletion_timestamp.is_none());
        if !live || self.accounts.get(&Key::new(&key.name, NAME)).is_some() {
            return Ok(Requeue::Never);
        }
        let account = ServiceAccount {
            metadata: ObjectMeta { name: Some(NAME.into()), ..ObjectMeta::default() },
            ..ServiceAccount::default()
        };
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &key.name);
        crate::tolerate(api.create(&PostParams::default(), &account).await, &[403, 404, 409])?;
        Ok(Requeue::Never)
    }
}
