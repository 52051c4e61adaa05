//! The resources that the API server offers, asked for again only when they may have changed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use kube::api::ApiResource;
use kube::core::PartialObjectMeta;
use kube::discovery::{ApiCapabilities, ApiGroup, Discovery};
use xebec_reconcile::Informer;

/// What changes of definitions tell; their schemas are not kept.
pub type Definition = PartialObjectMeta<CustomResourceDefinition>;

/// What discovery answered at some time.
#[derive(Clone)]
pub struct Offered {
    /// Every resource in its preferred version.
    pub resources: Arc<[(ApiResource, ApiCapabilities)]>,
    /// How many changes there had been before the question.
    changes: u64,
}

/// Discovery with a memory.
pub struct Resources {
    client: Client,
    changes: Arc<AtomicU64>,
    offered: Mutex<Option<Offered>>,
}

impl Resources {
    /// Asks with this client, and again after changes that this informer tells of.
    pub fn new(client: Client, definitions: &Informer<Definition>) -> Self {
        let changes = Arc::new(AtomicU64::new(0));
        let count = changes.clone();
        definitions.on_change(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        Self { client, changes, offered: Mutex::new(None) }
    }

    /// The resources as they were after the last change known.
    ///
    /// # Errors
    /// Those of the client.
    pub async fn offered(&self) -> Result<Offered, kube::Error> {
        let known = self.offered.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(known) = known.filter(|known| self.is_current(known)) {
            return Ok(known);
        }
        let changes = self.changes.load(Ordering::Relaxed);
        let discovery = Discovery::new(self.client.clone()).run().await?;
        let resources = discovery.groups().flat_map(ApiGroup::recommended_resources).collect();
        let offered = Offered { resources, changes };
        *self.offered.lock().unwrap_or_else(PoisonError::into_inner) = Some(offered.clone());
        Ok(offered)
    }

    /// Whether nothing has changed since.
    pub fn is_current(&self, offered: &Offered) -> bool {
        self.changes.load(Ordering::Relaxed) == offered.changes
    }

    /// Asks anew next time.
    pub fn forget(&self) {
        *self.offered.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;
    use xebec_fakeapi::Requests;

    use super::*;

    /// A server with pods and nothing else.
    fn server() -> (Client, Requests) {
        xebec_fakeapi::client(|asked| {
            let answer = match asked.path.as_str() {
                "/apis" => json!({"kind": "APIGroupList", "groups": []}),
                "/api" => {
                    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
                }
                _ => json!({"kind": "APIResourceList", "groupVersion": "v1", "resources": [
                    {"name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod", "verbs": ["list"]}
                ]}),
            };
            (200, answer)
        })
    }

    /// How often the server was asked for its groups since the last call.
    fn asked_for_groups(asked: &mut Requests) -> usize {
        std::iter::from_fn(|| asked.try_recv().ok()).filter(|asked| asked.path == "/apis").count()
    }

    fn definition(version: &str) -> Arc<Definition> {
        let meta = json!({"metadata": {"name": "as.example.com", "resourceVersion": version}});
        Arc::new(serde_json::from_value(meta).unwrap())
    }

    #[tokio::test]
    async fn discovery_is_asked_after_changes_only() {
        let (client, mut asked) = server();
        let definitions = Informer::<Definition>::new();
        let resources = Resources::new(client, &definitions);
        let first = resources.offered().await.unwrap();
        assert_eq!(first.resources[0].0.plural, "pods");
        resources.offered().await.unwrap();
        assert_eq!(asked_for_groups(&mut asked), 1);

        definitions.apply(definition("1"));
        assert!(!resources.is_current(&first));
        let second = resources.offered().await.unwrap();
        assert!(resources.is_current(&second));
        assert_eq!(asked_for_groups(&mut asked), 1);

        resources.forget();
        resources.offered().await.unwrap();
        assert_eq!(asked_for_groups(&mut asked), 1);
    }
}
