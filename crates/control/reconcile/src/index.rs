//! Ways to find objects of an informer without looking at all of them.

use std::borrow::Cow;
use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use serde::de::DeserializeOwned;

use crate::Informer;

/// An index over an informer's objects; see [`Informer::index`]. Cloning is cheap.
pub struct Index<K> {
    informer: Informer<K>,
    number: usize,
}

impl<K> Clone for Index<K> {
    fn clone(&self) -> Self {
        Self { informer: self.informer.clone(), number: self.number }
    }
}

impl<K> Index<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    pub(crate) fn new(informer: Informer<K>, number: usize) -> Self {
        Self { informer, number }
    }

    /// The objects that stand under `value`.
    pub fn get(&self, value: &str) -> Vec<Arc<K>> {
        self.informer.indexed(self.number, value)
    }
}

/// Objects by their controller (upstream's `PodControllerIndex`). Cloning is cheap.
pub struct ByController<K>(Index<K>);

impl<K> Clone for ByController<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K> ByController<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    /// An index over this informer.
    pub fn of(informer: &Informer<K>) -> Self {
        Self(informer.index(controller))
    }

    /// The objects whose controller has this UID.
    pub fn controlled(&self, uid: &str) -> Vec<Arc<K>> {
        self.0.get(uid)
    }

    /// The objects of a namespace that no controller has.
    pub fn orphans(&self, namespace: &str) -> Vec<Arc<K>> {
        self.0.get(&orphans_of(namespace))
    }

    /// What a controller with this UID has, and what it may claim in its namespace.
    pub fn claimable(&self, uid: &str, namespace: &str) -> Vec<Arc<K>> {
        let mut objects = self.controlled(uid);
        objects.extend(self.orphans(namespace));
        objects
    }
}

/// The owner reference that makes its holder the controller of an object.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

fn controller<K: Resource>(object: &K) -> Option<Cow<'_, str>> {
    Some(match controller_of(object.meta()) {
        Some(owner) => Cow::Borrowed(&owner.uid),
        None => Cow::Owned(orphans_of(object.meta().namespace.as_deref().unwrap_or(""))),
    })
}

/// No UID has a slash.
fn orphans_of(namespace: &str) -> String {
    format!("orphans/{namespace}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::ResourceExt;
    use serde_json::json;

    use super::*;

    fn config_map(name: &str, version: &str, owner: Option<&str>) -> Arc<ConfigMap> {
        let owners = owner.map(|uid| {
            json!([
                {"apiVersion": "v1", "kind": "Pod", "name": "other", "uid": "other"},
                {"apiVersion": "v1", "kind": "Pod", "name": uid, "uid": uid, "controller": true}
            ])
        });
        let meta = json!({
            "name": name, "namespace": "default", "resourceVersion": version, "ownerReferences": owners
        });
        Arc::new(serde_json::from_value(json!({"metadata": meta})).unwrap())
    }

    fn names(objects: &[Arc<ConfigMap>]) -> Vec<String> {
        let mut names: Vec<_> = objects.iter().map(|object| object.name_any()).collect();
        names.sort();
        names
    }

    #[test]
    fn adoption_and_release_move_an_object() {
        let informer = Informer::<ConfigMap>::new();
        let owned = ByController::of(&informer);
        informer.apply(config_map("a", "1", None));
        informer.apply(config_map("b", "2", Some("one")));
        informer.apply(config_map("c", "3", Some("two")));
        assert_eq!(names(&owned.claimable("one", "default")), ["a", "b"]);
        informer.apply(config_map("a", "4", Some("one")));
        informer.apply(config_map("b", "5", None));
        assert_eq!(names(&owned.controlled("one")), ["a"]);
        assert_eq!(names(&owned.orphans("default")), ["b"]);
        assert!(owned.orphans("elsewhere").is_empty());
    }
}
