//! The description of a resource, from which everything the server does with it is derived.

use std::sync::Arc;

use xebec_schema::Schema;
use xebec_types::{GroupKind, GroupResource, GroupVersion, GroupVersionKind};

use crate::Strategy;

/// Whether objects live in a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// In a namespace.
    Namespaced,
    /// In none.
    Cluster,
}

/// The API verbs, as discovery and RBAC name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    /// `create`
    Create,
    /// `delete`
    Delete,
    /// `deletecollection`
    DeleteCollection,
    /// `get`
    Get,
    /// `list`
    List,
    /// `patch`
    Patch,
    /// `update`
    Update,
    /// `watch`
    Watch,
}

impl Verb {
    /// Every verb of a full resource, in discovery's order.
    pub const ALL: &'static [Self] = &[
        Self::Create,
        Self::Delete,
        Self::DeleteCollection,
        Self::Get,
        Self::List,
        Self::Patch,
        Self::Update,
        Self::Watch,
    ];

    /// As discovery and RBAC write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Get => "get",
            Self::List => "list",
            Self::Patch => "patch",
            Self::Update => "update",
            Self::Watch => "watch",
        }
    }
}

/// How a resource is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// `Pod`
    pub kind: String,
    /// `PodList`
    pub list_kind: String,
    /// `pods`
    pub plural: String,
    /// `pod`
    pub singular: String,
    /// `po`
    pub short: Vec<String>,
    /// `all`
    pub categories: Vec<String>,
}

/// Where `scale` reads and writes (`autoscaling/v1` Scale), as JSON paths like `.spec.replicas`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scale {
    /// Wanted replicas.
    pub spec_replicas: String,
    /// Actual replicas.
    pub status_replicas: String,
    /// Label selector, as a string or as a `metav1.LabelSelector`; `None` when the resource has none.
    pub label_selector: Option<String>,
}

/// A subresource that is neither status nor scale: `binding`, `log`, `exec`, `token`, …
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extra {
    /// Path segment.
    pub name: &'static str,
    /// Kind discovery shows, with its group and version when it is not the resource's own.
    pub kind: GroupVersionKind,
    /// Verbs discovery shows.
    pub verbs: &'static [Verb],
}

/// What hangs below an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subresources {
    /// `/status`: main writes keep the status, status writes keep the rest.
    pub status: bool,
    /// `/scale`.
    pub scale: Option<Scale>,
    /// Others; the server has one implementation for each name.
    pub extra: Vec<Extra>,
}

/// The OpenAPI type and format of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    /// `string`
    String,
    /// `string` with format `name`: the first column.
    Name,
    /// `integer`
    Integer,
    /// `number`
    Number,
    /// `boolean`
    Boolean,
    /// `date`: shown as an age.
    Date,
}

/// A column of `kubectl get`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Heading.
    pub name: String,
    /// Type of its cells.
    pub kind: ColumnType,
    /// 0 is always shown, 1 with `-o wide` only.
    pub priority: i32,
    /// What `kubectl get` does not show but OpenAPI clients do.
    pub description: String,
}

/// A served version of a resource.
#[derive(Debug, Clone)]
pub struct Version {
    /// `v1`
    pub name: String,
    /// Whether requests may use it.
    pub served: bool,
    /// Whether objects are stored in it. Exactly one version of a resource is.
    pub storage: bool,
    /// Warning header for deprecated versions.
    pub deprecation: Option<String>,
    /// Shape of the objects.
    pub schema: Arc<Schema>,
    /// Columns of tables; [`Strategy::cells`] fills them.
    pub columns: Vec<Column>,
    /// What hangs below an object.
    pub subresources: Subresources,
}

/// Everything the server knows of a resource.
#[derive(Clone)]
pub struct Resource {
    /// API group, empty for core.
    pub group: String,
    /// Names.
    pub names: Names,
    /// Scope.
    pub scope: Scope,
    /// Versions, the preferred one first.
    pub versions: Vec<Version>,
    /// Verbs allowed.
    pub verbs: &'static [Verb],
    /// Whether objects are kept. Reviews (`TokenReview`, `SubjectAccessReview`) are answered and forgotten.
    pub stored: bool,
    /// Where the kind differs from all others.
    pub strategy: Arc<dyn Strategy>,
}

impl Resource {
    /// The resource whatever its version.
    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(&self.group, &self.names.plural)
    }

    /// The kind whatever its version.
    pub fn group_kind(&self) -> GroupKind {
        GroupKind::new(&self.group, &self.names.kind)
    }

    /// The kind in a version.
    pub fn kind(&self, version: &str) -> GroupVersionKind {
        GroupVersion { group: self.group.clone(), version: version.into() }.kind(&self.names.kind)
    }

    /// A served version by name.
    pub fn version(&self, name: &str) -> Option<&Version> {
        self.versions.iter().find(|v| v.name == name && v.served)
    }

    /// The version that objects are stored in.
    pub fn storage_version(&self) -> &Version {
        self.versions.iter().find(|v| v.storage).expect("invariant: every resource has one storage version")
    }

    /// Whether objects live in a namespace.
    pub fn namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    /// Prefix of all keys of this resource in the store, with a slash at the end. Core and built-in groups use
    /// upstream's layout (`/registry/pods/`, `/registry/deployments/`, `/registry/services/specs/`), custom resources
    /// `/registry/<group>/<plural>/`.
    pub fn key_prefix(&self) -> String {
        self.strategy.key_prefix().map_or_else(
            || match self.group.as_str() {
                "" => format!("/registry/{}/", self.names.plural),
                group if group.contains('.') && !group.ends_with(".k8s.io") => {
                    format!("/registry/{group}/{}/", self.names.plural)
                }
                _ => format!("/registry/{}/", self.names.plural),
            },
            |prefix| format!("/registry/{prefix}/"),
        )
    }

    /// Key of an object in the store.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        match self.scope {
            Scope::Namespaced => format!("{}{namespace}/{name}", self.key_prefix()),
            Scope::Cluster => format!("{}{name}", self.key_prefix()),
        }
    }
}
