//! Pods, and the containers and volumes of pod templates.

use serde_json::Value;

use super::report::{Report, controller, or, pairs};
use crate::discovery::{items, text};
use crate::duration::rfc1123;
use crate::output::bare;

/// A pod.
pub fn describe(report: &mut Report, pod: &Value) {
    let (metadata, spec, status) = (&pod["metadata"], &pod["spec"], &pod["status"]);
    report.field(0, "Name", text(&metadata["name"]));
    report.field(0, "Namespace", text(&metadata["namespace"]));
    report.field(0, "Priority", or(&spec["priority"], "0"));
    report.field(0, "Service Account", text(&spec["serviceAccountName"]));
    match spec["nodeName"].as_str() {
        Some(node) => report.field(0, "Node", format!("{node}/{}", text(&status["hostIP"]))),
        None => report.field(0, "Node", "<none>"),
    }
    if status["startTime"].is_string() {
        report.field(0, "Start Time", rfc1123(&status["startTime"]));
    }
    report.meta(pod);
    if metadata["deletionTimestamp"].is_string() {
        report.field(0, "Status", format!("Terminating (since {})", rfc1123(&metadata["deletionTimestamp"])));
        report.field(
            0,
            "Termination Grace Period",
            format!("{}s", bare(&metadata["deletionGracePeriodSeconds"])),
        );
    } else {
        report.field(0, "Status", text(&status["phase"]));
    }
    for (name, field) in [("Reason", "reason"), ("Message", "message")] {
        if status[field].is_string() {
            report.field(0, name, text(&status[field]));
        }
    }
    report.field(0, "IP", text(&status["podIP"]));
    match items(&status["podIPs"]).next() {
        None => report.field(0, "IPs", "<none>"),
        Some(_) => {
            report.line(0, "IPs:");
            items(&status["podIPs"]).for_each(|ip| report.field(1, "IP", text(&ip["ip"])));
        }
    }
    if let Some(owner) = controller(pod) {
        report.field(0, "Controlled By", owner);
    }
    for (title, list, states) in [
        ("Init Containers", "initContainers", "initContainerStatuses"),
        ("Containers", "containers", "containerStatuses"),
    ] {
        containers(report, 0, title, &spec[list], &status[states]);
    }
    conditions(report, &status["conditions"]);
    volumes(report, 0, &spec["volumes"]);
    report.field(0, "QoS Class", or(&status["qosClass"], "BestEffort"));
    report.lines(0, "Node-Selectors", &pairs(&spec["nodeSelector"], "="));
    report.lines(0, "Tolerations", &items(&spec["tolerations"]).map(toleration).collect::<Vec<_>>());
}

fn conditions(report: &mut Report, conditions: &Value) {
    if items(conditions).next().is_none() {
        return;
    }
    report.line(0, "Conditions:");
    report.line(1, "Type\tStatus");
    for condition in items(conditions) {
        report.line(1, format!("{}\t{} ", text(&condition["type"]), text(&condition["status"])));
    }
}

/// Containers with their state, when there is one.
pub fn containers(report: &mut Report, level: usize, title: &str, containers: &Value, statuses: &Value) {
    if items(containers).next().is_none() {
        return;
    }
    report.line(level, format!("{title}:"));
    for container in items(containers) {
        let status = items(statuses).find(|status| status["name"] == container["name"]);
        report.line(level + 1, format!("{}:", text(&container["name"])));
        one(report, level + 2, container, status);
    }
}

fn one(report: &mut Report, level: usize, container: &Value, status: Option<&Value>) {
    if let Some(status) = status {
        report.field(level, "Container ID", text(&status["containerID"]));
    }
    report.field(level, "Image", text(&container["image"]));
    if let Some(status) = status {
        report.field(level, "Image ID", text(&status["imageID"]));
    }
    let port = |field: &str| {
        let all: Vec<String> = items(&container["ports"])
            .map(|p| format!("{}/{}", or(&p[field], "0"), or(&p["protocol"], "TCP")))
            .collect();
        if all.is_empty() { "<none>".to_owned() } else { all.join(", ") }
    };
    let s = if items(&container["ports"]).count() > 1 { "s" } else { "" };
    report.field(level, &format!("Port{s}"), port("containerPort"));
    report.field(level, &format!("Host Port{s}"), port("hostPort"));
    for (name, field) in [("Command", "command"), ("Args", "args")] {
        if items(&container[field]).next().is_some() {
            report.line(level, format!("{name}:"));
            items(&container[field]).for_each(|word| report.line(level + 1, text(word)));
        }
    }
    if let Some(status) = status {
        state(report, level, "State", &status["state"]);
        if status["lastState"].as_object().is_some_and(|last| !last.is_empty()) {
            state(report, level, "Last State", &status["lastState"]);
        }
        report.field(level, "Ready", if status["ready"] == true { "True" } else { "False" });
        report.field(level, "Restart Count", or(&status["restartCount"], "0"));
    }
    for (name, field) in [("Limits", "limits"), ("Requests", "requests")] {
        if container["resources"][field].as_object().is_some_and(|map| !map.is_empty()) {
            report.line(level, format!("{name}:"));
            for pair in pairs(&container["resources"][field], ":\t") {
                report.line(level + 1, pair);
            }
        }
    }
    for (name, field) in
        [("Liveness", "livenessProbe"), ("Readiness", "readinessProbe"), ("Startup", "startupProbe")]
    {
        if container[field].is_object() {
            report.field(level, name, probe(&container[field]));
        }
    }
    environment(report, level, container);
    let mounts: Vec<String> = items(&container["volumeMounts"]).map(mount).collect();
    block(report, level, "Mounts", &mounts);
}

fn block(report: &mut Report, level: usize, name: &str, lines: &[String]) {
    if lines.is_empty() {
        return report.field(level, name, "<none>");
    }
    report.line(level, format!("{name}:"));
    lines.iter().for_each(|line| report.line(level + 1, line));
}

fn mount(mount: &Value) -> String {
    let mode = if mount["readOnly"] == true { "ro" } else { "rw" };
    let path = match mount["subPath"].as_str() {
        Some(path) => format!(",path={path:?}"),
        None => String::new(),
    };
    format!("{} from {} ({mode}{path})", text(&mount["mountPath"]), text(&mount["name"]))
}

fn environment(report: &mut Report, level: usize, container: &Value) {
    let from: Vec<String> = items(&container["envFrom"])
        .map(|source| {
            let (kind, reference) = match source["configMapRef"].is_object() {
                true => ("ConfigMap", &source["configMapRef"]),
                false => ("Secret", &source["secretRef"]),
            };
            let optional = reference["optional"] == true;
            format!("{}\t{kind}\tOptional: {optional}", text(&reference["name"]))
        })
        .collect();
    if !from.is_empty() {
        block(report, level, "Environment Variables from", &from);
    }
    let own: Vec<String> = items(&container["env"])
        .map(|env| {
            let source = &env["valueFrom"];
            let name = text(&env["name"]);
            if let Some(field) = source["fieldRef"]["fieldPath"].as_str() {
                return format!("{name}:\t ({}:{field})", or(&source["fieldRef"]["apiVersion"], "v1"));
            }
            if let Some(resource) = source["resourceFieldRef"]["resource"].as_str() {
                return format!("{name}:\t ({resource})");
            }
            for (field, kind) in [("secretKeyRef", "secret"), ("configMapKeyRef", "config map")] {
                let reference = &source[field];
                if reference.is_object() {
                    let (key, of) = (text(&reference["key"]), text(&reference["name"]));
                    let optional = reference["optional"] == true;
                    return format!(
                        "{name}:\t<set to the key '{key}' in {kind} '{of}'>\tOptional: {optional}"
                    );
                }
            }
            format!("{name}:\t{}", text(&env["value"]))
        })
        .collect();
    block(report, level, "Environment", &own);
}

fn state(report: &mut Report, level: usize, name: &str, state: &Value) {
    let Some((kind, detail)) = state.as_object().and_then(|map| map.iter().next()) else {
        return report.field(level, name, "Waiting");
    };
    let title = match kind.as_str() {
        "running" => "Running",
        "terminated" => "Terminated",
        _ => "Waiting",
    };
    report.field(level, name, title);
    for (label, field) in
        [("Reason", "reason"), ("Message", "message"), ("Exit Code", "exitCode"), ("Signal", "signal")]
    {
        if !detail[field].is_null() && detail[field] != "" {
            report.field(level + 1, label, bare(&detail[field]));
        }
    }
    for (label, field) in [("Started", "startedAt"), ("Finished", "finishedAt")] {
        if detail[field].is_string() {
            report.field(level + 1, label, rfc1123(&detail[field]));
        }
    }
}

fn probe(probe: &Value) -> String {
    let action = if probe["httpGet"].is_object() {
        let get = &probe["httpGet"];
        let scheme = or(&get["scheme"], "http").to_lowercase();
        format!("http-get {scheme}://{}:{}{}", text(&get["host"]), bare(&get["port"]), text(&get["path"]))
    } else if probe["tcpSocket"].is_object() {
        format!("tcp-socket {}:{}", text(&probe["tcpSocket"]["host"]), bare(&probe["tcpSocket"]["port"]))
    } else if probe["grpc"].is_object() {
        format!("grpc <pod>:{} {}", bare(&probe["grpc"]["port"]), text(&probe["grpc"]["service"]))
    } else {
        let words: Vec<String> = items(&probe["exec"]["command"]).map(text).collect();
        format!("exec [{}]", words.join(" "))
    };
    format!(
        "{action} delay={}s timeout={}s period={}s #success={} #failure={}",
        or(&probe["initialDelaySeconds"], "0"),
        or(&probe["timeoutSeconds"], "1"),
        or(&probe["periodSeconds"], "10"),
        or(&probe["successThreshold"], "1"),
        or(&probe["failureThreshold"], "3")
    )
}

/// Volumes with their kind and its fields.
pub fn volumes(report: &mut Report, level: usize, volumes: &Value) {
    if items(volumes).next().is_none() {
        return report.field(level, "Volumes", "<none>");
    }
    report.line(level, "Volumes:");
    for volume in items(volumes) {
        report.line(level + 1, format!("{}:", text(&volume["name"])));
        let kind = volume.as_object().into_iter().flatten().find(|(key, _)| *key != "name");
        let Some((kind, source)) = kind else { continue };
        let (title, fields): (&str, &[(&str, &str)]) = match kind.as_str() {
            "emptyDir" => (
                "EmptyDir (a temporary directory that shares a pod's lifetime)",
                &[("Medium", "medium"), ("SizeLimit", "sizeLimit")],
            ),
            "hostPath" => {
                ("HostPath (bare host directory volume)", &[("Path", "path"), ("HostPathType", "type")])
            }
            "configMap" => (
                "ConfigMap (a volume populated by a ConfigMap)",
                &[("Name", "name"), ("Optional", "optional")],
            ),
            "secret" => (
                "Secret (a volume populated by a Secret)",
                &[("SecretName", "secretName"), ("Optional", "optional")],
            ),
            "projected" => ("Projected (a volume that contains injected data from multiple sources)", &[]),
            "downwardAPI" => ("DownwardAPI (a volume populated by information about the pod)", &[]),
            other => (other, &[]),
        };
        report.field(level + 2, "Type", title);
        for (label, field) in fields {
            let none = match *field {
                "optional" => "false",
                "sizeLimit" => "<unset>",
                _ => "",
            };
            report.field(level + 2, label, or(&source[*field], none));
        }
        items(&source["sources"]).for_each(|source| projected(report, level + 2, source));
    }
}

fn projected(report: &mut Report, level: usize, source: &Value) {
    if source["serviceAccountToken"].is_object() {
        let seconds = or(&source["serviceAccountToken"]["expirationSeconds"], "3600");
        report.field(level, "TokenExpirationSeconds", seconds);
    }
    for (label, field) in [("ConfigMapName", "configMap"), ("SecretName", "secret")] {
        if source[field].is_object() {
            report.field(level, label, text(&source[field]["name"]));
            report.field(level, "Optional", or(&source[field]["optional"], "false"));
        }
    }
    if source["downwardAPI"].is_object() {
        report.field(level, "DownwardAPI", "true");
    }
}

fn toleration(toleration: &Value) -> String {
    let mut out = text(&toleration["key"]);
    if let Some(value) = toleration["value"].as_str().filter(|v| !v.is_empty()) {
        out.push_str(&format!("={value}"));
    }
    if let Some(effect) = toleration["effect"].as_str().filter(|e| !e.is_empty()) {
        out.push_str(&format!(":{effect}"));
    }
    if toleration["operator"] == "Exists" {
        out.push_str(if out.is_empty() { "op=Exists" } else { " op=Exists" });
    }
    if let Some(seconds) = toleration["tolerationSeconds"].as_i64() {
        out.push_str(&format!(" for {seconds}s"));
    }
    out
}
