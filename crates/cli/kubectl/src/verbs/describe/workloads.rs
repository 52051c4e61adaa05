//! Deployments and ReplicaSets.

use serde_json::Value;

use super::pod::{containers, volumes};
use super::report::{Report, controller, or, pairs, selector};
use crate::discovery::{items, text};
use crate::duration::rfc1123;

/// The number of a revision.
const REVISION: &str = "deployment.kubernetes.io/revision";

/// A Deployment with its ReplicaSets.
pub fn deployment(report: &mut Report, object: &Value, sets: &[Value]) {
    let (spec, status) = (&object["spec"], &object["status"]);
    report.field(0, "Name", text(&object["metadata"]["name"]));
    report.field(0, "Namespace", text(&object["metadata"]["namespace"]));
    report.field(0, "CreationTimestamp", rfc1123(&object["metadata"]["creationTimestamp"]));
    report.meta(object);
    report.field(0, "Selector", selector(object));
    report.field(
        0,
        "Replicas",
        format!(
            "{} desired | {} updated | {} total | {} available | {} unavailable",
            or(&spec["replicas"], "1"),
            or(&status["updatedReplicas"], "0"),
            or(&status["replicas"], "0"),
            or(&status["availableReplicas"], "0"),
            or(&status["unavailableReplicas"], "0")
        ),
    );
    report.field(0, "StrategyType", text(&spec["strategy"]["type"]));
    report.field(0, "MinReadySeconds", or(&spec["minReadySeconds"], "0"));
    let rolling = &spec["strategy"]["rollingUpdate"];
    if rolling.is_object() {
        let (most, more) = (or(&rolling["maxUnavailable"], "25%"), or(&rolling["maxSurge"], "25%"));
        report.field(0, "RollingUpdateStrategy", format!("{most} max unavailable, {more} max surge"));
    }
    template(report, &spec["template"]);
    if items(&status["conditions"]).next().is_some() {
        report.line(0, "Conditions:");
        report.line(1, "Type\tStatus\tReason");
        report.line(1, "----\t------\t------");
        for condition in items(&status["conditions"]) {
            let cells = [&condition["type"], &condition["status"], &condition["reason"]].map(text);
            report.line(1, cells.join("\t"));
        }
    }
    let revision = &object["metadata"]["annotations"][REVISION];
    let is_new = |set: &&Value| set["metadata"]["annotations"][REVISION] == *revision;
    let running = |set: &&Value| set["spec"]["replicas"].as_u64().unwrap_or(0) > 0;
    let show = |set: &Value| {
        let name = text(&set["metadata"]["name"]);
        format!(
            "{name} ({}/{} replicas created)",
            or(&set["status"]["replicas"], "0"),
            or(&set["spec"]["replicas"], "0")
        )
    };
    let join = |list: Vec<String>| if list.is_empty() { "<none>".to_owned() } else { list.join(", ") };
    report.field(
        0,
        "OldReplicaSets",
        join(sets.iter().filter(|s| !is_new(s) && running(s)).map(show).collect()),
    );
    report.field(0, "NewReplicaSet", join(sets.iter().filter(is_new).map(show).collect()));
}

/// A ReplicaSet.
pub fn replica_set(report: &mut Report, object: &Value) {
    let (spec, status) = (&object["spec"], &object["status"]);
    report.field(0, "Name", text(&object["metadata"]["name"]));
    report.field(0, "Namespace", text(&object["metadata"]["namespace"]));
    report.field(0, "Selector", selector(object));
    report.meta(object);
    if let Some(owner) = controller(object) {
        report.field(0, "Controlled By", owner);
    }
    let counts = (or(&status["replicas"], "0"), or(&spec["replicas"], "1"));
    report.field(0, "Replicas", format!("{} current / {} desired", counts.0, counts.1));
    report.field(0, "Ready", format!("{} / {}", or(&status["readyReplicas"], "0"), counts.1));
    template(report, &spec["template"]);
}

fn template(report: &mut Report, template: &Value) {
    report.line(0, "Pod Template:");
    report.lines(1, "Labels", &pairs(&template["metadata"]["labels"], "="));
    let annotations = pairs(&template["metadata"]["annotations"], ": ");
    if !annotations.is_empty() {
        report.lines(1, "Annotations", &annotations);
    }
    let spec = &template["spec"];
    if spec["serviceAccountName"].is_string() {
        report.field(1, "Service Account", text(&spec["serviceAccountName"]));
    }
    containers(report, 1, "Init Containers", &spec["initContainers"], &Value::Null);
    containers(report, 1, "Containers", &spec["containers"], &Value::Null);
    volumes(report, 1, &spec["volumes"]);
    report.lines(1, "Node-Selectors", &pairs(&spec["nodeSelector"], "="));
}
