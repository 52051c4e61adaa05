//! Rules of Roles and ClusterRoles.

use jiff::Timestamp;
use serde_json::Value;
use xebec_schema::{FieldError, Path, error};
use xebec_types::{names, object};

use crate::builder::{ColumnRow, NAME};
use crate::cells::{list_at, name};
use crate::check::Errors;
use crate::resource::ColumnType;
use crate::{Cells, Context, Strategy};

/// Columns of both kinds.
pub(crate) const COLUMNS: &[ColumnRow] = &[NAME, ("Created At", ColumnType::Date, 0)];

/// What differs for Roles and ClusterRoles.
pub(crate) struct RoleStrategy {
    /// Whether rules may speak of URLs, which belong to no namespace.
    pub(crate) urls: bool,
}

impl RoleStrategy {
    fn rule(&self, rule: &Value, path: &Path, errors: &mut Errors) {
        let has = |field: &str| !list_at(rule, field).is_empty();
        if !has("verbs") {
            errors.push(error::required(&path.child("verbs"), "verbs must contain at least one value"));
        }
        if has("nonResourceURLs") {
            let urls = path.child("nonResourceURLs");
            let value = rule.get("nonResourceURLs").cloned().unwrap_or_default();
            if !self.urls {
                let why = "namespaced rules cannot apply to non-resource URLs";
                errors.push(error::invalid(&urls, value.clone(), why));
            }
            if has("apiGroups") || has("resources") || has("resourceNames") {
                let why = "rules cannot apply to both regular resources and non-resource URLs";
                errors.push(error::invalid(&urls, value, why));
            }
            return;
        }
        if !has("apiGroups") {
            errors.push(error::required(
                &path.child("apiGroups"),
                "resource rules must supply at least one api group",
            ));
        }
        if !has("resources") {
            errors.push(error::required(
                &path.child("resources"),
                "resource rules must supply at least one resource",
            ));
        }
    }
}

impl Strategy for RoleStrategy {
    fn validate_name(&self, name: &str) -> Vec<String> {
        names::path_segment(name)
    }

    fn validate_create(&self, _cx: &Context<'_>, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        for (i, rule) in list_at(object, "rules").iter().enumerate() {
            self.rule(rule, &Path::new("rules").index(i), &mut errors);
        }
        let selectors = list_at(object, "aggregationRule.clusterRoleSelectors");
        if object.get("aggregationRule").is_some() && selectors.is_empty() {
            let path = Path::new("aggregationRule").child("clusterRoleSelectors");
            errors.push(error::required(
                &path,
                "at least one clusterRoleSelector required if aggregationRule is non-nil",
            ));
        }
        errors
    }

    fn validate_update(&self, cx: &Context<'_>, new: &Value, _old: &Value) -> Vec<FieldError> {
        self.validate_create(cx, new)
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn cells(&self, _version: &str, object: &Value, _now: Timestamp) -> Cells {
        vec![name(object), object::meta_str(object, "creationTimestamp").into()]
    }
}
