//! Objects and requests for tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use xebec_registry::{ObjectReader, SubresourceName};
use xebec_types::{GroupResource, GroupVersion, object};

use crate::{Attributes, Operation};

/// Objects by resource, namespace and name.
#[derive(Default)]
pub(crate) struct Objects(BTreeMap<(String, String, String), Arc<Value>>);

impl Objects {
    /// With one more object of a core resource.
    pub(crate) fn with(mut self, resource: &str, value: Value) -> Self {
        let key =
            (resource.to_owned(), object::namespace(&value).to_owned(), object::name(&value).to_owned());
        self.0.insert(key, Arc::new(value));
        self
    }
}

impl ObjectReader for Objects {
    fn get(&self, resource: &GroupResource, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.0.get(&(resource.resource.clone(), namespace.to_owned(), name.to_owned())).cloned()
    }

    fn list(&self, resource: &GroupResource, namespace: &str) -> Vec<Arc<Value>> {
        let fits = |key: &(String, String, String)| {
            key.0 == resource.resource && (namespace.is_empty() || key.1 == namespace)
        };
        self.0.iter().filter(|(key, _)| fits(key)).map(|(_, value)| value.clone()).collect()
    }
}

/// Runs `act` with a request about a core resource.
pub(crate) fn request<T>(
    objects: &Objects,
    operation: Operation,
    resource: &str,
    namespace: &str,
    name: &str,
    act: impl FnOnce(&Attributes<'_>) -> T,
) -> T {
    updating(objects, operation, resource, namespace, name, None, act)
}

/// The same with a stored object.
pub(crate) fn updating<T>(
    objects: &Objects,
    operation: Operation,
    resource: &str,
    namespace: &str,
    name: &str,
    old: Option<&Value>,
    act: impl FnOnce(&Attributes<'_>) -> T,
) -> T {
    let resource = GroupResource::new("", resource);
    let kind = GroupVersion { group: String::new(), version: "v1".into() }.kind("Any");
    act(&Attributes {
        operation,
        resource: &resource,
        kind: &kind,
        subresource: SubresourceName::Main,
        namespace,
        name,
        user: "test",
        groups: &[],
        dry_run: false,
        old,
        objects,
    })
}
