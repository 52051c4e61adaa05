//! Security context of a container: the pod's settings with the container's over them.

use k8s_openapi::api::core::v1::{AppArmorProfile, Container, Pod, SeccompProfile};
use xebec_cri::{
    Capabilities, Image, NamespaceMode, SecurityContext, SecurityProfile, SupplementalGroupsPolicy,
};

use super::ConfigError;
use crate::spec;

/// Paths hidden from containers with `procMount: Default`, as container runtimes agree on.
const MASKED: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// Paths that are read-only in containers with `procMount: Default`.
const READONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Where Localhost seccomp profiles live.
pub struct ProfileRoot<'a>(pub &'a std::path::Path);

/// Merges the security contexts and checks `runAsNonRoot` against the image.
pub fn security(
    pod: &Pod,
    container: &Container,
    image: &Image,
    profiles: &ProfileRoot<'_>,
) -> Result<SecurityContext, ConfigError> {
    let pod_spec = pod.spec.clone().unwrap_or_default();
    let outer = pod_spec.security_context.unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let privileged = own.privileged.unwrap_or(false);
    let run_as_user = own.run_as_user.or(outer.run_as_user);
    if own.run_as_non_root.or(outer.run_as_non_root).unwrap_or(false) {
        check_non_root(pod, container, image, run_as_user)?;
    }
    let unmasked = privileged || own.proc_mount.as_deref() == Some("Unmasked");
    let paths = |list: &[&str]| list.iter().filter(|_| !unmasked).map(|p| (*p).to_owned()).collect();
    let capabilities = own.capabilities.unwrap_or_default();
    let strip = |list: Option<Vec<String>>| -> Vec<String> {
        let names = list.unwrap_or_default().into_iter();
        names.map(|n| n.to_uppercase().trim_start_matches("CAP_").to_owned()).collect()
    };
    let mut groups = outer.supplemental_groups.unwrap_or_default();
    groups.extend(outer.fs_group);
    // A container keeps the right to gain privileges when it is privileged or may administer the system.
    let no_new_privs = own.allow_privilege_escalation == Some(false);
    let strict = outer.supplemental_groups_policy.as_deref() == Some("Strict");
    Ok(SecurityContext {
        privileged,
        capabilities: Capabilities { add: strip(capabilities.add), drop: strip(capabilities.drop) },
        run_as_user,
        run_as_group: own.run_as_group.or(outer.run_as_group),
        run_as_username: String::new(),
        supplemental_groups: groups,
        supplemental_groups_policy: match strict {
            true => SupplementalGroupsPolicy::Strict,
            false => SupplementalGroupsPolicy::Merge,
        },
        readonly_rootfs: own.read_only_root_filesystem.unwrap_or(false),
        no_new_privs,
        seccomp: seccomp(own.seccomp_profile.or(outer.seccomp_profile), privileged, profiles)?,
        apparmor: apparmor(own.app_armor_profile.or(outer.app_armor_profile), privileged)?,
        masked_paths: paths(MASKED),
        readonly_paths: paths(READONLY),
        pid_mode: Some(pid_mode(pod)),
    })
}

/// Whose process namespace the pod's containers use.
pub fn pid_mode(pod: &Pod) -> NamespaceMode {
    let pod_spec = pod.spec.as_ref();
    if pod_spec.and_then(|s| s.host_pid) == Some(true) {
        NamespaceMode::Node
    } else if pod_spec.and_then(|s| s.share_process_namespace) == Some(true) {
        NamespaceMode::Pod
    } else {
        NamespaceMode::Container
    }
}

fn check_non_root(
    pod: &Pod,
    container: &Container,
    image: &Image,
    user: Option<i64>,
) -> Result<(), ConfigError> {
    let of = format!("(pod: \"{}\", container: {})", spec::display(pod), container.name);
    match user.or(image.uid) {
        Some(0) if user.is_some() => {
            Err(ConfigError::Other(format!("container's runAsUser breaks non-root policy {of}")))
        }
        Some(0) => {
            Err(ConfigError::Other(format!("container has runAsNonRoot and image will run as root {of}")))
        }
        Some(_) => Ok(()),
        None if image.username.is_empty() => {
            Err(ConfigError::Other(format!("container has runAsNonRoot and image will run as root {of}")))
        }
        None => Err(ConfigError::Other(format!(
            "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user is non-root {of}",
            image.username
        ))),
    }
}

/// Seccomp is RuntimeDefault unless the pod says otherwise: closed by default.
fn seccomp(
    profile: Option<SeccompProfile>,
    privileged: bool,
    root: &ProfileRoot<'_>,
) -> Result<SecurityProfile, ConfigError> {
    if privileged {
        return Ok(SecurityProfile::Unconfined);
    }
    let Some(profile) = profile else { return Ok(SecurityProfile::RuntimeDefault) };
    match profile.type_.as_str() {
        "RuntimeDefault" => Ok(SecurityProfile::RuntimeDefault),
        "Unconfined" => Ok(SecurityProfile::Unconfined),
        "Localhost" => {
            let name = profile.localhost_profile.unwrap_or_default();
            if xebec_volumes::atomic::check_path(&name).is_err() {
                return Err(ConfigError::Other(format!(
                    "seccompProfile.localhostProfile {name:?} is not a relative path"
                )));
            }
            Ok(SecurityProfile::Localhost(root.0.join(name).display().to_string()))
        }
        other => Err(ConfigError::Other(format!("seccompProfile.type {other:?} is unknown"))),
    }
}

fn apparmor(profile: Option<AppArmorProfile>, privileged: bool) -> Result<SecurityProfile, ConfigError> {
    let Some(profile) = profile else {
        return Ok(if privileged { SecurityProfile::Unconfined } else { SecurityProfile::RuntimeDefault });
    };
    match profile.type_.as_str() {
        "RuntimeDefault" => Ok(SecurityProfile::RuntimeDefault),
        "Unconfined" => Ok(SecurityProfile::Unconfined),
        "Localhost" => Ok(SecurityProfile::Localhost(profile.localhost_profile.unwrap_or_default())),
        other => Err(ConfigError::Other(format!("appArmorProfile.type {other:?} is unknown"))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    pub(crate) fn image(uid: Option<i64>, username: &str) -> Image {
        Image {
            id: "sha256:1".into(),
            repo_tags: vec![],
            repo_digests: vec![],
            size: 1,
            uid,
            username: username.into(),
            pinned: false,
            config: Default::default(),
        }
    }

    fn merged(
        pod: serde_json::Value,
        own: serde_json::Value,
        image: &Image,
    ) -> Result<SecurityContext, String> {
        let container: Container =
            serde_json::from_value(json!({"name": "c", "securityContext": own})).unwrap();
        let pod: Pod =
            serde_json::from_value(json!({"spec": {"securityContext": pod, "containers": []}})).unwrap();
        let root = ProfileRoot(std::path::Path::new("/profiles"));
        security(&pod, &container, image, &root).map_err(|e| e.to_string())
    }

    #[test]
    fn the_container_wins_over_the_pod() {
        let pod = json!({"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4]});
        let own = json!({"runAsUser": 7, "capabilities": {"drop": ["ALL"], "add": ["CAP_NET_ADMIN"]}});
        let context = merged(pod, own, &image(None, "")).unwrap();
        assert_eq!((context.run_as_user, context.run_as_group), (Some(7), Some(2)));
        assert_eq!(context.supplemental_groups, [4, 3]);
        assert_eq!(context.capabilities.add, ["NET_ADMIN"]);
        assert!(context.masked_paths.iter().any(|p| p == "/proc/kcore"));
        let privileged = merged(json!({}), json!({"privileged": true}), &image(None, "")).unwrap();
        assert!(privileged.masked_paths.is_empty() && privileged.seccomp == SecurityProfile::Unconfined);
    }

    #[test]
    fn non_root_is_checked_against_the_image() {
        let pod = || json!({"runAsNonRoot": true});
        assert!(merged(pod(), json!({}), &image(Some(5), "")).is_ok());
        assert!(merged(pod(), json!({"runAsUser": 5}), &image(None, "")).is_ok());
        assert!(merged(pod(), json!({}), &image(None, "")).unwrap_err().contains("image will run as root"));
        assert!(
            merged(pod(), json!({}), &image(None, "web")).unwrap_err().contains("non-numeric user (web)")
        );
        assert!(merged(pod(), json!({"runAsNonRoot": false}), &image(Some(0), "")).is_ok());
    }
}
