//! `clusterIP` against `clusterIPs`, and the IP families of a Service (KEP-563).

use std::net::IpAddr;

use serde_json::{Value, json};
use xebec_schema::{FieldError, Path, error};
use xebec_types::object;

use super::{IpRange, needs_cluster_ip};
use crate::cells::list_at;

/// Makes the old singular field and the new plural one agree, whichever the client used.
pub(crate) fn normalize(new: &mut Value, old: Option<&Value>) {
    let single = object::str_at(new, "spec.clusterIP").to_owned();
    let first = list_at(new, "spec.clusterIPs").first().and_then(Value::as_str).unwrap_or("").to_owned();
    let spec = object::child_mut(new, "spec");
    let Some(old) = old else {
        if first.is_empty() && !single.is_empty() {
            spec.insert("clusterIPs".into(), json!([single]));
        }
        return;
    };
    let old_single = object::str_at(old, "spec.clusterIP");
    let unchanged = list_at(old, "spec.clusterIPs").first().and_then(Value::as_str).unwrap_or("") == first;
    if single != old_single && unchanged {
        // A client that knows only the singular field changed or cleared it.
        if single.is_empty() {
            spec.remove("clusterIPs");
        } else {
            spec.insert("clusterIPs".into(), json!([single]));
        }
    }
}

/// The family of an address as Services name it.
pub(crate) fn family_of(ip: &str) -> &'static str {
    match ip.parse::<IpAddr>() {
        Ok(IpAddr::V6(_)) => "IPv6",
        _ => "IPv4",
    }
}

/// Fills `ipFamilyPolicy` and `ipFamilies` of a Service that has addresses, by what the cluster offers.
pub(crate) fn fill(service: &mut Value, ranges: &[IpRange]) -> Result<Vec<String>, FieldError> {
    if !needs_cluster_ip(service) {
        return Ok(Vec::new());
    }
    let spec = Path::new("spec");
    let strings = |path: &str| -> Vec<String> {
        list_at(service, path).iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let (mut families, ips) = (strings("spec.ipFamilies"), strings("spec.clusterIPs"));
    let offered: Vec<&str> = ranges.iter().map(IpRange::family).collect();
    let headless = ips.first().is_some_and(|ip| ip == "None");
    let selectorless = object::at(service, "spec.selector").is_none();
    let mut policy = object::str_at(service, "spec.ipFamilyPolicy").to_owned();
    let given = if headless { families.len() } else { families.len().max(ips.len()) };
    if policy.is_empty() {
        if given > 1 {
            let why =
                "must be 'RequireDualStack' or 'PreferDualStack' when multiple 'ipFamilies' are specified";
            return Err(error::invalid(&spec.child("ipFamilyPolicy"), Value::Null, why));
        }
        policy = if headless && selectorless { "RequireDualStack" } else { "SingleStack" }.to_owned();
    }
    if !headless {
        families.extend(ips.iter().skip(families.len()).map(|ip| family_of(ip).to_owned()));
    }
    if families.is_empty() {
        families.push(offered.first().copied().unwrap_or("IPv4").to_owned());
    }
    let free = headless && selectorless;
    if !free {
        check(&families, &policy, &offered, &spec)?;
    }
    let dual = policy == "RequireDualStack" || (policy == "PreferDualStack" && offered.len() > 1);
    if dual && families.len() == 1 {
        families.push(if families[0] == "IPv4" { "IPv6" } else { "IPv4" }.to_owned());
    }
    let map = object::child_mut(service, "spec");
    map.insert("ipFamilyPolicy".into(), policy.into());
    map.insert("ipFamilies".into(), families.clone().into());
    Ok(families)
}

fn check(families: &[String], policy: &str, offered: &[&str], spec: &Path) -> Result<(), FieldError> {
    for (i, family) in families.iter().enumerate() {
        if !offered.contains(&family.as_str()) {
            let path = spec.child("ipFamilies").index(i);
            return Err(error::invalid(&path, family.as_str(), "not configured on this cluster"));
        }
    }
    if policy == "RequireDualStack" && offered.len() < 2 {
        let why = "this cluster is not configured for dual-stack services";
        return Err(error::invalid(&spec.child("ipFamilyPolicy"), policy, why));
    }
    if policy == "SingleStack" && families.len() > 1 {
        let why = "must be RequireDualStack or PreferDualStack when multiple ipFamilies are specified";
        return Err(error::invalid(&spec.child("ipFamilyPolicy"), policy, why));
    }
    Ok(())
}
