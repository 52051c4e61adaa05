//! The fields of a pod's spec that stand alone: policies, names, DNS.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::PodSpec;
use xebec_schema::{Path, error};
use xebec_types::names;

use super::security;
use crate::check::{self, Errors};

/// Most name servers that `resolv.conf` may have.
const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCH_PATHS: usize = 32;
const MAX_SEARCH_CHARS: usize = 2048;

/// Checks them all.
pub(crate) fn validate(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let restart = spec.restart_policy.as_deref().unwrap_or("");
    check::one_of(&path.child("restartPolicy"), restart, &["Always", "OnFailure", "Never"], errors);
    dns(spec, path, errors);
    check::labels(spec.node_selector.as_ref(), &path.child("nodeSelector"), errors);
    security::pull_secrets(spec, path, errors);
    identity(spec, path, errors);
    if let Some(seconds) = spec.active_deadline_seconds
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        let why = "must be between 1 and 2147483647, inclusive";
        errors.push(error::invalid(&path.child("activeDeadlineSeconds"), seconds, why));
    }
    if let Some(seconds) = spec.termination_grace_period_seconds {
        check::non_negative(&path.child("terminationGracePeriodSeconds"), seconds, errors);
    }
    for (i, alias) in spec.host_aliases.iter().flatten().enumerate() {
        let path = path.child("hostAliases").index(i);
        ip(&alias.ip, &path.child("ip"), errors);
        for (j, name) in alias.hostnames.iter().flatten().enumerate() {
            check::rules(&path.child("hostnames").index(j), name, names::dns1123_subdomain(name), errors);
        }
    }
    if let Some(class) = spec.priority_class_name.as_deref().filter(|c| !c.is_empty()) {
        check::rules(&path.child("priorityClassName"), class, names::dns1123_subdomain(class), errors);
    }
    if let Some(policy) = spec.preemption_policy.as_deref() {
        let path = path.child("preemptionPolicy");
        check::one_of(&path, policy, &["PreemptLowerPriority", "Never"], errors);
    }
    if let Some(os) = spec.os.as_ref().filter(|os| os.name != "windows") {
        check::one_of(&path.child("os").child("name"), &os.name, &["linux", "windows"], errors);
    }
}

fn identity(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    if let Some(node) = spec.node_name.as_deref().filter(|n| !n.is_empty()) {
        check::rules(&path.child("nodeName"), node, names::dns1123_subdomain(node), errors);
    }
    let labels = [("hostname", &spec.hostname), ("subdomain", &spec.subdomain)];
    for (field, value) in labels {
        if let Some(value) = value.as_deref().filter(|v| !v.is_empty()) {
            check::rules(&path.child(field), value, names::dns1123_label(value), errors);
        }
    }
}

fn dns(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let policy = spec.dns_policy.as_deref().unwrap_or("");
    let supported = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    check::one_of(&path.child("dnsPolicy"), policy, &supported, errors);
    let path = path.child("dnsConfig");
    let servers = spec.dns_config.as_ref().and_then(|c| c.nameservers.as_deref()).unwrap_or_default();
    if policy == "None" {
        if spec.dns_config.is_none() {
            errors.push(error::required(&path, "must provide `dnsConfig` when `dnsPolicy` is None"));
        } else if servers.is_empty() {
            let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            errors.push(error::required(&path.child("nameservers"), why));
        }
    }
    let Some(config) = &spec.dns_config else { return };
    if servers.len() > MAX_NAMESERVERS {
        let why = format!("must not have more than {MAX_NAMESERVERS} nameservers");
        errors.push(error::invalid(&path.child("nameservers"), servers.to_vec(), why));
    }
    for (i, server) in servers.iter().enumerate() {
        ip(server, &path.child("nameservers").index(i), errors);
    }
    let searches = config.searches.as_deref().unwrap_or_default();
    if searches.len() > MAX_SEARCH_PATHS {
        let why = format!("must not have more than {MAX_SEARCH_PATHS} search paths");
        errors.push(error::invalid(&path.child("searches"), searches.to_vec(), why));
    }
    if searches.join(" ").len() > MAX_SEARCH_CHARS {
        let why = format!(
            "must not have more than {MAX_SEARCH_CHARS} characters (including spaces) in the search list"
        );
        errors.push(error::invalid(&path.child("searches"), searches.to_vec(), why));
    }
    for (i, search) in searches.iter().enumerate() {
        let name = search.strip_suffix('.').filter(|s| !s.is_empty()).unwrap_or(search);
        if search != "." {
            let plain = name.replace('_', "-");
            check::rules(&path.child("searches").index(i), name, names::dns1123_subdomain(&plain), errors);
        }
    }
    for (i, option) in config.options.iter().flatten().enumerate() {
        if option.name.as_deref().unwrap_or("").is_empty() {
            errors.push(error::required(&path.child("options").index(i), "must not be empty"));
        }
    }
}

/// An IPv4 or IPv6 address.
pub(crate) fn ip(value: &str, path: &Path, errors: &mut Errors) {
    if value.parse::<IpAddr>().is_err() {
        let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        errors.push(error::invalid(path, value, why));
    }
}
