//! Defaults of a pod's spec and containers, wherever they appear (`SetDefaults_PodSpec`, `_Container`, `_Probe`, …).

use serde_json::{Map, Value};

use super::image::Tag;
use crate::defaults::{Row, absent, empty_object, text, zero};

/// The rows for [`crate::defaults::table`].
pub(crate) const ROWS: &[Row] = &[
    ("core.v1.PodSpec", pod_spec),
    ("core.v1.Container", container),
    ("core.v1.EphemeralContainer", container),
    ("core.v1.ContainerPort", container_port),
    ("core.v1.Probe", probe),
    ("core.v1.GRPCAction", grpc_action),
    ("core.v1.HTTPGetAction", http_get),
    ("core.v1.ObjectFieldSelector", field_ref),
    ("core.v1.ResourceFieldSelector", resource_field_ref),
];

fn pod_spec(spec: &mut Map<String, Value>) {
    zero(spec, "restartPolicy", "Always");
    zero(spec, "dnsPolicy", "ClusterFirst");
    zero(spec, "schedulerName", "default-scheduler");
    absent(spec, "terminationGracePeriodSeconds", 30);
    empty_object(spec, "securityContext");
    mirror_service_account(spec);
}

/// `serviceAccount` is the old name of `serviceAccountName`; both are written, and the new one wins.
pub(crate) fn mirror_service_account(spec: &mut Map<String, Value>) {
    let account = match text(spec, "serviceAccountName") {
        "" => text(spec, "serviceAccount"),
        name => name,
    };
    if !account.is_empty() {
        let account = account.to_owned();
        spec.insert("serviceAccountName".into(), account.clone().into());
        spec.insert("serviceAccount".into(), account.into());
    }
}

fn container(container: &mut Map<String, Value>) {
    let policy = match super::image::tag(text(container, "image")) {
        Tag::Named("latest") => "Always",
        Tag::Named(_) | Tag::None => "IfNotPresent",
    };
    zero(container, "imagePullPolicy", policy);
    zero(container, "terminationMessagePath", "/dev/termination-log");
    zero(container, "terminationMessagePolicy", "File");
    empty_object(container, "resources");
}

fn container_port(port: &mut Map<String, Value>) {
    zero(port, "protocol", "TCP");
}

fn probe(probe: &mut Map<String, Value>) {
    zero(probe, "timeoutSeconds", 1);
    zero(probe, "periodSeconds", 10);
    zero(probe, "successThreshold", 1);
    zero(probe, "failureThreshold", 3);
}

fn grpc_action(action: &mut Map<String, Value>) {
    absent(action, "service", "");
}

fn http_get(action: &mut Map<String, Value>) {
    zero(action, "path", "/");
    zero(action, "scheme", "HTTP");
}

fn field_ref(reference: &mut Map<String, Value>) {
    zero(reference, "apiVersion", "v1");
}

/// Go writes a quantity that it holds by value also when it is zero; without it, a template that went through a Go
/// client and back (`kubectl rollout undo`) would be another one.
fn resource_field_ref(reference: &mut Map<String, Value>) {
    zero(reference, "divisor", "0");
}
