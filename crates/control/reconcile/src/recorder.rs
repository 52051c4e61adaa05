//! Events that controllers leave on objects.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Client, Resource};
use tokio_util::sync::CancellationToken;
use xebec_events::{Note, Source};

/// Writes events in the background; repetitions raise the count of the first.
#[derive(Clone)]
pub struct Recorder(xebec_events::Recorder);

impl Recorder {
    /// A recorder for a component, and the task that writes.
    pub fn new(
        client: Client,
        component: &'static str,
        token: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let source = Source { component, host: None, limited: false };
        let (recorder, writer) = xebec_events::Recorder::new(client, source);
        let writer = async move {
            token.run_until_cancelled(writer).await;
        };
        (Self(recorder), writer)
    }

    /// Records a `Normal` event.
    pub fn normal<K: Resource<DynamicType = ()>>(&self, object: &K, reason: &str, message: String) {
        self.record(object, false, reason, message);
    }

    /// Records a `Warning` event.
    pub fn warning<K: Resource<DynamicType = ()>>(&self, object: &K, reason: &str, message: String) {
        self.record(object, true, reason, message);
    }

    fn record<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        warning: bool,
        reason: &str,
        message: String,
    ) {
        let meta = object.meta();
        let object = ObjectReference {
            api_version: Some(K::api_version(&()).into_owned()),
            kind: Some(K::kind(&()).into_owned()),
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            field_path: None,
        };
        self.0.record(Note { object, warning, reason: reason.to_owned(), message });
    }
}
