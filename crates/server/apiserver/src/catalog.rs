//! The resources that are served right now: built-in ones, and those that definitions add and remove.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use xebec_registry::{Resource, Version};
use xebec_types::{GroupResource, GroupVersion};

use crate::cache::ResourceCache;

/// A resource and its cache.
#[derive(Clone)]
pub struct Served {
    /// The description.
    pub resource: Arc<Resource>,
    /// Its objects; stays empty for resources that are not stored.
    pub cache: Arc<ResourceCache>,
    /// Whether a CustomResourceDefinition made it.
    pub custom: bool,
}

/// A resource in the version a request names.
#[derive(Clone)]
pub struct Target {
    /// The resource.
    pub served: Served,
    index: usize,
}

impl Target {
    /// The description.
    pub fn resource(&self) -> &Arc<Resource> {
        &self.served.resource
    }

    /// The version.
    pub fn version(&self) -> &Version {
        &self.served.resource.versions[self.index]
    }

    /// The cache.
    pub fn cache(&self) -> &Arc<ResourceCache> {
        &self.served.cache
    }

    /// Group and plural name.
    pub fn group_resource(&self) -> GroupResource {
        self.resource().group_resource()
    }

    /// What objects carry as `apiVersion` in this version.
    pub fn api_version(&self) -> String {
        let group = self.resource().group.clone();
        GroupVersion { group, version: self.version().name.clone() }.to_string()
    }

    /// The kind.
    pub fn kind(&self) -> &str {
        &self.resource().names.kind
    }
}

/// One moment of the catalog.
#[derive(Clone, Default)]
pub struct Snapshot {
    /// Counts changes; caches of what is derived from the catalog compare it.
    pub generation: u64,
    /// In the order they were added.
    pub resources: Vec<Served>,
    by_name: HashMap<GroupResource, usize>,
}

/// The live set of resources.
#[derive(Default)]
pub struct Catalog(RwLock<Arc<Snapshot>>);

impl Catalog {
    /// The set as it is now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds a resource, or replaces the one of the same name.
    pub fn put(&self, served: Served) {
        self.change(|resources| {
            let name = served.resource.group_resource();
            match resources.iter_mut().find(|known| known.resource.group_resource() == name) {
                Some(known) => *known = served,
                None => resources.push(served),
            }
        });
    }

    /// Removes a resource.
    pub fn remove(&self, name: &GroupResource) {
        self.change(|resources| resources.retain(|known| known.resource.group_resource() != *name));
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Served>)) {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut resources = current.resources.clone();
        change(&mut resources);
        let by_name =
            resources.iter().enumerate().map(|(i, served)| (served.resource.group_resource(), i)).collect();
        *current = Arc::new(Snapshot { generation: current.generation + 1, resources, by_name });
    }
}

impl Snapshot {
    /// A served version of a resource.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<Target> {
        let served = self.get(&GroupResource::new(group, plural))?;
        let index = served.resource.versions.iter().position(|v| v.name == version && v.served)?;
        Some(Target { served: served.clone(), index })
    }

    /// A resource by name.
    pub fn get(&self, name: &GroupResource) -> Option<&Served> {
        self.by_name.get(name).map(|index| &self.resources[*index])
    }

    /// Whether any resource is of this group.
    pub fn has_group(&self, group: &str) -> bool {
        self.resources.iter().any(|served| served.resource.group == group)
    }

    /// Whether any resource serves this version of a group.
    pub fn has_version(&self, group: &str, version: &str) -> bool {
        self.resources
            .iter()
            .any(|served| served.resource.group == group && served.resource.version(version).is_some())
    }
}
