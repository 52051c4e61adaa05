//! Services, nodes, namespaces, config maps, secrets and service accounts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::report::{Report, or, pairs, selector};
use crate::discovery::{items, text};
use crate::duration::{age, rfc1123};
use crate::output::bare;

/// A Service with its EndpointSlices.
pub fn service(report: &mut Report, object: &Value, slices: &[Value]) {
    let spec = &object["spec"];
    report.head(object);
    report.field(0, "Selector", selector(object));
    report.field(0, "Type", text(&spec["type"]));
    report.field(0, "IP Family Policy", text(&spec["ipFamilyPolicy"]));
    report.field(0, "IP Families", items(&spec["ipFamilies"]).map(text).collect::<Vec<_>>().join(","));
    report.field(0, "IP", text(&spec["clusterIP"]));
    report.field(
        0,
        "IPs",
        or(&items(&spec["clusterIPs"]).map(text).collect::<Vec<_>>().join(",").into(), "<none>"),
    );
    if spec["externalName"].is_string() {
        report.field(0, "External Name", text(&spec["externalName"]));
    }
    for port in items(&spec["ports"]) {
        let (name, protocol) = (or(&port["name"], "<unset>"), or(&port["protocol"], "TCP"));
        report.field(0, "Port", format!("{name}\t{}/{protocol}", bare(&port["port"])));
        report.field(
            0,
            "TargetPort",
            format!("{}/{protocol}", or(&port["targetPort"], &bare(&port["port"]))),
        );
        if !port["nodePort"].is_null() {
            report.field(0, "NodePort", format!("{name}\t{}/{protocol}", bare(&port["nodePort"])));
        }
        let ready = endpoints(slices, &port["name"]);
        report.field(0, "Endpoints", ready);
    }
    report.field(0, "Session Affinity", or(&spec["sessionAffinity"], "None"));
    for (name, field) in [
        ("External Traffic Policy", "externalTrafficPolicy"),
        ("Internal Traffic Policy", "internalTrafficPolicy"),
    ] {
        if spec[field].is_string() {
            report.field(0, name, text(&spec[field]));
        }
    }
}

fn endpoints(slices: &[Value], port: &Value) -> String {
    let mut all = Vec::new();
    for slice in slices {
        let number =
            items(&slice["ports"]).find(|p| text(&p["name"]) == text(port)).map(|p| bare(&p["port"]));
        let Some(number) = number else { continue };
        for endpoint in items(&slice["endpoints"]).filter(|e| e["conditions"]["ready"] != false) {
            all.extend(items(&endpoint["addresses"]).map(|address| match text(address) {
                six if six.contains(':') => format!("[{six}]:{number}"),
                four => format!("{four}:{number}"),
            }));
        }
    }
    match all.len() {
        0 => String::new(),
        1..=3 => all.join(","),
        more => format!("{} + {} more...", all[..3].join(","), more - 3),
    }
}

/// A node with the pods on it.
pub fn node(report: &mut Report, object: &Value, pods: &[Value]) {
    let (spec, status) = (&object["spec"], &object["status"]);
    report.field(0, "Name", text(&object["metadata"]["name"]));
    let prefix = "node-role.kubernetes.io/";
    let labels = object["metadata"]["labels"].as_object();
    let roles: Vec<&str> =
        labels.into_iter().flatten().filter_map(|(key, _)| key.strip_prefix(prefix)).collect();
    report.field(0, "Roles", if roles.is_empty() { "<none>".into() } else { roles.join(",") });
    report.meta(object);
    report.field(0, "CreationTimestamp", rfc1123(&object["metadata"]["creationTimestamp"]));
    let taint = |t: &Value| match text(&t["value"]) {
        none if none.is_empty() => format!("{}:{}", text(&t["key"]), text(&t["effect"])),
        value => format!("{}={value}:{}", text(&t["key"]), text(&t["effect"])),
    };
    report.lines(0, "Taints", &items(&spec["taints"]).map(taint).collect::<Vec<_>>());
    report.field(0, "Unschedulable", spec["unschedulable"] == true);
    report.line(0, "Conditions:");
    report.line(1, "Type\tStatus\tLastHeartbeatTime\tLastTransitionTime\tReason\tMessage");
    report.line(1, "----\t------\t-----------------\t------------------\t------\t-------");
    for c in items(&status["conditions"]) {
        let times = [&c["lastHeartbeatTime"], &c["lastTransitionTime"]].map(rfc1123).join("\t");
        let [kind, held, reason, message] = [&c["type"], &c["status"], &c["reason"], &c["message"]].map(text);
        report.line(1, format!("{kind}\t{held} \t{times}\t{reason}\t{message}"));
    }
    report.line(0, "Addresses:");
    items(&status["addresses"]).for_each(|a| report.field(1, &text(&a["type"]), text(&a["address"])));
    for (title, field) in [("Capacity", "capacity"), ("Allocatable", "allocatable")] {
        report.line(0, format!("{title}:"));
        pairs(&status[field], ":\t").iter().for_each(|pair| report.line(1, pair));
    }
    report.line(0, "System Info:");
    for (title, field) in [
        ("Machine ID", "machineID"),
        ("Kernel Version", "kernelVersion"),
        ("OS Image", "osImage"),
        ("Operating System", "operatingSystem"),
        ("Architecture", "architecture"),
        ("Container Runtime Version", "containerRuntimeVersion"),
        ("Kubelet Version", "kubeletVersion"),
    ] {
        report.field(1, title, text(&status["nodeInfo"][field]));
    }
    report.field(0, "PodCIDR", text(&spec["podCIDR"]));
    report.field(0, "PodCIDRs", items(&spec["podCIDRs"]).map(text).collect::<Vec<_>>().join(","));
    report.line(0, format!("Non-terminated Pods:\t({} in total)", pods.len()));
    report.line(1, "Namespace\tName\tAge");
    report.line(1, "---------\t----\t---");
    for pod in pods {
        let metadata = &pod["metadata"];
        let age = age(&metadata["creationTimestamp"]);
        report.line(1, format!("{}\t{}\t{age}", text(&metadata["namespace"]), text(&metadata["name"])));
    }
}

/// A namespace.
pub fn namespace(report: &mut Report, object: &Value) {
    report.head(object);
    report.field(0, "Status", text(&object["status"]["phase"]));
}

/// A config map with its values.
pub fn config_map(report: &mut Report, object: &Value) {
    report.head(object);
    report.line(0, "\nData\n====");
    for (key, value) in object["data"].as_object().into_iter().flatten() {
        report.line(0, format!("{key}:\n----\n{}\n", text(value)));
    }
    report.line(0, "\nBinaryData\n====");
    for (key, value) in object["binaryData"].as_object().into_iter().flatten() {
        report.line(0, format!("{key}: {} bytes", size(value)));
    }
    report.line(0, "");
}

/// A secret: sizes, never values.
pub fn secret(report: &mut Report, object: &Value) {
    report.head(object);
    report.line(0, format!("\nType:  {}\n\nData\n====", text(&object["type"])));
    for (key, value) in object["data"].as_object().into_iter().flatten() {
        report.field(0, key, format!("{} bytes", size(value)));
    }
}

fn size(value: &Value) -> usize {
    STANDARD.decode(text(value)).map_or(0, |bytes| bytes.len())
}

/// A service account.
pub fn service_account(report: &mut Report, object: &Value) {
    report.head(object);
    for (name, field) in [("Image pull secrets", "imagePullSecrets"), ("Mountable secrets", "secrets")] {
        report.lines(0, name, &items(&object[field]).map(|secret| text(&secret["name"])).collect::<Vec<_>>());
    }
}
