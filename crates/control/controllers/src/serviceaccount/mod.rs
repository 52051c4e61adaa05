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
        crate::tolerate_in_namespace(api.create(&PostParams::default(), &account).await)?;
        Ok(Requeue::Never)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What comes of one attempt that the API answers with this status.
    async fn attempt(code: u16, causes: serde_json::Value) -> Result<Requeue, kube::Error> {
        let status = json!({"kind": "Status", "status": "Failure", "code": code, "reason": "Forbidden",
            "details": {"causes": causes}});
        let (client, _requests) = xebec_fakeapi::client(move |_| (code, status.clone()));
        let informers = Informers::new();
        let (controller, _queue) = ServiceAccounts::new(client, &informers);
        let namespace = json!({"metadata": {"name": "a", "resourceVersion": "1"}});
        informers.namespaces.apply(std::sync::Arc::new(serde_json::from_value(namespace).unwrap()));
        controller.reconcile(&Key::new("", "a")).await
    }

    #[tokio::test]
    async fn a_refusal_is_final_only_if_the_namespace_ends() {
        let ending = json!([{"reason": "NamespaceTerminating", "field": "metadata.namespace"}]);
        assert!(attempt(403, ending).await.is_ok());
        assert!(attempt(409, json!([])).await.is_ok(), "it is there already");
        assert!(attempt(403, json!([])).await.is_err(), "rights may come");
    }
}
