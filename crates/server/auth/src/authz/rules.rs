//! What one rule allows, and whether some rules allow all that others do.

use k8s_openapi::api::rbac::v1::PolicyRule;

use super::{Attributes, Target};

/// Whether `rule` allows it.
#[must_use]
pub fn rule_allows(rule: &PolicyRule, attributes: &Attributes<'_>) -> bool {
    if !has(Some(&rule.verbs), attributes.verb) {
        return false;
    }
    match attributes.target {
        Target::Path(path) => list(rule.non_resource_urls.as_ref()).iter().any(|url| url_covers(url, path)),
        Target::Resource { group, resource, subresource, name, .. } => {
            has(rule.api_groups.as_ref(), group)
                && list(rule.resources.as_ref())
                    .iter()
                    .any(|allowed| resource_covers(allowed, resource, subresource))
                && name_allowed(rule, name)
        }
    }
}

/// The parts of `wanted` that `owned` does not allow, each as a rule of its own; none if everything is covered.
#[must_use]
pub fn uncovered(owned: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    let parts = wanted.iter().flat_map(break_down);
    parts.filter(|part| !owned.iter().any(|rule| rule_covers(rule, part))).collect()
}

/// Splits a rule into rules for one verb on one resource or URL each; resource names stay together.
fn break_down(rule: &PolicyRule) -> Vec<PolicyRule> {
    let mut parts = Vec::new();
    for verb in &rule.verbs {
        for group in list(rule.api_groups.as_ref()) {
            for resource in list(rule.resources.as_ref()) {
                let base = PolicyRule {
                    verbs: vec![verb.clone()],
                    api_groups: Some(vec![group.clone()]),
                    resources: Some(vec![resource.clone()]),
                    ..PolicyRule::default()
                };
                let names = list(rule.resource_names.as_ref());
                if names.is_empty() {
                    parts.push(base);
                    continue;
                }
                parts.extend(
                    names
                        .iter()
                        .map(|name| PolicyRule { resource_names: Some(vec![name.clone()]), ..base.clone() }),
                );
            }
        }
        for url in list(rule.non_resource_urls.as_ref()) {
            parts.push(PolicyRule {
                verbs: vec![verb.clone()],
                non_resource_urls: Some(vec![url.clone()]),
                ..PolicyRule::default()
            });
        }
    }
    parts
}

/// Whether `owner` allows all that `part` does, which is for one verb, group and resource, or one URL.
fn rule_covers(owner: &PolicyRule, part: &PolicyRule) -> bool {
    let subset = |owned: Option<&Vec<String>>, wanted: &[String]| wanted.iter().all(|one| has(owned, one));
    if !subset(Some(&owner.verbs), &part.verbs) {
        return false;
    }
    if let Some(urls) = &part.non_resource_urls {
        let owned = list(owner.non_resource_urls.as_ref());
        return urls.iter().all(|url| owned.iter().any(|owned| url_covers(owned, url)));
    }
    let resources_covered = list(part.resources.as_ref()).iter().all(|wanted| {
        let (resource, subresource) = wanted.split_once('/').unwrap_or((wanted, ""));
        list(owner.resources.as_ref())
            .iter()
            .any(|owned| owned == wanted || resource_covers(owned, resource, subresource))
    });
    let owned_names = list(owner.resource_names.as_ref());
    let wanted_names = list(part.resource_names.as_ref());
    let names_covered = owned_names.is_empty()
        || !wanted_names.is_empty() && wanted_names.iter().all(|name| owned_names.contains(name));
    subset(owner.api_groups.as_ref(), list(part.api_groups.as_ref())) && resources_covered && names_covered
}

fn list(strings: Option<&Vec<String>>) -> &[String] {
    strings.map_or(&[], Vec::as_slice)
}

fn has(strings: Option<&Vec<String>>, wanted: &str) -> bool {
    list(strings).iter().any(|one| one == "*" || one == wanted)
}

/// `pods` is the resource alone, `pods/log` one subresource, `*/scale` one subresource of all, `*` everything.
fn resource_covers(allowed: &str, resource: &str, subresource: &str) -> bool {
    if allowed == "*" {
        return true;
    }
    let (allowed_resource, allowed_subresource) = allowed.split_once('/').unwrap_or((allowed, ""));
    allowed_subresource == subresource
        && (allowed_resource == resource || allowed_resource == "*" && !subresource.is_empty())
}

/// A collection has no name, so a rule with names never allows it.
fn name_allowed(rule: &PolicyRule, name: &str) -> bool {
    let names = list(rule.resource_names.as_ref());
    names.is_empty() || names.iter().any(|allowed| allowed == name)
}

/// `/a/*` is everything that begins with `/a/`, `*` everything.
fn url_covers(allowed: &str, path: &str) -> bool {
    allowed == "*"
        || allowed == path
        || allowed.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::bootstrap::{rule, rule_for_names, urls};
    use crate::user::UserInfo;

    fn allows(rule: &PolicyRule, verb: &str, group: &str, resource: &str, name: &str) -> bool {
        let user = UserInfo::default();
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let target = Target::Resource { group, resource, subresource, namespace: "ns", name };
        rule_allows(rule, &Attributes { user: &user, verb, target })
    }

    #[test]
    fn resources_and_subresources() {
        let pods = rule("get list", "core", "pods");
        assert!(allows(&pods, "get", "", "pods", "a"));
        assert!(!allows(&pods, "delete", "", "pods", "a"));
        assert!(!allows(&pods, "get", "apps", "pods", "a"));
        assert!(!allows(&pods, "get", "", "pods/log", "a"), "a resource is not its subresources");
        assert!(allows(&rule("get", "core", "pods/log"), "get", "", "pods/log", "a"));
        assert!(!allows(&rule("get", "core", "pods/log"), "get", "", "pods", "a"));
        let scale = rule("update", "*", "*/scale");
        assert!(allows(&scale, "update", "apps", "deployments/scale", "a"));
        assert!(!allows(&scale, "update", "apps", "deployments", "a"));
        let all = rule("*", "*", "*");
        assert!(allows(&all, "anything", "x", "y/z", ""));
        let named = rule_for_names("get list", "core", "configmaps", "a b");
        assert!(allows(&named, "get", "", "configmaps", "b"));
        assert!(!allows(&named, "get", "", "configmaps", "c"));
        assert!(!allows(&named, "list", "", "configmaps", ""), "a collection has no name");
    }

    #[test]
    fn paths() {
        let user = UserInfo::default();
        let allows = |rule: &PolicyRule, path| {
            rule_allows(rule, &Attributes { user: &user, verb: "get", target: Target::Path(path) })
        };
        let some = urls("get", "/healthz /api/*");
        assert!(allows(&some, "/healthz") && allows(&some, "/api/v1"));
        assert!(!allows(&some, "/healthz/x") && !allows(&some, "/apis"));
        assert!(allows(&urls("get", "*"), "/x"));
        assert!(!allows(&rule("get", "core", "*"), "/x"), "resources are not paths");
    }

    #[test]
    fn covering() {
        let missing = |owned: &[PolicyRule], wanted: &[PolicyRule]| {
            uncovered(owned, wanted)
                .iter()
                .map(|rule| {
                    let what = rule.resources.as_ref().or(rule.non_resource_urls.as_ref()).unwrap();
                    format!("{} {}", rule.verbs.join(","), what.join(","))
                })
                .collect::<Vec<_>>()
        };
        let none: [&str; 0] = [];
        let owned =
            [rule("get list", "core", "pods pods/log"), rule("*", "apps", "*"), urls("get", "/api/*")];
        assert_eq!(missing(&owned, &[rule("get", "core", "pods")]), none);
        assert_eq!(missing(&owned, &[rule("list get", "core", "pods/log pods")]), none, "any order");
        assert_eq!(missing(&owned, &[rule("get delete", "core", "pods")]), ["delete pods"]);
        assert_eq!(missing(&owned, &[rule("*", "core", "pods")]), ["* pods"]);
        assert_eq!(missing(&owned, &[rule("*", "apps", "deployments/scale")]), none);
        assert_eq!(missing(&owned, &[rule("get", "apps core", "secrets")]), ["get secrets"]);
        assert_eq!(missing(&owned, &[urls("get", "/api/v1 /api/* /version")]), ["get /version"]);
        let named = [rule_for_names("get", "core", "secrets", "a b")];
        assert_eq!(missing(&named, &[rule_for_names("get", "core", "secrets", "a")]), none);
        assert_eq!(missing(&named, &[rule_for_names("get", "core", "secrets", "a c")]), ["get secrets"]);
        assert_eq!(
            missing(&named, &[rule("get", "core", "secrets")]),
            ["get secrets"],
            "names do not cover all"
        );
        assert_eq!(missing(&[rule("get", "*", "*/scale")], &[rule("get", "apps", "x/scale")]), none);
        assert_eq!(missing(&[rule("get", "*", "*/scale")], &[rule("get", "apps", "*/scale")]), none);
        assert_eq!(
            missing(&[rule("get", "*", "x/scale")], &[rule("get", "apps", "*/scale")]),
            ["get */scale"]
        );
    }
}
