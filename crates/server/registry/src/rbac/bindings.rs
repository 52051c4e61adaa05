//! RoleBindings and ClusterRoleBindings.

use jiff::Timestamp;
use serde_json::Value;
use xebec_schema::{FieldError, Path, error};
use xebec_types::{names, object};

use super::GROUP;
use crate::builder::{AGE, ColumnRow, NAME, text, wide};
use crate::cells::{age, list_at, name};
use crate::check::{self, Errors};
use crate::{Cells, Context, Strategy};

/// Columns of both kinds.
pub(crate) const COLUMNS: &[ColumnRow] =
    &[NAME, text("Role"), AGE, wide("Users"), wide("Groups"), wide("ServiceAccounts")];

/// What differs for both kinds of bindings.
pub(crate) struct BindingStrategy {
    /// Kinds that may be bound.
    pub(crate) roles: &'static [&'static str],
    /// Whether the binding lives in a namespace.
    pub(crate) namespaced: bool,
}

impl BindingStrategy {
    fn subject(&self, subject: &Value, path: &Path, errors: &mut Errors) {
        let get = |field| object::str_at(subject, field);
        if get("name").is_empty() {
            errors.push(error::required(&path.child("name"), ""));
        }
        let group = path.child("apiGroup");
        match get("kind") {
            "ServiceAccount" => {
                if !get("name").is_empty() {
                    check::rules(
                        &path.child("name"),
                        get("name"),
                        names::dns1123_subdomain(get("name")),
                        errors,
                    );
                }
                if !get("apiGroup").is_empty() {
                    errors.push(error::not_supported(&group, get("apiGroup"), &[""]));
                }
                if !self.namespaced && get("namespace").is_empty() {
                    errors.push(error::required(&path.child("namespace"), ""));
                }
            }
            "User" | "Group" => {
                if get("apiGroup") != GROUP {
                    errors.push(error::not_supported(&group, get("apiGroup"), &[GROUP]));
                }
            }
            other => {
                let supported = ["ServiceAccount", "User", "Group"];
                errors.push(error::not_supported(&path.child("kind"), other, &supported));
            }
        }
    }
}

impl Strategy for BindingStrategy {
    fn validate_name(&self, name: &str) -> Vec<String> {
        names::path_segment(name)
    }

    fn validate_create(&self, _cx: &Context<'_>, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let get = |field: &str| object::str_at(object, &format!("roleRef.{field}")).to_owned();
        let path = Path::new("roleRef");
        if get("apiGroup") != GROUP {
            errors.push(error::not_supported(&path.child("apiGroup"), get("apiGroup"), &[GROUP]));
        }
        if !self.roles.contains(&get("kind").as_str()) {
            errors.push(error::not_supported(&path.child("kind"), get("kind"), self.roles));
        }
        check::required_name(&path.child("name"), &get("name"), names::path_segment, &mut errors);
        for (i, subject) in list_at(object, "subjects").iter().enumerate() {
            self.subject(subject, &Path::new("subjects").index(i), &mut errors);
        }
        errors
    }

    fn validate_update(&self, cx: &Context<'_>, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = self.validate_create(cx, new);
        if new.get("roleRef") != old.get("roleRef") {
            let value = new.get("roleRef").cloned().unwrap_or_default();
            errors.push(error::invalid(&Path::new("roleRef"), value, "cannot change roleRef"));
        }
        errors
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn cells(&self, _version: &str, object: &Value, now: Timestamp) -> Cells {
        let role =
            format!("{}/{}", object::str_at(object, "roleRef.kind"), object::str_at(object, "roleRef.name"));
        let subjects = |kind: &str| -> Value {
            let of_kind = list_at(object, "subjects").iter().filter(|s| object::str_at(s, "kind") == kind);
            let names: Vec<String> = of_kind
                .map(|s| match (kind, object::str_at(s, "name")) {
                    ("ServiceAccount", name) => format!("{}/{name}", object::str_at(s, "namespace")),
                    (_, name) => name.to_owned(),
                })
                .collect();
            names.join(", ").into()
        };
        vec![
            name(object),
            role.into(),
            age(object, now),
            subjects("User"),
            subjects("Group"),
            subjects("ServiceAccount"),
        ]
    }
}
