//! `Node`.

use jiff::Timestamp;
use serde_json::{Map, Value};
use xebec_schema::{FieldError, Path, error};
use xebec_types::{names, object};

use crate::builder::{AGE, ColumnRow, Kind, NAME, text, wide};
use crate::cells::{age, list_at, name};
use crate::check::{self, Errors};
use crate::defaults::{Row, has};
use crate::{Cells, Context, Resource, Strategy, SubresourceName, Verb};

const COLUMNS: &[ColumnRow] = &[
    NAME,
    text("Status"),
    text("Roles"),
    AGE,
    text("Version"),
    wide("Internal-IP"),
    wide("External-IP"),
    wide("OS-Image"),
    wide("Kernel-Version"),
    wide("Container-Runtime"),
];
const ROLE_PREFIX: &str = "node-role.kubernetes.io/";

/// The rows for [`crate::defaults::table`].
pub(crate) const DEFAULTS: &[Row] = &[("core.v1.NodeStatus", status)];

/// The resource. Upstream keeps nodes under `/registry/minions/`.
pub(crate) fn resource() -> Resource {
    use Verb::{Create, Delete, Get, Patch, Update};
    Kind::cluster("v1", "Node", "nodes")
        .short(&["no"])
        .columns(COLUMNS)
        .status()
        .extra("proxy", "NodeProxyOptions", &[Create, Delete, Get, Patch, Update])
        .strategy(NodeStrategy)
        .build()
}

fn status(status: &mut Map<String, Value>) {
    if !has(status, "allocatable")
        && let Some(capacity) = status.get("capacity").cloned()
    {
        status.insert("allocatable".into(), capacity);
    }
}

/// What differs for nodes.
struct NodeStrategy;

impl NodeStrategy {
    fn state(node: &Value) -> String {
        let ready = list_at(node, "status.conditions").iter().find(|c| object::str_at(c, "type") == "Ready");
        let mut state = match ready.map(|c| object::str_at(c, "status")) {
            Some("True") => "Ready",
            Some(_) => "NotReady",
            None => "Unknown",
        }
        .to_owned();
        if object::at(node, "spec.unschedulable") == Some(&Value::Bool(true)) {
            state.push_str(",SchedulingDisabled");
        }
        state
    }

    fn roles(node: &Value) -> String {
        let mut roles: Vec<&str> = object::labels(node)
            .filter_map(|(key, value)| match key.strip_prefix(ROLE_PREFIX) {
                Some(role) => Some(role),
                None if key == "kubernetes.io/role" => Some(value),
                None => None,
            })
            .filter(|role| !role.is_empty())
            .collect();
        roles.sort_unstable();
        roles.dedup();
        if roles.is_empty() { "<none>".into() } else { roles.join(",") }
    }

    fn address<'a>(node: &'a Value, kind: &str) -> &'a str {
        let address = list_at(node, "status.addresses").iter().find(|a| object::str_at(a, "type") == kind);
        address.map_or("<none>", |a| object::str_at(a, "address"))
    }

    fn taints(object: &Value, errors: &mut Errors) {
        let mut seen = std::collections::BTreeSet::new();
        for (i, taint) in list_at(object, "spec.taints").iter().enumerate() {
            let path = Path::new("spec").child("taints").index(i);
            let get = |field| object::str_at(taint, field);
            check::rules(&path.child("key"), get("key"), names::qualified_name(get("key")), errors);
            check::rules(&path.child("value"), get("value"), names::label_value(get("value")), errors);
            let supported = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
            check::one_of(&path.child("effect"), get("effect"), &supported, errors);
            if !seen.insert((get("key"), get("effect"))) {
                let mut duplicate = error::duplicate(&path, taint.clone());
                duplicate.detail = "taints must be unique by key and effect pair".into();
                errors.push(duplicate);
            }
        }
    }
}

impl Strategy for NodeStrategy {
    fn key_prefix(&self) -> Option<&'static str> {
        Some("minions")
    }

    fn validate_create(&self, _cx: &Context<'_>, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        Self::taints(object, &mut errors);
        for (i, cidr) in list_at(object, "spec.podCIDRs").iter().enumerate() {
            let text = cidr.as_str().unwrap_or("");
            if text.parse::<crate::core::service::IpRange>().is_err() {
                let why = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
                errors.push(error::invalid(&Path::new("spec").child("podCIDRs").index(i), text, why));
            }
        }
        errors
    }

    fn validate_update(&self, cx: &Context<'_>, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = self.validate_create(cx, new);
        if cx.subresource == SubresourceName::Main {
            let cidrs = |node| list_at(node, "spec.podCIDRs").to_vec();
            if !cidrs(old).is_empty() && cidrs(new) != cidrs(old) {
                let why = "node updates may not change podCIDR except from \"\" to valid";
                errors.push(error::forbidden(&Path::new("spec").child("podCIDRs"), why));
            }
            let provider = |node| object::str_at(node, "spec.providerID").to_owned();
            if !provider(old).is_empty() && provider(new) != provider(old) {
                let why = "node updates may not change providerID except from \"\" to valid";
                errors.push(error::forbidden(&Path::new("spec").child("providerID"), why));
            }
        }
        errors
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["spec.unschedulable"]
    }

    fn field<'a>(&self, object: &'a Value, field: &str) -> &'a str {
        match object::at(object, field) {
            Some(Value::Bool(true)) => "true",
            Some(Value::String(text)) => text,
            _ => "false",
        }
    }

    fn cells(&self, _version: &str, object: &Value, now: Timestamp) -> Cells {
        let info = |field: &str| match object::str_at(object, &format!("status.nodeInfo.{field}")) {
            "" => Value::from("<unknown>"),
            text => text.into(),
        };
        vec![
            name(object),
            Self::state(object).into(),
            Self::roles(object).into(),
            age(object, now),
            object::str_at(object, "status.nodeInfo.kubeletVersion").into(),
            Self::address(object, "InternalIP").into(),
            Self::address(object, "ExternalIP").into(),
            info("osImage"),
            info("kernelVersion"),
            info("containerRuntimeVersion"),
        ]
    }
}
