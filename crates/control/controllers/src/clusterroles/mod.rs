//! ClusterRoles that are the sum of others: what `aggregationRule` selects is written into `rules`.
//!
//! The authorizer adds the selected roles up by itself; the rules are there for those who read the role, and for
//! clusters whose state another server takes over.

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::api::PostParams;
use kube::{Api, Client};
use xebec_reconcile::{Informer, Key, Queue, Reconciler, Requeue};
use xebec_types::LabelSelector;

use crate::Informers;

/// The controller; its keys are ClusterRoles.
pub struct Aggregation {
    client: Client,
    roles: Informer<ClusterRole>,
}

impl Aggregation {
    /// The controller and its queue.
    pub fn new(client: Client, informers: &Informers) -> (Self, Queue<Key>) {
        let queue = Queue::new();
        let (q, roles) = (queue.clone(), informers.cluster_roles.clone());
        // Any role may be selected by any sum, before or after it has changed.
        informers.cluster_roles.on_change(move |change| {
            let sums = roles.filter(|role| role.aggregation_rule.is_some());
            let changed = change.sides().filter(|role| role.aggregation_rule.is_some());
            sums.iter()
                .map(AsRef::as_ref)
                .chain(changed.map(AsRef::as_ref))
                .for_each(|sum| q.add(Key::of(sum)));
        });
        (Self { client, roles: informers.cluster_roles.clone() }, queue)
    }
}

impl Reconciler for Aggregation {
    type Key = Key;
    type Error = kube::Error;
    const NAME: &'static str = "clusterrole-aggregation-controller";

    async fn reconcile(&self, key: &Key) -> Result<Requeue, kube::Error> {
        let Some(sum) = self.roles.get(key) else { return Ok(Requeue::Never) };
        let others = self.roles.list();
        let Some(rules) = aggregated(&sum, others.iter().map(AsRef::as_ref)) else {
            return Ok(Requeue::Never);
        };
        if sum.rules.as_deref().unwrap_or_default() == rules {
            return Ok(Requeue::Never);
        }
        let mut changed = sum.as_ref().clone();
        changed.metadata.managed_fields = None;
        changed.rules = Some(rules);
        let api: Api<ClusterRole> = Api::all(self.client.clone());
        // After a conflict the informer brings the newer role.
        crate::tolerate(api.replace(&key.name, &PostParams::default(), &changed).await, &[404, 409])?;
        Ok(Requeue::Never)
    }
}

/// The rules of a role that is the sum of others: by selector, then by name, each rule once. `None` if it is no sum.
fn aggregated<'a>(
    sum: &ClusterRole,
    roles: impl Iterator<Item = &'a ClusterRole> + Clone,
) -> Option<Vec<PolicyRule>> {
    let selectors = sum.aggregation_rule.as_ref()?.cluster_role_selectors.as_deref().unwrap_or_default();
    let mut rules: Vec<PolicyRule> = Vec::new();
    for selector in selectors {
        // What the API server takes can be read.
        let Ok(selector) = LabelSelector::from_structured(selector) else { continue };
        let no_labels = std::collections::BTreeMap::new();
        let mut selected: Vec<&ClusterRole> = roles
            .clone()
            .filter(|role| role.metadata.name != sum.metadata.name)
            .filter(|role| selector.matches_map(role.metadata.labels.as_ref().unwrap_or(&no_labels)))
            .collect();
        selected.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        for rule in selected.into_iter().flat_map(|role| role.rules.iter().flatten()) {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }
    Some(rules)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn role(name: &str, labels: Value, verbs: &[&str], aggregation: Value) -> ClusterRole {
        let rules: Vec<Value> = verbs.iter().map(|verb| json!({"verbs": [verb]})).collect();
        serde_json::from_value(json!({
            "metadata": {"name": name, "labels": labels}, "rules": rules, "aggregationRule": aggregation,
        }))
        .unwrap()
    }

    #[test]
    fn selected_roles_add_up_in_order_and_once() {
        let by = |key: &str| json!({"matchLabels": {key: "true"}});
        let sum =
            role("sum", json!({"a": "true"}), &["old"], json!({"clusterRoleSelectors": [by("b"), by("a")]}));
        let roles = [
            role("z", json!({"a": "true"}), &["get", "list"], Value::Null),
            role("c", json!({"a": "true"}), &["watch"], Value::Null),
            role("other", json!({"a": "false"}), &["delete"], Value::Null),
            role("b", json!({"b": "true", "a": "true"}), &["list"], Value::Null),
            sum.clone(),
        ];
        let rules = aggregated(&sum, roles.iter()).unwrap();
        let verbs: Vec<&str> = rules.iter().flat_map(|rule| &rule.verbs).map(String::as_str).collect();
        assert_eq!(verbs, ["list", "watch", "get"]);
        assert_eq!(aggregated(&roles[0], roles.iter()), None);
    }
}
