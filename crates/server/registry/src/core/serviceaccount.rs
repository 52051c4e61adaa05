//! `ServiceAccount`.

use jiff::Timestamp;
use serde_json::Value;
use xebec_types::GroupVersion;

use crate::builder::{AGE, ColumnRow, Kind, NAME};
use crate::cells::{age, list_at, name};
use crate::{Cells, Resource, Strategy, Verb};

/// Secrets are a remnant of long-lived tokens; the count is usually zero.
const COLUMNS: &[ColumnRow] = &[NAME, crate::builder::text("Secrets"), AGE];

/// The resource.
pub(crate) fn resource() -> Resource {
    let authentication = GroupVersion { group: "authentication.k8s.io".into(), version: "v1".into() };
    Kind::namespaced("v1", "ServiceAccount", "serviceaccounts")
        .short(&["sa"])
        .columns(COLUMNS)
        .extra_of("token", authentication.kind("TokenRequest"), &[Verb::Create])
        .strategy(ServiceAccountStrategy)
        .build()
}

/// What differs for service accounts.
struct ServiceAccountStrategy;

impl Strategy for ServiceAccountStrategy {
    fn cells(&self, _version: &str, object: &Value, now: Timestamp) -> Cells {
        vec![name(object), list_at(object, "secrets").len().into(), age(object, now)]
    }
}
