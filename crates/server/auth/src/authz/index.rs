//! RBAC over an index of roles and bindings by subject.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use k8s_openapi::api::authorization::v1::{NonResourceRule, ResourceRule, SubjectRulesReviewStatus};
use k8s_openapi::api::rbac::v1::{
    AggregationRule, ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use xebec_types::LabelSelector;

use super::{Attributes, Authorizer, Decision, Target, Verdict, rule_allows};
use crate::user::{UserInfo, groups, service_account_name};

type Rules = Arc<[PolicyRule]>;
/// Namespace and name; the namespace is empty for cluster scope.
type Key = (String, String);

/// All roles and bindings of the cluster; fed from watches, asked by every request.
#[derive(Debug, Default)]
pub struct RbacIndex {
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    cluster_roles: HashMap<String, ClusterRole>,
    /// What each ClusterRole amounts to, aggregation resolved.
    cluster_rules: HashMap<String, Rules>,
    role_rules: HashMap<Key, Rules>,
    bindings: HashMap<Key, Binding>,
    by_subject: HashMap<Who, HashMap<String, BTreeSet<String>>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Binding {
    cluster_role: bool,
    role: String,
    who: BTreeSet<Who>,
}

/// A subject as requests show it: service accounts are users.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Who {
    User(String),
    Group(String),
}

impl RbacIndex {
    /// An index that knows nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a new or changed ClusterRole.
    pub fn upsert_cluster_role(&self, role: ClusterRole) {
        let mut state = self.write();
        let Some(name) = role.metadata.name.clone() else { return };
        state.cluster_roles.insert(name, role);
        state.resolve();
    }

    /// Forgets a ClusterRole.
    pub fn delete_cluster_role(&self, name: &str) {
        let mut state = self.write();
        state.cluster_roles.remove(name);
        state.resolve();
    }

    /// Takes a new or changed Role.
    pub fn upsert_role(&self, role: Role) {
        let (Some(namespace), Some(name)) = (role.metadata.namespace, role.metadata.name) else { return };
        self.write().role_rules.insert((namespace, name), role.rules.unwrap_or_default().into());
    }

    /// Forgets a Role.
    pub fn delete_role(&self, namespace: &str, name: &str) {
        self.write().role_rules.remove(&(namespace.into(), name.into()));
    }

    /// Takes a new or changed ClusterRoleBinding.
    pub fn upsert_cluster_role_binding(&self, binding: ClusterRoleBinding) {
        let Some(name) = binding.metadata.name else { return };
        let binding = Binding::new("", &binding.role_ref, binding.subjects.unwrap_or_default());
        self.write().bind((String::new(), name), Some(binding));
    }

    /// Forgets a ClusterRoleBinding.
    pub fn delete_cluster_role_binding(&self, name: &str) {
        self.write().bind((String::new(), name.into()), None);
    }

    /// Takes a new or changed RoleBinding.
    pub fn upsert_role_binding(&self, binding: RoleBinding) {
        let (Some(namespace), Some(name)) = (binding.metadata.namespace, binding.metadata.name) else {
            return;
        };
        let bound = Binding::new(&namespace, &binding.role_ref, binding.subjects.unwrap_or_default());
        self.write().bind((namespace, name), Some(bound));
    }

    /// Forgets a RoleBinding.
    pub fn delete_role_binding(&self, namespace: &str, name: &str) {
        self.write().bind((namespace.into(), name.into()), None);
    }

    /// The rules that a role reference in `namespace` (empty: cluster scope) stands for; `None` if there is no such
    /// role.
    #[must_use]
    pub fn rules_of(&self, role: &RoleRef, namespace: &str) -> Option<Vec<PolicyRule>> {
        let state = self.read();
        state.rules(role.kind == "ClusterRole", namespace, &role.name).map(|rules| rules.to_vec())
    }

    /// Every rule that applies to `user` in `namespace` (empty: only those that apply everywhere).
    #[must_use]
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> Vec<PolicyRule> {
        let mut all = Vec::new();
        if user.is_in(groups::MASTERS) {
            all.push(crate::bootstrap::rule("*", "*", "*"));
            all.push(crate::bootstrap::urls("*", "*"));
        }
        self.read().visit(user, namespace, &mut |_, _, rules| {
            all.extend_from_slice(rules);
            false
        });
        all
    }

    /// What `kubectl auth can-i --list` shows: everything that `user` may do in `namespace`.
    #[must_use]
    pub fn review_rules(&self, user: &UserInfo, namespace: &str) -> SubjectRulesReviewStatus {
        let mut review = SubjectRulesReviewStatus::default();
        for rule in self.rules_for(user, namespace) {
            if rule.resources.as_ref().is_some_and(|resources| !resources.is_empty()) {
                review.resource_rules.push(ResourceRule {
                    verbs: rule.verbs.clone(),
                    api_groups: rule.api_groups,
                    resources: rule.resources,
                    resource_names: rule.resource_names,
                });
            }
            if rule.non_resource_urls.as_ref().is_some_and(|urls| !urls.is_empty()) {
                let rule = NonResourceRule { verbs: rule.verbs, non_resource_urls: rule.non_resource_urls };
                review.non_resource_rules.push(rule);
            }
        }
        review
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Authorizer for RbacIndex {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        if attributes.user.is_in(groups::MASTERS) {
            return Decision { verdict: Verdict::Allow, reason: String::new() };
        }
        let namespace = match attributes.target {
            Target::Resource { namespace, .. } => namespace,
            Target::Path(_) => "",
        };
        let mut reason = None;
        self.read().visit(attributes.user, namespace, &mut |key, binding, rules| {
            let allowed = rules.iter().any(|rule| rule_allows(rule, attributes));
            if allowed {
                reason = Some(binding.reason(key, attributes.user));
            }
            allowed
        });
        match reason {
            Some(reason) => Decision { verdict: Verdict::Allow, reason },
            None => Decision { verdict: Verdict::NoOpinion, reason: String::new() },
        }
    }
}

impl State {
    fn bind(&mut self, key: Key, binding: Option<Binding>) {
        let previous = match binding.clone() {
            Some(binding) => self.bindings.insert(key.clone(), binding),
            None => self.bindings.remove(&key),
        };
        let (namespace, name) = key;
        for who in previous.into_iter().flat_map(|binding| binding.who) {
            let Some(scopes) = self.by_subject.get_mut(&who) else { continue };
            if let Some(names) = scopes.get_mut(&namespace) {
                names.remove(&name);
            }
            scopes.retain(|_, names| !names.is_empty());
            if scopes.is_empty() {
                self.by_subject.remove(&who);
            }
        }
        for who in binding.into_iter().flat_map(|binding| binding.who) {
            let scopes = self.by_subject.entry(who).or_default();
            scopes.entry(namespace.clone()).or_default().insert(name.clone());
        }
    }

    /// Resolves aggregation anew; roles change seldom and there are few.
    fn resolve(&mut self) {
        let roles = &self.cluster_roles;
        self.cluster_rules = roles
            .iter()
            .map(|(name, role)| (name.clone(), aggregated_rules(role, roles.values()).into()))
            .collect();
    }

    fn rules(&self, cluster_role: bool, namespace: &str, name: &str) -> Option<&Rules> {
        if cluster_role {
            return self.cluster_rules.get(name);
        }
        self.role_rules.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// Shows every binding of `user` that holds in `namespace`, those for everywhere first, until `stop` says so.
    fn visit(
        &self,
        user: &UserInfo,
        namespace: &str,
        stop: &mut dyn FnMut(&Key, &Binding, &[PolicyRule]) -> bool,
    ) {
        let who = std::iter::once(Who::User(user.name.clone()))
            .chain(user.groups.iter().map(|group| Who::Group(group.clone())));
        let scopes: Vec<_> = who.filter_map(|who| self.by_subject.get(&who)).collect();
        let places = std::iter::once("").chain(Some(namespace).filter(|namespace| !namespace.is_empty()));
        for place in places {
            for names in scopes.iter().filter_map(|scopes| scopes.get(place)) {
                for name in names {
                    let key = (place.to_owned(), name.clone());
                    let Some(binding) = self.bindings.get(&key) else { continue };
                    let Some(rules) = self.rules(binding.cluster_role, place, &binding.role) else {
                        continue;
                    };
                    if stop(&key, binding, rules) {
                        return;
                    }
                }
            }
        }
    }
}

impl Binding {
    fn new(namespace: &str, role: &RoleRef, subjects: Vec<Subject>) -> Self {
        let who = subjects.into_iter().filter_map(|subject| Who::new(namespace, subject)).collect();
        Self { cluster_role: role.kind == "ClusterRole", role: role.name.clone(), who }
    }

    /// Upstream's words, which `kubectl auth can-i -v` and audit logs show.
    fn reason(&self, (namespace, name): &Key, user: &UserInfo) -> String {
        let role = if self.cluster_role { "ClusterRole" } else { "Role" };
        let binding = if namespace.is_empty() {
            format!("ClusterRoleBinding \"{name}\"")
        } else {
            format!("RoleBinding \"{name}/{namespace}\"")
        };
        format!("RBAC: allowed by {binding} of {role} \"{}\" to {}", self.role, self.matching(user))
    }

    /// The subject through which `user` has this binding.
    fn matching(&self, user: &UserInfo) -> String {
        if self.who.contains(&Who::User(user.name.clone())) {
            return format!("User \"{}\"", user.name);
        }
        let group = user.groups.iter().find(|group| self.who.contains(&Who::Group((*group).clone())));
        format!("Group \"{}\"", group.map_or("", String::as_str))
    }
}

impl Who {
    fn new(namespace: &str, subject: Subject) -> Option<Self> {
        match subject.kind.as_str() {
            "User" => Some(Self::User(subject.name)),
            "Group" => Some(Self::Group(subject.name)),
            "ServiceAccount" => {
                let namespace = subject.namespace.as_deref().unwrap_or(namespace);
                (!namespace.is_empty()).then(|| Self::User(service_account_name(namespace, &subject.name)))
            }
            // Validation lets no other kind in.
            _ => None,
        }
    }
}

/// The rules of a ClusterRole: its own, or if it aggregates, those of all that its selectors choose, each once.
///
/// What a controller writes into the `rules` of such a role, too, so that clients see them.
#[must_use]
pub fn aggregated_rules<'a>(
    role: &'a ClusterRole,
    all: impl Iterator<Item = &'a ClusterRole> + Clone,
) -> Vec<PolicyRule> {
    let mut rules = Vec::new();
    let mut seen = BTreeSet::new();
    collect(role, &all, &mut seen, &mut rules);
    rules
}

fn collect<'a>(
    role: &'a ClusterRole,
    all: &(impl Iterator<Item = &'a ClusterRole> + Clone),
    seen: &mut BTreeSet<&'a str>,
    rules: &mut Vec<PolicyRule>,
) {
    // Roles may choose one another.
    if !seen.insert(role.metadata.name.as_deref().unwrap_or_default()) {
        return;
    }
    let Some(aggregation) = &role.aggregation_rule else {
        for rule in role.rules.iter().flatten() {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
        return;
    };
    let selectors = selectors(aggregation);
    let labels = |role: &ClusterRole| role.metadata.labels.clone().unwrap_or_default();
    let mut chosen: Vec<_> = all
        .clone()
        .filter(|other| selectors.iter().any(|selector| selector.matches_map(&labels(other))))
        .collect();
    chosen.sort_unstable_by_key(|role| role.metadata.name.as_deref());
    for other in chosen {
        collect(other, all, seen, rules);
    }
}

/// The selectors that can be understood; validation lets no others in.
fn selectors(aggregation: &AggregationRule) -> Vec<LabelSelector> {
    let selectors = aggregation.cluster_role_selectors.iter().flatten();
    selectors.filter_map(|selector| LabelSelector::from_structured(selector).ok()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::bootstrap::{cluster_role, policy, rule, subject};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    fn user(name: &str, groups: &[&str]) -> UserInfo {
        let groups = groups.iter().map(|&group| group.into()).collect();
        UserInfo { name: name.into(), groups, ..UserInfo::default() }
    }

    fn may(index: &RbacIndex, user: &UserInfo, verb: &str, resource: &str, namespace: &str) -> bool {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let target = Target::Resource { group: "", resource, subresource, namespace, name: "" };
        index.authorize(&Attributes { user, verb, target }).is_allowed()
    }

    fn bind(index: &RbacIndex, namespace: &str, name: &str, role: &str, kind: &str, subjects: Vec<Subject>) {
        let metadata = ObjectMeta {
            name: Some(name.into()),
            namespace: (!namespace.is_empty()).then(|| namespace.into()),
            ..ObjectMeta::default()
        };
        let role_ref = RoleRef {
            api_group: Some("rbac.authorization.k8s.io".into()),
            kind: kind.into(),
            name: role.into(),
        };
        if namespace.is_empty() {
            index.upsert_cluster_role_binding(ClusterRoleBinding {
                metadata,
                role_ref,
                subjects: Some(subjects),
            });
        } else {
            index.upsert_role_binding(RoleBinding { metadata, role_ref, subjects: Some(subjects) });
        }
    }

    #[test]
    fn scopes_subjects_and_changes() {
        let index = RbacIndex::new();
        index.upsert_cluster_role(cluster_role("reader", vec![rule("get list", "core", "pods")]));
        bind(
            &index,
            "ns",
            "b",
            "reader",
            "ClusterRole",
            vec![subject("User", "ann"), subject("Group", "dev")],
        );
        let (ann, bob) = (user("ann", &[]), user("bob", &["dev"]));
        assert!(may(&index, &ann, "list", "pods", "ns") && may(&index, &bob, "list", "pods", "ns"));
        let target =
            Target::Resource { group: "", resource: "pods", subresource: "", namespace: "ns", name: "" };
        let decision = index.authorize(&Attributes { user: &bob, verb: "list", target });
        assert_eq!(
            decision.reason,
            r#"RBAC: allowed by RoleBinding "b/ns" of ClusterRole "reader" to Group "dev""#
        );
        assert!(!may(&index, &ann, "list", "pods", "other"), "a RoleBinding holds in its namespace");
        assert!(!may(&index, &ann, "list", "pods", ""), "and not for all of them");
        assert!(!may(&index, &user("dev", &["ann"]), "list", "pods", "ns"), "users are not groups");

        bind(&index, "", "everywhere", "reader", "ClusterRole", vec![subject("User", "ann")]);
        assert!(may(&index, &ann, "list", "pods", "other") && may(&index, &ann, "list", "pods", ""));
        index.delete_cluster_role_binding("everywhere");
        assert!(!may(&index, &ann, "list", "pods", "other") && may(&index, &ann, "list", "pods", "ns"));

        bind(&index, "ns", "b", "reader", "ClusterRole", vec![subject("User", "ann")]);
        assert!(!may(&index, &bob, "list", "pods", "ns"), "dev is no longer bound");
        index.delete_cluster_role("reader");
        assert!(!may(&index, &ann, "list", "pods", "ns"), "a binding to nothing");
        index.delete_role_binding("ns", "b");
        assert!(index.read().by_subject.is_empty() && index.read().bindings.is_empty());
        assert!(may(&index, &user("x", &[groups::MASTERS]), "any", "thing", ""));
    }

    #[test]
    fn roles_and_service_accounts() {
        let index = RbacIndex::new();
        let metadata =
            ObjectMeta { name: Some("r".into()), namespace: Some("ns".into()), ..ObjectMeta::default() };
        index.upsert_role(Role { metadata, rules: Some(vec![rule("get", "core", "secrets")]) });
        let account = |namespace: Option<&str>| Subject {
            namespace: namespace.map(Into::into),
            ..subject("ServiceAccount", "app")
        };
        bind(&index, "ns", "own", "r", "Role", vec![account(None)]);
        let (own, other) =
            (UserInfo::service_account("ns", "app", ""), UserInfo::service_account("other", "app", ""));
        assert!(may(&index, &own, "get", "secrets", "ns") && !may(&index, &other, "get", "secrets", "ns"));
        bind(&index, "ns", "own", "r", "Role", vec![account(Some("other"))]);
        assert!(!may(&index, &own, "get", "secrets", "ns") && may(&index, &other, "get", "secrets", "ns"));
        bind(&index, "elsewhere", "own", "r", "Role", vec![account(Some("ns"))]);
        assert!(!may(&index, &own, "get", "secrets", "elsewhere"), "that namespace has no such role");
        index.delete_role("ns", "r");
        assert!(!may(&index, &other, "get", "secrets", "ns"));
    }

    #[test]
    fn aggregation_follows_labels_and_survives_cycles() {
        let index = RbacIndex::new();
        let labelled = |mut role: ClusterRole, label: &str| {
            role.metadata.labels = Some([(label.to_owned(), "true".to_owned())].into());
            role
        };
        let aggregate = |name: &str, label: &str| crate::bootstrap::aggregate(name, label);
        index.upsert_cluster_role(labelled(aggregate("a", "to-a"), "to-b"));
        index.upsert_cluster_role(labelled(aggregate("b", "to-b"), "to-a"));
        bind(&index, "", "x", "a", "ClusterRole", vec![subject("User", "ann")]);
        let ann = user("ann", &[]);
        assert!(!may(&index, &ann, "get", "pods", ""));
        index.upsert_cluster_role(labelled(cluster_role("part", vec![rule("get", "core", "pods")]), "to-b"));
        assert!(may(&index, &ann, "get", "pods", ""), "through b");
        index.delete_cluster_role("part");
        assert!(!may(&index, &ann, "get", "pods", ""));
    }

    #[test]
    fn a_cluster_as_it_starts() {
        let index = RbacIndex::new();
        policy().feed(&index);
        let account = UserInfo::service_account("kube-system", "deployment-controller", "");
        assert!(may(&index, &account, "list", "pods", ""));
        assert!(!may(&index, &account, "get", "secrets", ""));
        let anyone = user("ann", &[groups::AUTHENTICATED]);
        let get = |user: &UserInfo, path| {
            index.authorize(&Attributes { user, verb: "get", target: Target::Path(path) }).is_allowed()
        };
        assert!(get(&anyone, "/apis/apps/v1") && !get(&anyone, "/metrics"));
        assert!(get(&UserInfo::anonymous(), "/healthz") && !get(&UserInfo::anonymous(), "/apis"));
        let node = user("system:node:n", &[groups::NODES]);
        assert!(
            may(&index, &node, "get", "configmaps", "ns")
                && !may(&index, &node, "delete", "configmaps", "ns")
        );
        bind(&index, "ns", "ed", "edit", "ClusterRole", vec![subject("User", "ed")]);
        let ed = user("ed", &[]);
        assert!(may(&index, &ed, "create", "pods", "ns") && may(&index, &ed, "get", "pods/log", "ns"));
        assert!(!may(&index, &ed, "create", "namespaces", "ns"));
        let review = index.review_rules(&anyone, "ns");
        assert!(!review.incomplete && review.non_resource_rules.len() == 2, "{review:?}");
        assert_eq!(review.resource_rules.len(), 2);
    }
}
