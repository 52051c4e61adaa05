//! Configuration of a container.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};
use xebec_cri::{ContainerConfig, ContainerMetadata, Image, Mount, MountPropagation};
use xebec_volumes::subpath;

use super::security::{ProfileRoot, security};
use super::{ConfigError, expand::expand, resources};
use crate::labels;
use crate::spec;

/// Where a container writes its last words unless it says otherwise.
pub const MESSAGE_PATH: &str = "/dev/termination-log";

/// Everything around the spec that a container's configuration needs.
#[derive(Debug)]
pub struct ContainerInput<'a> {
    /// Attempt, the restart count.
    pub attempt: u32,
    /// The image, present on the node.
    pub image: &'a Image,
    /// The environment, complete.
    pub envs: Vec<(String, String)>,
    /// Path of each volume.
    pub volumes: &'a BTreeMap<String, PathBuf>,
    /// The pod's `/etc/hosts`.
    pub hosts_file: &'a Path,
    /// The container's termination message file.
    pub message_file: &'a Path,
    /// Directory of Localhost seccomp profiles.
    pub seccomp_root: &'a Path,
    /// Memory of the node in bytes.
    pub node_memory_bytes: u64,
}

/// Makes the configuration.
pub fn container(
    pod: &Pod,
    container: &Container,
    input: ContainerInput<'_>,
) -> Result<ContainerConfig, ConfigError> {
    let pod_spec = pod.spec.clone().unwrap_or_default();
    let lookup = |name: &str| input.envs.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    let expand_all = |list: &Option<Vec<String>>| -> Vec<String> {
        list.iter().flatten().map(|text| expand(text, lookup)).collect()
    };
    if container.volume_devices.as_ref().is_some_and(|d| !d.is_empty()) {
        return Err(ConfigError::Other(
            "volumeDevices are not supported by this node: use volumeMounts".into(),
        ));
    }
    let mut own_labels = labels::pod(pod);
    own_labels.insert(labels::CONTAINER_NAME.into(), container.name.clone());
    let message_path = container.termination_message_path.as_deref().unwrap_or(MESSAGE_PATH);
    let policy = container.termination_message_policy.as_deref().unwrap_or("File");
    let grace = pod_spec.termination_grace_period_seconds.unwrap_or(30);
    let annotations = [
        (labels::RESTART_COUNT, input.attempt.to_string()),
        (labels::MESSAGE_PATH, message_path.to_owned()),
        (labels::MESSAGE_POLICY, policy.to_owned()),
        (labels::GRACE, grace.to_string()),
    ];
    Ok(ContainerConfig {
        metadata: ContainerMetadata { name: container.name.clone(), attempt: input.attempt },
        image: input.image.id.clone(),
        user_image: container.image.clone().unwrap_or_default(),
        command: expand_all(&container.command),
        args: expand_all(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        mounts: mounts(container, &input, message_path, lookup)?,
        devices: Vec::new(),
        labels: own_labels,
        annotations: annotations.map(|(k, v)| (k.to_owned(), v)).into(),
        log_path: Path::new(&container.name).join(format!("{}.log", input.attempt)),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        resources: resources::container(container, spec::qos(&pod_spec), input.node_memory_bytes),
        security: security(pod, container, input.image, &ProfileRoot(input.seccomp_root))?,
        stop_signal: stop_signal(container)?,
        envs: input.envs,
    })
}

fn mounts(
    container: &Container,
    input: &ContainerInput<'_>,
    message_path: &str,
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<Vec<Mount>, ConfigError> {
    let mut out = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        out.push(volume_mount(mount, input.volumes, &lookup)?);
    }
    let plain = |container_path: &str, host_path: &Path| Mount {
        container_path: container_path.into(),
        host_path: host_path.to_path_buf(),
        readonly: false,
        recursive_readonly: false,
        propagation: MountPropagation::Private,
    };
    if !out.iter().any(|m| m.container_path == Path::new("/etc/hosts")) {
        out.push(plain("/etc/hosts", input.hosts_file));
    }
    if !message_path.is_empty() {
        out.push(plain(message_path, input.message_file));
    }
    Ok(out)
}

fn volume_mount(
    mount: &VolumeMount,
    volumes: &BTreeMap<String, PathBuf>,
    lookup: &impl Fn(&str) -> Option<String>,
) -> Result<Mount, ConfigError> {
    let volume = volumes
        .get(&mount.name)
        .ok_or_else(|| ConfigError::Other(format!("cannot find volume \"{}\" to mount", mount.name)))?;
    let set = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
    let sub = match (set(&mount.sub_path), set(&mount.sub_path_expr)) {
        (Some(sub), _) => Some(sub),
        (None, Some(expr)) => {
            let expanded = expand(&expr, lookup);
            if expanded.contains("$(") {
                return Err(ConfigError::Other(format!("subPathExpr {expr:?} refers to an unset variable")));
            }
            Some(expanded)
        }
        (None, None) => None,
    };
    let host_path = match sub {
        Some(sub) => subpath::resolve(volume, &sub).map_err(|e| {
            ConfigError::Other(format!("failed to prepare subPath for volumeMount \"{}\": {e}", mount.name))
        })?,
        None => volume.clone(),
    };
    let container_path = if mount.mount_path.starts_with('/') {
        PathBuf::from(&mount.mount_path)
    } else {
        Path::new("/").join(&mount.mount_path)
    };
    let readonly = mount.read_only.unwrap_or(false);
    let recursive = matches!(mount.recursive_read_only.as_deref(), Some("Enabled" | "IfPossible"));
    Ok(Mount {
        container_path,
        host_path,
        readonly,
        recursive_readonly: readonly && recursive,
        propagation: match mount.mount_propagation.as_deref() {
            Some("HostToContainer") => MountPropagation::HostToContainer,
            Some("Bidirectional") => MountPropagation::Bidirectional,
            _ => MountPropagation::Private,
        },
    })
}

/// `lifecycle.stopSignal` (KEP-4960) as a number.
fn stop_signal(container: &Container) -> Result<Option<i32>, ConfigError> {
    let Some(name) = container.lifecycle.as_ref().and_then(|l| l.stop_signal.as_deref()) else {
        return Ok(None);
    };
    signal_number(name)
        .map(Some)
        .ok_or_else(|| ConfigError::Other(format!("lifecycle.stopSignal {name:?} is unknown")))
}

/// Number of a signal on Linux (signal(7), x86 and arm numbering).
fn signal_number(name: &str) -> Option<i32> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
        "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    let short = name.strip_prefix("SIG").unwrap_or(name);
    if let Some(at) = NAMES.iter().position(|n| *n == short) {
        return i32::try_from(at + 1).ok();
    }
    let offset = |text: &str, sign: char| text.strip_prefix(sign).map_or(Some(0), |n| n.parse::<i32>().ok());
    if let Some(rest) = short.strip_prefix("RTMIN") {
        return offset(rest, '+').map(|n| 34 + n);
    }
    short.strip_prefix("RTMAX").and_then(|rest| offset(rest, '-')).map(|n| 64 - n)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn build(spec: serde_json::Value, envs: &[(&str, &str)]) -> Result<ContainerConfig, ConfigError> {
        let volume = tempfile::tempdir().unwrap();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {"containers": [spec]}
        }))
        .unwrap();
        let image = super::super::security::tests::image(None, "");
        let volumes = [("v".to_owned(), volume.path().to_path_buf())].into();
        let input = ContainerInput {
            attempt: 2,
            image: &image,
            envs: envs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            volumes: &volumes,
            hosts_file: Path::new("/h"),
            message_file: Path::new("/m"),
            seccomp_root: Path::new("/s"),
            node_memory_bytes: 1 << 30,
        };
        container(&pod, &pod.spec.as_ref().unwrap().containers[0], input)
    }

    #[test]
    fn commands_mounts_and_names() {
        let config = build(
            json!({"name": "c", "image": "i", "command": ["a", "$(X)"], "args": ["$$(X)"],
                "volumeMounts": [{"name": "v", "mountPath": "/data", "subPathExpr": "$(X)/d", "readOnly": true,
                    "recursiveReadOnly": "Enabled"}]}),
            &[("X", "1")],
        )
        .unwrap();
        assert_eq!((config.command, config.args), (vec!["a".into(), "1".into()], vec!["$(X)".to_owned()]));
        assert!(config.mounts[0].host_path.ends_with("1/d") && config.mounts[0].recursive_readonly);
        assert_eq!(config.mounts[1].container_path, Path::new("/etc/hosts"));
        assert_eq!(config.mounts[2].container_path, Path::new(MESSAGE_PATH));
        assert_eq!(config.log_path, Path::new("c/2.log"));
        assert_eq!(config.annotations[labels::RESTART_COUNT], "2");
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let unset = build(
            json!({"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/d", "subPathExpr": "$(Y)"}]}),
            &[],
        );
        assert!(unset.unwrap_err().to_string().contains("unset variable"));
        let absent = build(json!({"name": "c", "volumeMounts": [{"name": "w", "mountPath": "/d"}]}), &[]);
        assert_eq!(absent.unwrap_err().to_string(), "cannot find volume \"w\" to mount");
    }

    #[test]
    fn signals() {
        let numbers = ["SIGTERM", "SIGUSR1", "SIGRTMIN+3", "SIGRTMAX-1", "SIGNONE"].map(signal_number);
        assert_eq!(numbers, [Some(15), Some(10), Some(37), Some(63), None]);
    }
}
