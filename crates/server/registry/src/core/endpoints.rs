//! `Endpoints`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use xebec_schema::{FieldError, Path, error};
use xebec_types::{names, object};

use crate::builder::{AGE, ColumnRow, Kind, NAME, text};
use crate::cells::{age, first_and_more, int_at, list_at, name};
use crate::check::{self, Errors};
use crate::defaults::{Row, zero};
use crate::{Cells, Context, Resource, Strategy};

const COLUMNS: &[ColumnRow] = &[NAME, text("Endpoints"), AGE];

/// The rows for [`crate::defaults::table`].
pub(crate) const DEFAULTS: &[Row] = &[("core.v1.EndpointPort", port)];

/// The resource. Upstream keeps Endpoints beside the Services' specs.
pub(crate) fn resource() -> Resource {
    Kind::namespaced("v1", "Endpoints", "endpoints")
        .short(&["ep"])
        .columns(COLUMNS)
        .deprecated("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
        .strategy(EndpointsStrategy)
        .build()
}

fn port(port: &mut Map<String, Value>) {
    zero(port, "protocol", "TCP");
}

/// Ports of a subset, and its addresses by IP and target, each with whether it is ready.
#[derive(Default)]
struct Group {
    ports: Vec<Value>,
    addresses: BTreeMap<String, (bool, Value)>,
}

/// Brings subsets into their canonical form: subsets with equal ports are one, addresses and ports are sorted, and an
/// address that is ready somewhere is not listed as not ready beside it.
pub(crate) fn repack(subsets: &[Value]) -> Vec<Value> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for subset in subsets {
        let mut ports = list_at(subset, "ports").to_vec();
        ports.sort_by_key(|p| (int_at(p, "port"), p.to_string()));
        let key = Value::from(ports.clone()).to_string();
        let group = &mut groups.entry(key).or_insert_with(|| Group { ports, ..Group::default() }).addresses;
        for (list, ready) in [("notReadyAddresses", false), ("addresses", true)] {
            for address in list_at(subset, list) {
                let uid = object::str_at(address, "targetRef.uid");
                let key = format!("{}/{uid}", object::str_at(address, "ip"));
                let slot = group.entry(key).or_insert_with(|| (ready, address.clone()));
                if ready {
                    *slot = (true, address.clone());
                }
            }
        }
    }
    groups
        .into_values()
        .filter(|group| !group.addresses.is_empty())
        .map(|Group { ports, addresses }| {
            let mut subset = json!({});
            let list = |ready: bool| -> Vec<Value> {
                addresses.values().filter(|(r, _)| *r == ready).map(|(_, a)| a.clone()).collect()
            };
            for (key, value) in
                [("addresses", list(true)), ("notReadyAddresses", list(false)), ("ports", ports)]
            {
                if !value.is_empty() {
                    subset[key] = value.into();
                }
            }
            subset
        })
        .collect()
}

/// What differs for endpoints.
struct EndpointsStrategy;

impl EndpointsStrategy {
    fn repack(object: &mut Value) {
        let packed = repack(list_at(object, "subsets"));
        if let Some(map) = object.as_object_mut() {
            match packed.is_empty() {
                true => drop(map.remove("subsets")),
                false => drop(map.insert("subsets".into(), packed.into())),
            }
        }
    }

    fn address(address: &Value, path: &Path, errors: &mut Errors) {
        let text = object::str_at(address, "ip");
        super::pod_spec::ip(text, &path.child("ip"), errors);
        let Ok(ip) = text.parse::<std::net::IpAddr>() else { return };
        let bad = [
            (ip.is_unspecified(), format!("may not be unspecified ({text})")),
            (ip.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned()),
            (
                matches!(ip, std::net::IpAddr::V4(v4) if v4.is_link_local()),
                "may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned(),
            ),
            (
                ip.is_multicast(),
                "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned(),
            ),
        ];
        for (_, why) in bad.into_iter().filter(|(is, _)| *is) {
            errors.push(error::invalid(&path.child("ip"), text, why));
        }
    }
}

impl Strategy for EndpointsStrategy {
    fn key_prefix(&self) -> Option<&'static str> {
        Some("services/endpoints")
    }

    fn prepare_create(&self, _cx: &Context<'_>, object: &mut Value) {
        Self::repack(object);
    }

    fn prepare_update(&self, _cx: &Context<'_>, new: &mut Value, _old: &Value) {
        Self::repack(new);
    }

    fn validate_create(&self, _cx: &Context<'_>, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        for (i, subset) in list_at(object, "subsets").iter().enumerate() {
            let path = Path::new("subsets").index(i);
            for list in ["addresses", "notReadyAddresses"] {
                for (j, address) in list_at(subset, list).iter().enumerate() {
                    Self::address(address, &path.child(list).index(j), &mut errors);
                }
            }
            let ports = list_at(subset, "ports");
            for (j, port) in ports.iter().enumerate() {
                let path = path.child("ports").index(j);
                let label = object::str_at(port, "name");
                if label.is_empty() && ports.len() > 1 {
                    errors.push(error::required(&path.child("name"), ""));
                } else if !label.is_empty() {
                    check::rules(&path.child("name"), label, names::dns1123_label(label), &mut errors);
                }
                check::port(&path.child("port"), int_at(port, "port"), &mut errors);
                let protocol = object::str_at(port, "protocol");
                check::one_of(&path.child("protocol"), protocol, &["SCTP", "TCP", "UDP"], &mut errors);
            }
        }
        errors
    }

    fn validate_update(&self, cx: &Context<'_>, new: &Value, _old: &Value) -> Vec<FieldError> {
        self.validate_create(cx, new)
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn cells(&self, _version: &str, object: &Value, now: Timestamp) -> Cells {
        let mut all = Vec::new();
        for subset in list_at(object, "subsets") {
            let ports = list_at(subset, "ports");
            for address in list_at(subset, "addresses") {
                let ip = object::str_at(address, "ip");
                if ports.is_empty() {
                    all.push(ip.to_owned());
                }
                let join = |port: &Value| match ip.contains(':') {
                    true => format!("[{ip}]:{}", int_at(port, "port")),
                    false => format!("{ip}:{}", int_at(port, "port")),
                };
                all.extend(ports.iter().map(join));
            }
        }
        vec![name(object), first_and_more(&all, 3, "<none>").into(), age(object, now)]
    }
}
