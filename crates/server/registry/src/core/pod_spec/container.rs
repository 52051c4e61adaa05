//! Containers and init containers.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, PodSpec, VolumeMount};
use xebec_schema::{Path, error};
use xebec_types::names;

use super::{env, handlers, resources, security};
use crate::check::{self, Errors};

/// Volume name to whether it is read-only by nature.
pub(crate) type VolumeNames = BTreeSet<String>;

/// Which list a container stands in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Main,
    /// Runs to its end before the others start.
    Init,
    /// An init container with `restartPolicy: Always`, which keeps running (KEP-753).
    Sidecar,
}

/// Checks every container of the pod, and that what must be unique is.
pub(crate) fn validate_all(spec: &PodSpec, volumes: &VolumeNames, path: &Path, errors: &mut Errors) {
    let containers = path.child("containers");
    if spec.containers.is_empty() {
        errors.push(error::required(&containers, ""));
    }
    let mut seen = BTreeSet::new();
    for (i, container) in spec.containers.iter().enumerate() {
        let path = containers.index(i);
        validate(container, Role::Main, spec, volumes, &path, errors);
        unique_name(container, &path, &mut seen, errors);
    }
    host_ports(&spec.containers, &containers, errors);
    let inits = path.child("initContainers");
    for (i, container) in spec.init_containers.iter().flatten().enumerate() {
        let sidecar = container.restart_policy.as_deref() == Some("Always");
        let path = inits.index(i);
        validate(container, if sidecar { Role::Sidecar } else { Role::Init }, spec, volumes, &path, errors);
        unique_name(container, &path, &mut seen, errors);
        host_ports(std::slice::from_ref(container), &inits, errors);
    }
}

fn unique_name(container: &Container, path: &Path, seen: &mut BTreeSet<String>, errors: &mut Errors) {
    if !container.name.is_empty() && !seen.insert(container.name.clone()) {
        errors.push(error::duplicate(&path.child("name"), container.name.as_str()));
    }
}

fn validate(
    container: &Container,
    role: Role,
    spec: &PodSpec,
    volumes: &VolumeNames,
    path: &Path,
    errors: &mut Errors,
) {
    check::required_name(&path.child("name"), &container.name, names::dns1123_label, errors);
    image(container, path, errors);
    let policy = container.termination_message_policy.as_deref().unwrap_or("");
    let supported = ["File", "FallbackToLogsOnError"];
    check::one_of(&path.child("terminationMessagePolicy"), policy, &supported, errors);
    ports(container, spec, path, errors);
    env::validate(container, path, errors);
    mounts(container.volume_mounts.as_deref().unwrap_or_default(), volumes, path, errors);
    let pull = container.image_pull_policy.as_deref().unwrap_or("");
    check::one_of(&path.child("imagePullPolicy"), pull, &["Always", "IfNotPresent", "Never"], errors);
    resources::container(container, path, errors);
    security::container(container, spec, path, errors);
    life(container, role, spec, path, errors);
    resize_policy(container, path, errors);
}

fn image(container: &Container, path: &Path, errors: &mut Errors) {
    let image = container.image.as_deref().unwrap_or("");
    let path = path.child("image");
    if image.is_empty() {
        errors.push(error::required(&path, ""));
    } else if image.trim() != image {
        errors.push(error::invalid(&path, image, "must not have leading or trailing whitespace"));
    }
}

fn ports(container: &Container, spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (i, port) in container.ports.iter().flatten().enumerate() {
        let path = path.child("ports").index(i);
        if let Some(name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            check::rules(&path.child("name"), name, names::port_name(name), errors);
            if !seen.insert(name) {
                errors.push(error::duplicate(&path.child("name"), name));
            }
        }
        let number = path.child("containerPort");
        match port.container_port {
            0 => errors.push(error::required(&number, "")),
            n => check::port(&number, n.into(), errors),
        }
        let host = port.host_port.unwrap_or(0);
        if host != 0 {
            check::port(&path.child("hostPort"), host.into(), errors);
        }
        if spec.host_network == Some(true) && host != port.container_port {
            let why = "must match `containerPort` when `hostNetwork` is true";
            errors.push(error::invalid(&path.child("containerPort"), port.container_port, why));
        }
        let protocol = port.protocol.as_deref().unwrap_or("");
        check::one_of(&path.child("protocol"), protocol, &["SCTP", "TCP", "UDP"], errors);
    }
}

/// One host port of an address and protocol can be had once.
fn host_ports(containers: &[Container], path: &Path, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (i, container) in containers.iter().enumerate() {
        for (j, port) in container.ports.iter().flatten().enumerate() {
            let Some(host) = port.host_port.filter(|p| *p != 0) else { continue };
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let key = format!("{protocol}/{}/{host}", port.host_ip.as_deref().unwrap_or(""));
            if !seen.insert(key.clone()) {
                let path = path.index(i).child("ports").index(j).child("hostPort");
                errors.push(error::duplicate(&path, key));
            }
        }
    }
}

fn mounts(mounts: &[VolumeMount], volumes: &VolumeNames, path: &Path, errors: &mut Errors) {
    let mut points = BTreeSet::new();
    for (i, mount) in mounts.iter().enumerate() {
        let path = path.child("volumeMounts").index(i);
        if mount.name.is_empty() {
            errors.push(error::required(&path.child("name"), ""));
        } else if !volumes.contains(&mount.name) {
            errors.push(error::not_found(&path.child("name"), mount.name.as_str()));
        }
        if mount.mount_path.is_empty() {
            errors.push(error::required(&path.child("mountPath"), ""));
        }
        if !points.insert(mount.mount_path.as_str()) {
            errors.push(error::invalid(
                &path.child("mountPath"),
                mount.mount_path.as_str(),
                "must be unique",
            ));
        }
        sub_path(mount, &path, errors);
        propagation(mount, &path, errors);
    }
}

fn sub_path(mount: &VolumeMount, path: &Path, errors: &mut Errors) {
    let sub = mount.sub_path.as_deref().unwrap_or("");
    let expression = mount.sub_path_expr.as_deref().unwrap_or("");
    for (name, value) in [("subPath", sub), ("subPathExpr", expression)] {
        relative_path(&path.child(name), value, errors);
    }
    if !sub.is_empty() && !expression.is_empty() {
        let why = "subPathExpr and subPath are mutually exclusive";
        errors.push(error::invalid(&path.child("subPathExpr"), expression, why));
    }
}

/// A path that stays below where it starts.
pub(crate) fn relative_path(path: &Path, value: &str, errors: &mut Errors) {
    if value.starts_with('/') {
        errors.push(error::invalid(path, value, "must be a relative path"));
    }
    if value.split('/').any(|part| part == "..") {
        errors.push(error::invalid(path, value, "must not contain '..'"));
    }
}

fn propagation(mount: &VolumeMount, path: &Path, errors: &mut Errors) {
    if let Some(mode) = mount.mount_propagation.as_deref() {
        let supported = ["Bidirectional", "HostToContainer", "None"];
        check::one_of(&path.child("mountPropagation"), mode, &supported, errors);
    }
    let Some(recursive) = mount.recursive_read_only.as_deref() else { return };
    let path = path.child("recursiveReadOnly");
    match recursive {
        "Disabled" => {}
        "Enabled" | "IfPossible" => {
            if mount.read_only != Some(true) {
                errors.push(error::forbidden(&path, "may only be specified when readOnly is true"));
            }
            if mount.mount_propagation.as_deref().is_some_and(|m| m != "None") {
                let why = "may only be specified when mountPropagation is None or not specified";
                errors.push(error::forbidden(&path, why));
            }
        }
        other => errors.push(error::not_supported(&path, other, &["Disabled", "IfPossible", "Enabled"])),
    }
}

/// Probes and hooks, which ordinary init containers cannot have: nothing would run them.
fn life(container: &Container, role: Role, spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let probes = [
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
        ("startupProbe", &container.startup_probe),
    ];
    if role == Role::Init {
        let why = "may not be set for init containers without restartPolicy=Always";
        if container.lifecycle.is_some() {
            errors.push(error::forbidden(&path.child("lifecycle"), why));
        }
        for (name, probe) in probes {
            if probe.is_some() {
                errors.push(error::forbidden(&path.child(name), why));
            }
        }
    } else {
        let grace = spec.termination_grace_period_seconds.unwrap_or(30);
        if let Some(lifecycle) = &container.lifecycle {
            handlers::lifecycle(lifecycle, grace, &path.child("lifecycle"), errors);
        }
        for (name, probe) in probes {
            if let Some(probe) = probe {
                handlers::probe(probe, name != "readinessProbe", &path.child(name), errors);
            }
        }
    }
    let restart = path.child("restartPolicy");
    match (role, container.restart_policy.as_deref()) {
        (_, None) | (Role::Sidecar, _) => {}
        (Role::Main, Some(_)) => {
            errors.push(error::forbidden(&restart, "may not be set for non-init containers"))
        }
        (Role::Init, Some(other)) => errors.push(error::not_supported(&restart, other, &["Always"])),
    }
}

fn resize_policy(container: &Container, path: &Path, errors: &mut Errors) {
    let mut seen = BTreeMap::new();
    for (i, policy) in container.resize_policy.iter().flatten().enumerate() {
        let path = path.child("resizePolicy").index(i);
        check::one_of(&path.child("resourceName"), &policy.resource_name, &["cpu", "memory"], errors);
        let supported = ["NotRequired", "RestartContainer"];
        check::one_of(&path.child("restartPolicy"), &policy.restart_policy, &supported, errors);
        if seen.insert(policy.resource_name.as_str(), i).is_some() {
            errors.push(error::duplicate(&path, policy.resource_name.as_str()));
        }
    }
}
