//! Events about pods and the node.

use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use tokio_util::sync::CancellationToken;
use xebec_events::{Note, Source};

use crate::spec;

/// Writes events in the background.
#[derive(Debug, Clone)]
pub struct Recorder(xebec_events::Recorder);

impl Recorder {
    /// A recorder and the task that writes for it.
    pub fn new(client: kube::Client, host: String) -> (Self, impl Future<Output = ()> + Send) {
        let source = Source { component: "kubelet", host: Some(host), limited: true };
        let (recorder, writer) = xebec_events::Recorder::new(client, source);
        (Self(recorder), writer)
    }

    /// An event about a pod, or about one of its containers.
    pub fn pod(
        &self,
        pod: &Pod,
        container: Option<&str>,
        warning: bool,
        reason: &str,
        message: impl Into<String>,
    ) {
        let field = container.map(|name| {
            let inits = pod.spec.as_ref().and_then(|s| s.init_containers.as_deref()).unwrap_or_default();
            let list = if inits.iter().any(|c| c.name == name) { "initContainers" } else { "containers" };
            format!("spec.{list}{{{name}}}")
        });
        let object = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: Some(spec::name(pod).to_owned()),
            namespace: Some(spec::namespace(pod).to_owned()),
            uid: Some(spec::uid(pod).to_owned()),
            field_path: field,
            resource_version: None,
        };
        self.0.record(Note { object, warning, reason: reason.to_owned(), message: message.into() });
    }

    /// An event about the node.
    pub fn node(&self, node: &str, warning: bool, reason: &str, message: impl Into<String>) {
        let object = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Node".into()),
            name: Some(node.to_owned()),
            uid: Some(node.to_owned()),
            ..ObjectReference::default()
        };
        self.0.record(Note { object, warning, reason: reason.to_owned(), message: message.into() });
    }
}

/// Runs the writer until cancelled.
pub(crate) async fn run(writer: impl Future<Output = ()>, cancel: CancellationToken) {
    tokio::select! {
        () = writer => {}
        () = cancel.cancelled() => {}
    }
}
