//! Security contexts of pods and containers.

use k8s_openapi::api::core::v1::{AppArmorProfile, Container, PodSpec, SeccompProfile, SecurityContext};
use xebec_schema::{Path, error};
use xebec_types::names;

use super::container::relative_path;
use crate::check::{self, Errors, shown};

const ID_RANGE: &str = "must be between 0 and 2147483647, inclusive";

/// Checks the pod's own context.
pub(crate) fn pod(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let path = path.child("securityContext");
    if spec.share_process_namespace == Some(true) && spec.host_pid == Some(true) {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(error::invalid(&path.child("shareProcessNamespace"), true, why));
    }
    let Some(context) = &spec.security_context else { return };
    let ids = [
        ("fsGroup", context.fs_group),
        ("runAsUser", context.run_as_user),
        ("runAsGroup", context.run_as_group),
    ];
    for (name, value) in ids {
        id(value, &path.child(name), errors);
    }
    for (i, group) in context.supplemental_groups.iter().flatten().enumerate() {
        id(Some(*group), &path.child("supplementalGroups").index(i), errors);
    }
    for (i, sysctl) in context.sysctls.iter().flatten().enumerate() {
        let path = path.child("sysctls").index(i).child("name");
        if sysctl.name.is_empty() {
            errors.push(error::required(&path, ""));
        } else if !is_sysctl(&sysctl.name) {
            let why = "must have at most 253 characters and match regex \
                       ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
            errors.push(error::invalid(&path, sysctl.name.as_str(), why));
        }
    }
    if let Some(policy) = context.fs_group_change_policy.as_deref() {
        let path = path.child("fsGroupChangePolicy");
        check::one_of(&path, policy, &["Always", "OnRootMismatch"], errors);
    }
    if let Some(policy) = context.supplemental_groups_policy.as_deref() {
        check::one_of(&path.child("supplementalGroupsPolicy"), policy, &["Merge", "Strict"], errors);
    }
    seccomp(context.seccomp_profile.as_ref(), &path.child("seccompProfile"), errors);
    app_armor(context.app_armor_profile.as_ref(), &path.child("appArmorProfile"), errors);
}

/// Checks a container's context.
pub(crate) fn container(container: &Container, spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let Some(context) = &container.security_context else { return };
    let path = path.child("securityContext");
    for (name, value) in [("runAsUser", context.run_as_user), ("runAsGroup", context.run_as_group)] {
        id(value, &path.child(name), errors);
    }
    if let Some(mount) = context.proc_mount.as_deref() {
        if !["Default", "Unmasked"].contains(&mount) {
            errors.push(error::not_supported(&path.child("procMount"), mount, &["Default", "Unmasked"]));
        } else if mount == "Unmasked" && spec.host_users != Some(false) {
            let why = "`hostUsers` must be false to use `Unmasked`";
            errors.push(error::invalid(&path.child("procMount"), mount, why));
        }
    }
    seccomp(context.seccomp_profile.as_ref(), &path.child("seccompProfile"), errors);
    app_armor(context.app_armor_profile.as_ref(), &path.child("appArmorProfile"), errors);
    escalation(context, &path, errors);
}

/// Forbidding escalation contradicts granting everything.
fn escalation(context: &SecurityContext, path: &Path, errors: &mut Errors) {
    if context.allow_privilege_escalation != Some(false) {
        return;
    }
    if context.privileged == Some(true) {
        let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        errors.push(error::invalid(path, shown(context), why));
    }
    let added = context.capabilities.iter().flat_map(|c| c.add.iter().flatten());
    if added.into_iter().any(|c| c == "CAP_SYS_ADMIN") {
        let why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
        errors.push(error::invalid(path, shown(context), why));
    }
}

fn id(value: Option<i64>, path: &Path, errors: &mut Errors) {
    if let Some(value) = value.filter(|v| !(0..=i64::from(i32::MAX)).contains(v)) {
        errors.push(error::invalid(path, value, ID_RANGE));
    }
}

fn is_sysctl(name: &str) -> bool {
    let segment = |s: &str| {
        let b = s.as_bytes();
        let edge = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        b.first().is_some_and(edge)
            && b.last().is_some_and(edge)
            && b.iter().all(|c| edge(c) || matches!(c, b'-' | b'_'))
    };
    name.len() <= 253 && name.split(['.', '/']).all(segment)
}

fn seccomp(profile: Option<&SeccompProfile>, path: &Path, errors: &mut Errors) {
    let Some(profile) = profile else { return };
    let local = path.child("localhostProfile");
    match (profile.type_.as_str(), profile.localhost_profile.as_deref()) {
        ("Localhost", None | Some("")) => {
            errors.push(error::required(&local, "must be set when seccomp type is Localhost"));
        }
        ("Localhost", Some(file)) => relative_path(&local, file, errors),
        ("RuntimeDefault" | "Unconfined", Some(file)) => {
            errors.push(error::invalid(&local, file, "can only be set when seccomp type is Localhost"));
        }
        ("RuntimeDefault" | "Unconfined", None) => {}
        ("", _) => {
            errors.push(error::required(&path.child("type"), "type is required when seccompProfile is set"))
        }
        (other, _) => {
            let supported = ["Localhost", "RuntimeDefault", "Unconfined"];
            errors.push(error::not_supported(&path.child("type"), other, &supported));
        }
    }
}

fn app_armor(profile: Option<&AppArmorProfile>, path: &Path, errors: &mut Errors) {
    let Some(profile) = profile else { return };
    let local = path.child("localhostProfile");
    match (profile.type_.as_str(), profile.localhost_profile.as_deref()) {
        ("Localhost", None | Some("")) => {
            errors.push(error::required(&local, "must be set when AppArmor type is Localhost"));
        }
        ("Localhost", Some(name)) => {
            if name.trim() != name {
                errors.push(error::invalid(&local, name, "must not be padded with whitespace"));
            }
        }
        ("RuntimeDefault" | "Unconfined", Some(name)) => {
            errors.push(error::invalid(&local, name, "can only be set when AppArmor type is Localhost"));
        }
        ("RuntimeDefault" | "Unconfined", None) => {}
        ("", _) => {
            errors.push(error::required(&path.child("type"), "type is required when appArmorProfile is set"))
        }
        (other, _) => {
            let supported = ["Localhost", "RuntimeDefault", "Unconfined"];
            errors.push(error::not_supported(&path.child("type"), other, &supported));
        }
    }
}

/// Names of the secrets that hold registry passwords.
pub(crate) fn pull_secrets(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    for (i, secret) in spec.image_pull_secrets.iter().flatten().enumerate() {
        if secret.name.is_empty() {
            errors.push(error::required(&path.child("imagePullSecrets").index(i).child("name"), ""));
        }
    }
    if let Some(account) = spec.service_account_name.as_deref().filter(|a| !a.is_empty()) {
        check::rules(&path.child("serviceAccountName"), account, names::dns1123_subdomain(account), errors);
    }
}
