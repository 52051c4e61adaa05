//! The roles and bindings that every cluster starts with, named and cut as upstream's are.
//!
//! One difference: `system:node` is bound to the group `system:nodes`, because there is no node authorizer yet.
//! Upstream leaves that binding empty and decides per node what it may read.

mod cluster_roles;
mod controllers;
mod namespaced;

use std::collections::BTreeMap;

use k8s_openapi::api::rbac::v1::{
    AggregationRule, ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use crate::authz::RbacIndex;

const RBAC: &str = "rbac.authorization.k8s.io";

/// Everything to be there when the server starts to answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// Cluster-wide roles.
    pub cluster_roles: Vec<ClusterRole>,
    /// Who has them.
    pub cluster_role_bindings: Vec<ClusterRoleBinding>,
    /// Roles in `kube-system` and `kube-public`.
    pub roles: Vec<Role>,
    /// Who has them.
    pub role_bindings: Vec<RoleBinding>,
}

impl Policy {
    /// Puts everything into an index, for a server that decides before its store is filled.
    pub fn feed(self, index: &RbacIndex) {
        self.cluster_roles.into_iter().for_each(|role| index.upsert_cluster_role(role));
        self.cluster_role_bindings.into_iter().for_each(|binding| index.upsert_cluster_role_binding(binding));
        self.roles.into_iter().for_each(|role| index.upsert_role(role));
        self.role_bindings.into_iter().for_each(|binding| index.upsert_role_binding(binding));
    }
}

/// The policy of a new cluster.
#[must_use]
pub fn policy() -> Policy {
    let mut policy = Policy {
        cluster_roles: cluster_roles::roles(),
        cluster_role_bindings: cluster_roles::bindings(),
        roles: namespaced::roles(),
        role_bindings: namespaced::bindings(),
    };
    for (name, rules) in controllers::rules() {
        let role = format!("system:controller:{name}");
        let subject = account("kube-system", name);
        policy.cluster_role_bindings.push(cluster_binding(&role, &role, vec![subject]));
        policy.cluster_roles.push(cluster_role(&role, rules));
    }
    policy
}

/// A rule in words: lists are separated by spaces, and the core group, which has no name, is `core`.
#[must_use]
pub fn rule(verbs: &str, groups: &str, resources: &str) -> PolicyRule {
    let group = |group: &str| if group == "core" { String::new() } else { group.to_owned() };
    PolicyRule {
        verbs: words(verbs),
        api_groups: Some(groups.split_whitespace().map(group).collect()),
        resources: Some(words(resources)),
        ..PolicyRule::default()
    }
}

/// A [`rule`] for some objects only.
#[must_use]
pub fn rule_for_names(verbs: &str, groups: &str, resources: &str, names: &str) -> PolicyRule {
    PolicyRule { resource_names: Some(words(names)), ..rule(verbs, groups, resources) }
}

/// A rule for paths that are no resources.
#[must_use]
pub fn urls(verbs: &str, urls: &str) -> PolicyRule {
    PolicyRule { verbs: words(verbs), non_resource_urls: Some(words(urls)), ..PolicyRule::default() }
}

/// A ClusterRole marked as part of the defaults.
#[must_use]
pub fn cluster_role(name: &str, rules: Vec<PolicyRule>) -> ClusterRole {
    ClusterRole { metadata: metadata(name, None), rules: Some(rules), aggregation_rule: None }
}

/// A ClusterRole that is made of those that are labelled `label: "true"`.
#[must_use]
pub fn aggregate(name: &str, label: &str) -> ClusterRole {
    let labels: BTreeMap<_, _> = [(label.to_owned(), "true".to_owned())].into();
    let selector = LabelSelector { match_labels: Some(labels), ..LabelSelector::default() };
    let aggregation = AggregationRule { cluster_role_selectors: Some(vec![selector]) };
    ClusterRole { metadata: metadata(name, None), rules: None, aggregation_rule: Some(aggregation) }
}

/// A ClusterRoleBinding marked as part of the defaults.
#[must_use]
pub fn cluster_binding(name: &str, role: &str, subjects: Vec<Subject>) -> ClusterRoleBinding {
    let role_ref = RoleRef { api_group: Some(RBAC.into()), kind: "ClusterRole".into(), name: role.into() };
    ClusterRoleBinding { metadata: metadata(name, None), role_ref, subjects: Some(subjects) }
}

/// A user or group; for service accounts, which have a namespace and no API group, see [`account`].
#[must_use]
pub fn subject(kind: &str, name: &str) -> Subject {
    let api_group = (kind != "ServiceAccount").then(|| RBAC.to_owned());
    Subject { api_group, kind: kind.into(), name: name.into(), namespace: None }
}

/// A service account.
#[must_use]
pub fn account(namespace: &str, name: &str) -> Subject {
    Subject { namespace: Some(namespace.into()), ..subject("ServiceAccount", name) }
}

fn metadata(name: &str, namespace: Option<&str>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.into()),
        namespace: namespace.map(Into::into),
        labels: Some([("kubernetes.io/bootstrapping".to_owned(), "rbac-defaults".to_owned())].into()),
        annotations: Some(
            [("rbac.authorization.kubernetes.io/autoupdate".to_owned(), "true".to_owned())].into(),
        ),
        ..ObjectMeta::default()
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(Into::into).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_bindings_lead_somewhere() {
        let policy = policy();
        let roles: Vec<_> =
            policy.cluster_roles.iter().map(|role| role.metadata.name.clone().unwrap()).collect();
        let unique: BTreeSet<_> = roles.iter().collect();
        assert_eq!(unique.len(), roles.len());
        for binding in &policy.cluster_role_bindings {
            assert!(unique.contains(&binding.role_ref.name), "{}", binding.role_ref.name);
            assert!(!binding.subjects.as_ref().unwrap().is_empty());
        }
        let namespaced: BTreeSet<_> = policy.roles.iter().map(|role| key(&role.metadata)).collect();
        assert_eq!(namespaced.len(), policy.roles.len());
        for binding in &policy.role_bindings {
            let namespace = binding.metadata.namespace.clone().unwrap();
            assert!(
                namespaced.contains(&(namespace, binding.role_ref.name.clone())),
                "{}",
                binding.role_ref.name
            );
        }
        let names: BTreeSet<_> =
            policy.cluster_role_bindings.iter().map(|one| one.metadata.name.clone()).collect();
        assert_eq!(names.len(), policy.cluster_role_bindings.len());
    }

    fn key(metadata: &ObjectMeta) -> (String, String) {
        (metadata.namespace.clone().unwrap(), metadata.name.clone().unwrap())
    }

    #[test]
    fn admin_is_edit_and_more_and_view_is_less() {
        let policy = policy();
        let effective = |name: &str| {
            let role = policy.cluster_roles.iter().find(|role| role.metadata.name.as_deref() == Some(name));
            crate::authz::aggregated_rules(role.unwrap(), policy.cluster_roles.iter())
        };
        let (admin, edit, view) = (effective("admin"), effective("edit"), effective("view"));
        let missing =
            |owned: &[PolicyRule], wanted: &[PolicyRule]| crate::authz::uncovered(owned, wanted).len();
        assert_eq!((missing(&admin, &edit), missing(&edit, &view)), (0, 0));
        assert!(missing(&edit, &admin) > 0 && missing(&view, &edit) > 0);
        assert_eq!(missing(&effective("cluster-admin"), &admin), 0);
        let secrets = [rule("get", "core", "secrets")];
        assert_eq!((missing(&view, &secrets), missing(&edit, &secrets)), (1, 0));
    }
}
