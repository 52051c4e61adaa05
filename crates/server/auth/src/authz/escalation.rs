//! Nobody gives what they do not have: the checks before roles and bindings are written.

use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef};
use xebec_types::quoted;

use super::{Attributes, Authorizer, RbacIndex, Target, uncovered};
use crate::user::{UserInfo, groups};

const RBAC: &str = "rbac.authorization.k8s.io";

/// Where a role or binding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleScope<'a> {
    /// A ClusterRole or ClusterRoleBinding.
    Cluster,
    /// A Role or RoleBinding in this namespace.
    Namespace(&'a str),
}

impl<'a> RoleScope<'a> {
    fn namespace(self) -> &'a str {
        match self {
            Self::Cluster => "",
            Self::Namespace(namespace) => namespace,
        }
    }
}

/// Why a role or binding must not be written; the detail of a 403 answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EscalationError {
    /// It would allow more than the writer may do.
    #[error(
        "user {} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        quoted(user),
        tell_list(groups),
        missing.iter().map(tell_rule).collect::<Vec<_>>().join("\n")
    )]
    NotHeld {
        /// The writer.
        user: String,
        /// The writer's groups.
        groups: Vec<String>,
        /// What the writer lacks.
        missing: Vec<PolicyRule>,
    },
    /// A binding to a role that does not exist, by somebody who may not bind it whatever it will say.
    #[error("{kind}.rbac.authorization.k8s.io {} not found", quoted(name))]
    NoRole {
        /// `clusterroles` or `roles`.
        kind: &'static str,
        /// The role's name.
        name: String,
    },
}

/// Checks that `user` may write a role named `name` with these rules: by the verb `escalate` on it, or by having
/// all of them.
///
/// # Errors
/// [`EscalationError::NotHeld`].
pub fn check_role_write(
    index: &RbacIndex,
    user: &UserInfo,
    scope: RoleScope<'_>,
    name: &str,
    rules: &[PolicyRule],
) -> Result<(), EscalationError> {
    let resource = if scope == RoleScope::Cluster { "clusterroles" } else { "roles" };
    if may(index, user, "escalate", resource, scope, name) {
        return Ok(());
    }
    check_held(index, user, scope, rules)
}

/// Checks that `user` may write a binding to `role`: by the verb `bind` on it, or by having all that it allows.
///
/// # Errors
/// Either [`EscalationError`].
pub fn check_binding_write(
    index: &RbacIndex,
    user: &UserInfo,
    scope: RoleScope<'_>,
    role: &RoleRef,
) -> Result<(), EscalationError> {
    let kind = if role.kind == "ClusterRole" { "clusterroles" } else { "roles" };
    if may(index, user, "bind", kind, scope, &role.name) {
        return Ok(());
    }
    match index.rules_of(role, scope.namespace()) {
        Some(rules) => check_held(index, user, scope, &rules),
        None => Err(EscalationError::NoRole { kind, name: role.name.clone() }),
    }
}

fn may(
    index: &RbacIndex,
    user: &UserInfo,
    verb: &str,
    resource: &str,
    scope: RoleScope<'_>,
    name: &str,
) -> bool {
    let namespace = scope.namespace();
    let target = Target::Resource { group: RBAC, resource, subresource: "", namespace, name };
    user.is_in(groups::MASTERS) || index.authorize(&Attributes { user, verb, target }).is_allowed()
}

fn check_held(
    index: &RbacIndex,
    user: &UserInfo,
    scope: RoleScope<'_>,
    rules: &[PolicyRule],
) -> Result<(), EscalationError> {
    let missing = uncovered(&index.rules_for(user, scope.namespace()), rules);
    if missing.is_empty() {
        return Ok(());
    }
    Err(EscalationError::NotHeld { user: user.name.clone(), groups: user.groups.clone(), missing })
}

fn tell_list(strings: &[String]) -> String {
    format!("[{}]", strings.iter().map(|one| quoted(one)).collect::<Vec<_>>().join(" "))
}

fn tell_rule(rule: &PolicyRule) -> String {
    let parts = [
        ("APIGroups", rule.api_groups.as_ref()),
        ("Resources", rule.resources.as_ref()),
        ("ResourceNames", rule.resource_names.as_ref()),
        ("NonResourceURLs", rule.non_resource_urls.as_ref()),
        ("Verbs", Some(&rule.verbs)),
    ];
    let parts = parts
        .iter()
        .filter_map(|(name, list)| list.filter(|list| !list.is_empty()).map(|list| (name, list)))
        .map(|(name, list)| format!("{name}:{}", tell_list(list)));
    format!("{{{}}}", parts.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::bootstrap::{cluster_binding, cluster_role, rule, subject};

    fn index(rules: Vec<PolicyRule>) -> (RbacIndex, UserInfo) {
        let index = RbacIndex::new();
        index.upsert_cluster_role(cluster_role("own", rules));
        index.upsert_cluster_role(cluster_role("pods", vec![rule("get", "core", "pods")]));
        index.upsert_cluster_role_binding(cluster_binding("own", "own", vec![subject("User", "ann")]));
        (index, UserInfo { name: "ann".into(), groups: vec!["g".into()], ..UserInfo::default() })
    }

    fn role_ref(name: &str) -> RoleRef {
        RoleRef { api_group: Some(RBAC.into()), kind: "ClusterRole".into(), name: name.into() }
    }

    #[test]
    fn roles() {
        let (index, ann) = index(vec![rule("get list", "core", "pods")]);
        let check =
            |rules: &[PolicyRule]| check_role_write(&index, &ann, RoleScope::Namespace("ns"), "r", rules);
        assert_eq!(check(&[rule("get", "core", "pods")]), Ok(()));
        let error = check(&[rule("get delete", "core", "pods")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "user \"ann\" (groups=[\"g\"]) is attempting to grant RBAC permissions not currently held:\n\
             {APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}"
        );
        let (index, ann) = self::index(vec![rule("escalate", RBAC, "clusterroles")]);
        let all = [rule("*", "*", "*")];
        assert_eq!(check_role_write(&index, &ann, RoleScope::Cluster, "r", &all), Ok(()));
        assert!(check_role_write(&index, &ann, RoleScope::Namespace("ns"), "r", &all).is_err());
        let root = UserInfo { groups: vec![groups::MASTERS.into()], ..UserInfo::default() };
        assert_eq!(check_role_write(&index, &root, RoleScope::Cluster, "r", &all), Ok(()));
    }

    #[test]
    fn bindings() {
        let (index, ann) = index(vec![rule("get", "core", "pods")]);
        let check = |name| check_binding_write(&index, &ann, RoleScope::Cluster, &role_ref(name));
        assert_eq!(check("pods"), Ok(()), "all of it is held");
        let error = check("none").unwrap_err();
        assert_eq!(error.to_string(), "clusterroles.rbac.authorization.k8s.io \"none\" not found");
        index.upsert_cluster_role(cluster_role("more", vec![rule("get", "core", "secrets")]));
        assert!(matches!(check("more"), Err(EscalationError::NotHeld { .. })));
        let (index, ann) = self::index(vec![rule("bind", RBAC, "clusterroles")]);
        assert_eq!(check_binding_write(&index, &ann, RoleScope::Cluster, &role_ref("none")), Ok(()));
    }
}
