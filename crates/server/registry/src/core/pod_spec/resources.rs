//! Requests and limits of containers.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Container;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use xebec_schema::{Path, error};
use xebec_types::{Quantity, names};

use crate::check::{self, Errors};

type List = BTreeMap<String, Text>;

/// Checks `resources` of a container.
pub(crate) fn container(container: &Container, path: &Path, errors: &mut Errors) {
    let Some(resources) = &container.resources else { return };
    let path = path.child("resources");
    let empty = List::new();
    let limits = resources.limits.as_ref().unwrap_or(&empty);
    let requests = resources.requests.as_ref().unwrap_or(&empty);
    let limits_path = path.child("limits");
    for (name, value) in limits {
        entry(name, value, &limits_path, errors);
    }
    let requests_path = path.child("requests");
    for (name, value) in requests {
        entry(name, value, &requests_path, errors);
        compare(name, value, limits, &requests_path, errors);
    }
}

fn entry(name: &str, value: &Text, path: &Path, errors: &mut Errors) {
    let path = path.key(name.to_owned());
    resource_name(name, &path, errors);
    match value.0.parse::<Quantity>() {
        Ok(quantity) => {
            if quantity.is_negative() {
                let why = "must be greater than or equal to 0";
                errors.push(error::invalid(&path, value.0.as_str(), why));
            }
            if is_extended(name) && !quantity.is_whole() {
                errors.push(error::invalid(&path, value.0.as_str(), "must be an integer"));
            }
        }
        Err(e) => errors.push(error::invalid(&path, value.0.as_str(), e.to_string())),
    }
}

fn compare(name: &str, request: &Text, limits: &List, path: &Path, errors: &mut Errors) {
    let Some(limit) = limits.get(name) else {
        if !overcommits(name) {
            errors.push(error::required(
                &path.key(name.to_owned()),
                "Limit must be set for non overcommitable resources",
            ));
        }
        return;
    };
    let (Ok(wanted), Ok(most)) = (request.0.parse::<Quantity>(), limit.0.parse::<Quantity>()) else { return };
    if !overcommits(name) && wanted != most {
        let why = format!("must be equal to {name} limit of {}", limit.0);
        errors.push(error::invalid(path, request.0.as_str(), why));
    } else if wanted > most {
        let why = format!("must be less than or equal to {name} limit of {}", limit.0);
        errors.push(error::invalid(path, request.0.as_str(), why));
    }
}

/// Whether more than there is may be promised: only with the resources the kernel shares out.
fn overcommits(name: &str) -> bool {
    !is_extended(name) && !name.starts_with("hugepages-")
}

/// Resources of a vendor, as in `nvidia.com/gpu`.
fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.starts_with("kubernetes.io/") && !name.contains(".kubernetes.io/")
}

fn resource_name(name: &str, path: &Path, errors: &mut Errors) {
    let broken = names::qualified_name(name);
    if !broken.is_empty() {
        check::rules(path, name, broken, errors);
        return;
    }
    let standard = ["cpu", "memory", "ephemeral-storage"].contains(&name) || name.starts_with("hugepages-");
    if !name.contains('/') && !standard {
        errors.push(error::invalid(path, name, "must be a standard resource type or fully qualified"));
        errors.push(error::invalid(path, name, "must be a standard resource for containers"));
    }
}
