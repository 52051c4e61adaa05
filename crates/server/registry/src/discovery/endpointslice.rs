//! `EndpointSlice`.

use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::{Map, Value};
use xebec_schema::{FieldError, Path, error};
use xebec_types::{names, object};

use crate::builder::{AGE, ColumnRow, Kind, NAME, text};
use crate::cells::{age, first_and_more, list_at, name};
use crate::check::{self, Errors};
use crate::defaults::{Row, absent, empty_object};
use crate::{Cells, Context, Resource, Strategy};

const COLUMNS: &[ColumnRow] = &[NAME, text("AddressType"), text("Ports"), text("Endpoints"), AGE];
const MAX_ENDPOINTS: usize = 1000;
const MAX_PORTS: usize = 20000;
const MAX_ADDRESSES: usize = 100;

/// The rows for [`crate::defaults::table`].
pub(crate) const DEFAULTS: &[Row] =
    &[("discovery.v1.Endpoint", endpoint), ("discovery.v1.EndpointPort", port)];

/// The resource.
pub(crate) fn resource() -> Resource {
    Kind::namespaced("discovery.k8s.io/v1", "EndpointSlice", "endpointslices")
        .columns(COLUMNS)
        .strategy(EndpointSliceStrategy)
        .build()
}

fn endpoint(endpoint: &mut Map<String, Value>) {
    empty_object(endpoint, "conditions");
}

fn port(port: &mut Map<String, Value>) {
    absent(port, "name", "");
    absent(port, "protocol", "TCP");
}

/// What differs for endpoint slices.
struct EndpointSliceStrategy;

impl EndpointSliceStrategy {
    fn endpoint(endpoint: &Value, family: &str, path: &Path, errors: &mut Errors) {
        let addresses = list_at(endpoint, "addresses");
        let path = path.child("addresses");
        if addresses.is_empty() {
            errors.push(error::required(&path, "must contain at least 1 address"));
        } else if addresses.len() > MAX_ADDRESSES {
            errors.push(error::too_many(&path, addresses.len(), MAX_ADDRESSES));
        }
        for (i, address) in addresses.iter().enumerate() {
            let (text, path) = (address.as_str().unwrap_or(""), path.index(i));
            let parsed = text.parse::<IpAddr>();
            match (family, parsed) {
                ("IPv4", Ok(IpAddr::V4(_))) | ("IPv6", Ok(IpAddr::V6(_))) => {}
                ("IPv4", _) => errors.push(error::invalid(&path, text, "must be a valid IPv4 address")),
                ("IPv6", _) => errors.push(error::invalid(&path, text, "must be a valid IPv6 address")),
                _ => check::rules(&path, text, names::dns1123_subdomain(text), errors),
            }
        }
    }

    fn ports(object: &Value, errors: &mut Errors) {
        let all = list_at(object, "ports");
        let path = Path::new("ports");
        if all.len() > MAX_PORTS {
            errors.push(error::too_many(&path, all.len(), MAX_PORTS));
            return;
        }
        let mut seen = std::collections::BTreeSet::new();
        for (i, port) in all.iter().enumerate() {
            let path = path.index(i);
            let label = object::str_at(port, "name");
            if !label.is_empty() {
                check::rules(&path.child("name"), label, names::dns1123_label(label), errors);
            }
            if !seen.insert(label) {
                errors.push(error::duplicate(&path.child("name"), label));
            }
            let protocol = object::str_at(port, "protocol");
            check::one_of(&path.child("protocol"), protocol, &["SCTP", "TCP", "UDP"], errors);
            if let Some(number) = port.get("port").and_then(Value::as_i64) {
                check::port(&path.child("port"), number, errors);
            }
        }
    }
}

impl Strategy for EndpointSliceStrategy {
    fn validate_create(&self, _cx: &Context<'_>, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let family = object::str_at(object, "addressType");
        check::one_of(&Path::new("addressType"), family, &["FQDN", "IPv4", "IPv6"], &mut errors);
        let endpoints = list_at(object, "endpoints");
        if endpoints.len() > MAX_ENDPOINTS {
            errors.push(error::too_many(&Path::new("endpoints"), endpoints.len(), MAX_ENDPOINTS));
        } else {
            for (i, endpoint) in endpoints.iter().enumerate() {
                Self::endpoint(endpoint, family, &Path::new("endpoints").index(i), &mut errors);
            }
        }
        Self::ports(object, &mut errors);
        errors
    }

    fn validate_update(&self, cx: &Context<'_>, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = self.validate_create(cx, new);
        let path = Path::new("addressType");
        check::immutable(&path, new.get("addressType"), old.get("addressType"), &mut errors);
        errors
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn cells(&self, _version: &str, object: &Value, now: Timestamp) -> Cells {
        let port = |p: &Value| match p.get("port").and_then(Value::as_i64) {
            Some(number) => number.to_string(),
            None => "*".to_owned(),
        };
        let ports: Vec<String> = list_at(object, "ports").iter().map(port).collect();
        let addresses: Vec<String> = list_at(object, "endpoints")
            .iter()
            .flat_map(|e| list_at(e, "addresses"))
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        vec![
            name(object),
            object::str_at(object, "addressType").into(),
            first_and_more(&ports, 3, "<unset>").into(),
            first_and_more(&addresses, 3, "<unset>").into(),
            age(object, now),
        ]
    }
}
