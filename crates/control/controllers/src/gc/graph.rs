//! Who owns whom.

use std::collections::{HashMap, HashSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{ApiResource, PropagationPolicy};

use super::{FOREGROUND, ORPHAN};

/// An owner as a dependent names it.
#[derive(Debug, Clone, PartialEq)]
pub struct Owner {
    /// Its UID.
    pub uid: String,
    /// Its `apiVersion`.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Whether foreground deletion of the owner waits for the dependent.
    pub blocks: bool,
    /// The reference as written.
    pub reference: OwnerReference,
}

/// What the graph keeps of an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// UID.
    pub uid: String,
    /// Its resource.
    pub resource: ApiResource,
    /// Namespace, empty for cluster-scoped objects.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// resourceVersion as last seen.
    pub resource_version: Option<String>,
    /// Owners.
    pub owners: Vec<Owner>,
    /// Finalizers.
    pub finalizers: Vec<String>,
    /// Whether it is being deleted.
    pub deleting: bool,
}

impl Item {
    /// From an object's metadata.
    pub fn new(resource: &ApiResource, meta: &ObjectMeta) -> Self {
        let owner = |reference: &OwnerReference| Owner {
            uid: reference.uid.clone(),
            api_version: reference.api_version.clone(),
            kind: reference.kind.clone(),
            name: reference.name.clone(),
            blocks: reference.block_owner_deletion == Some(true),
            reference: reference.clone(),
        };
        Self {
            uid: meta.uid.clone().unwrap_or_default(),
            resource: resource.clone(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            resource_version: meta.resource_version.clone(),
            owners: meta.owner_references.iter().flatten().map(owner).collect(),
            finalizers: meta.finalizers.clone().unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
        }
    }

    fn waits_for_dependents(&self) -> bool {
        self.deleting && self.finalizers.iter().any(|f| f == FOREGROUND)
    }
}

/// The owners of an item by what became of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Owners {
    /// They exist.
    pub solid: Vec<Owner>,
    /// They exist, but wait for their dependents to go.
    pub waiting: Vec<Owner>,
    /// They are gone.
    pub gone: Vec<Owner>,
}

/// What becomes of a dependent.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It stays.
    Keep,
    /// It stays and loses the references to these owners.
    Unlink(Vec<String>),
    /// It goes, in this way.
    Delete(PropagationPolicy),
}

/// Decides, as upstream's `attemptToDeleteItem` does. An item with a living owner stays; one whose owner waits for
/// it goes in the foreground if it has finalizers or dependents to wait for, which [`Graph::owners_of`] cannot
/// know, so always.
pub fn verdict(item: &Item, owners: &Owners) -> Verdict {
    if !owners.solid.is_empty() {
        let leave: Vec<String> = owners.gone.iter().chain(&owners.waiting).map(|o| o.uid.clone()).collect();
        return if leave.is_empty() { Verdict::Keep } else { Verdict::Unlink(leave) };
    }
    if !owners.waiting.is_empty() {
        return Verdict::Delete(PropagationPolicy::Foreground);
    }
    if owners.gone.is_empty() {
        return Verdict::Keep;
    }
    let policy = match &item.finalizers {
        finalizers if finalizers.iter().any(|f| f == ORPHAN) => PropagationPolicy::Orphan,
        finalizers if finalizers.iter().any(|f| f == FOREGROUND) => PropagationPolicy::Foreground,
        _ => PropagationPolicy::Background,
    };
    Verdict::Delete(policy)
}

/// Objects by UID, and dependents by owner. Objects that neither own nor are owned cost an entry and nothing else.
#[derive(Debug, Default)]
pub struct Graph {
    items: HashMap<String, Item>,
    dependents: HashMap<String, HashSet<String>>,
    resources: HashMap<(String, String), (ApiResource, bool)>,
}

impl Graph {
    /// Learns of a resource, and whether it is namespaced.
    pub fn add_resource(&mut self, resource: &ApiResource, namespaced: bool) {
        let key = (resource.api_version.clone(), resource.kind.clone());
        self.resources.insert(key, (resource.clone(), namespaced));
    }

    /// The resource of a kind; one of the same group in another version will do.
    pub fn resource(&self, api_version: &str, kind: &str) -> Option<(ApiResource, bool)> {
        let exact = self.resources.get(&(api_version.to_owned(), kind.to_owned()));
        let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
        exact.or_else(|| self.resources.values().find(|(r, _)| r.kind == kind && r.group == group)).cloned()
    }

    /// An object was made or changed; answers the UIDs to look at.
    pub fn upsert(&mut self, item: Item) -> Vec<String> {
        let uid = item.uid.clone();
        let mut look = Vec::new();
        let old = self.items.get(&uid);
        let changed = old.is_none_or(|old| {
            old.owners != item.owners || old.deleting != item.deleting || old.finalizers != item.finalizers
        });
        if changed && (!item.owners.is_empty() || item.deleting) {
            look.push(uid.clone());
        }
        // An owner that begins to wait sends its dependents away; one that stops to block may let its owner go.
        look.extend(
            item.owners
                .iter()
                .map(|o| o.uid.clone())
                .filter(|o| changed && self.items.get(o).is_some_and(Item::waits_for_dependents)),
        );
        for owner in old.into_iter().flat_map(|old| &old.owners) {
            if let Some(dependents) = self.dependents.get_mut(&owner.uid) {
                dependents.remove(&uid);
            }
        }
        for owner in &item.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
        }
        self.items.insert(uid, item);
        look
    }

    /// An object is gone; answers the UIDs to look at: its dependents, and owners that waited for it.
    pub fn remove(&mut self, uid: &str) -> Vec<String> {
        let Some(item) = self.items.remove(uid) else { return Vec::new() };
        let mut look: Vec<String> = self.dependents.get(uid).into_iter().flatten().cloned().collect();
        for owner in &item.owners {
            if let Some(dependents) = self.dependents.get_mut(&owner.uid) {
                dependents.remove(uid);
                if dependents.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
            if self.items.get(&owner.uid).is_some_and(Item::waits_for_dependents) {
                look.push(owner.uid.clone());
            }
        }
        look
    }

    /// The UIDs of all objects of a resource.
    pub fn uids_of(&self, resource: &ApiResource) -> HashSet<String> {
        self.items.values().filter(|item| item.resource == *resource).map(|item| item.uid.clone()).collect()
    }

    /// One object.
    pub fn get(&self, uid: &str) -> Option<Item> {
        self.items.get(uid).cloned()
    }

    /// The dependents of an object.
    pub fn dependents(&self, uid: &str) -> Vec<Item> {
        let uids = self.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|dependent| self.items.get(dependent)).cloned().collect()
    }

    /// The owners of an item as far as the graph knows them, and those it does not know.
    pub fn owners_of(&self, item: &Item) -> (Owners, Vec<Owner>) {
        let (mut owners, mut unknown) = (Owners::default(), Vec::new());
        for owner in &item.owners {
            match self.items.get(&owner.uid) {
                // An owner in another namespace is no owner (KEP: owners are in the same namespace or cluster-scoped).
                Some(found) if !found.namespace.is_empty() && found.namespace != item.namespace => {
                    owners.gone.push(owner.clone());
                }
                Some(found) if found.waits_for_dependents() && owner.blocks => {
                    owners.waiting.push(owner.clone())
                }
                Some(_) => owners.solid.push(owner.clone()),
                None => unknown.push(owner.clone()),
            }
        }
        (owners, unknown)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn item(uid: &str, owners: &[&str], extra: Value) -> Item {
        let references: Vec<Value> = owners
            .iter()
            .map(|o| json!({"apiVersion":"v1","kind":"Pod","name":o,"uid":o,"blockOwnerDeletion":true}))
            .collect();
        let mut meta =
            json!({"uid": uid, "name": uid, "namespace": "default", "ownerReferences": references});
        meta.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let resource = ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&());
        Item::new(&resource, &serde_json::from_value(meta).unwrap())
    }

    fn owner_verdict(graph: &Graph, item: &Item) -> Verdict {
        let (mut owners, unknown) = graph.owners_of(item);
        owners.gone.extend(unknown);
        verdict(item, &owners)
    }

    #[test]
    fn dependents_follow_their_owner() {
        let mut graph = Graph::default();
        graph.upsert(item("owner", &[], json!({})));
        let child = item("child", &["owner"], json!({}));
        assert_eq!(graph.upsert(child.clone()), ["child"]);
        assert_eq!(owner_verdict(&graph, &child), Verdict::Keep);
        assert_eq!(graph.remove("owner"), ["child"]);
        assert_eq!(owner_verdict(&graph, &child), Verdict::Delete(PropagationPolicy::Background));
    }

    #[test]
    fn one_living_owner_is_enough() {
        let mut graph = Graph::default();
        graph.upsert(item("a", &[], json!({})));
        let child = item("child", &["a", "b"], json!({}));
        assert_eq!(owner_verdict(&graph, &child), Verdict::Unlink(vec!["b".into()]));
    }

    #[test]
    fn an_owner_waits_for_what_blocks_it() {
        let mut graph = Graph::default();
        let child = item("child", &["owner"], json!({}));
        graph.upsert(child.clone());
        let deleting = json!({"deletionTimestamp": "2024-01-01T00:00:00Z", "finalizers": [FOREGROUND]});
        assert_eq!(graph.upsert(item("owner", &[], deleting)), ["owner"]);
        assert_eq!(owner_verdict(&graph, &child), Verdict::Delete(PropagationPolicy::Foreground));
        assert_eq!(graph.remove("child"), ["owner"]);
    }

    #[test]
    fn an_owner_elsewhere_is_no_owner() {
        let mut graph = Graph::default();
        graph.upsert(item("owner", &[], json!({"namespace": "other"})));
        let child = item("child", &["owner"], json!({}));
        assert_eq!(owner_verdict(&graph, &child), Verdict::Delete(PropagationPolicy::Background));
    }
}
