//! A short way to write a [`Resource`] down, so that a resource's file reads like a table.

use std::sync::Arc;

use xebec_types::{GroupVersion, GroupVersionKind};

use crate::resource::{
    Column, ColumnType, Extra, Names, Resource, Scale, Scope, Subresources, Verb, Version,
};
use crate::{GenericStrategy, Strategy, schemas};

/// A column as a table row: heading, type, priority (0 always, 1 with `-o wide`).
pub(crate) type ColumnRow = (&'static str, ColumnType, i32);

/// The first column of almost every table.
pub(crate) const NAME: ColumnRow = ("Name", ColumnType::Name, 0);
/// The age column. Upstream types it as a string because the server renders it.
pub(crate) const AGE: ColumnRow = ("Age", ColumnType::String, 0);

/// A text column that is always shown.
pub(crate) const fn text(name: &'static str) -> ColumnRow {
    (name, ColumnType::String, 0)
}

/// A text column of `-o wide`.
pub(crate) const fn wide(name: &'static str) -> ColumnRow {
    (name, ColumnType::String, 1)
}

/// A number column that is always shown.
pub(crate) const fn integer(name: &'static str) -> ColumnRow {
    (name, ColumnType::Integer, 0)
}

/// The description of a built-in resource in the making.
pub(crate) struct Kind {
    version: &'static str,
    columns: &'static [ColumnRow],
    deprecation: Option<String>,
    subresources: Subresources,
    resource: Resource,
}

impl Kind {
    /// A namespaced kind of `api_version` (`v1`, `apps/v1`) with all verbs.
    pub(crate) fn namespaced(api_version: &'static str, kind: &str, plural: &str) -> Self {
        Self::new(api_version, kind, plural, Scope::Namespaced)
    }

    /// A cluster-scoped kind with all verbs.
    pub(crate) fn cluster(api_version: &'static str, kind: &str, plural: &str) -> Self {
        Self::new(api_version, kind, plural, Scope::Cluster)
    }

    fn new(api_version: &'static str, kind: &str, plural: &str, scope: Scope) -> Self {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let names = Names {
            kind: kind.into(),
            list_kind: format!("{kind}List"),
            plural: plural.into(),
            singular: kind.to_lowercase(),
            short: Vec::new(),
            categories: Vec::new(),
        };
        let resource = Resource {
            group: group.into(),
            names,
            scope,
            versions: Vec::new(),
            verbs: Verb::ALL,
            stored: true,
            strategy: Arc::new(GenericStrategy),
        };
        Self {
            version,
            columns: &[NAME, AGE],
            deprecation: None,
            subresources: Subresources::default(),
            resource,
        }
    }

    /// Short names, as in `po`.
    pub(crate) fn short(mut self, names: &[&str]) -> Self {
        self.resource.names.short = names.iter().map(|n| (*n).to_owned()).collect();
        self
    }

    /// Categories, as in `all`.
    pub(crate) fn categories(mut self, names: &[&str]) -> Self {
        self.resource.names.categories = names.iter().map(|n| (*n).to_owned()).collect();
        self
    }

    /// Other verbs than all of them.
    pub(crate) fn verbs(mut self, verbs: &'static [Verb]) -> Self {
        self.resource.verbs = verbs;
        self
    }

    /// Answered and forgotten: only `create`, and nothing is stored.
    pub(crate) fn transient(mut self) -> Self {
        self.resource.stored = false;
        self.verbs(&[Verb::Create])
    }

    /// Answered with a warning, whatever is asked.
    pub(crate) fn deprecated(mut self, warning: &str) -> Self {
        self.deprecation = Some(warning.to_owned());
        self
    }

    /// The columns of tables.
    pub(crate) fn columns(mut self, columns: &'static [ColumnRow]) -> Self {
        self.columns = columns;
        self
    }

    /// With `/status`.
    pub(crate) fn status(mut self) -> Self {
        self.subresources.status = true;
        self
    }

    /// With `/scale` at `.spec.replicas`, `.status.replicas` and `.spec.selector`.
    pub(crate) fn scale(mut self) -> Self {
        self.subresources.scale = Some(Scale {
            spec_replicas: ".spec.replicas".into(),
            status_replicas: ".status.replicas".into(),
            label_selector: Some(".spec.selector".into()),
        });
        self
    }

    /// With a subresource whose kind belongs to the resource's own group and version.
    pub(crate) fn extra(self, name: &'static str, kind: &str, verbs: &'static [Verb]) -> Self {
        let gv = GroupVersion { group: self.resource.group.clone(), version: self.version.into() };
        let kind = gv.kind(kind);
        self.extra_of(name, kind, verbs)
    }

    /// With a subresource whose kind belongs elsewhere.
    pub(crate) fn extra_of(
        mut self,
        name: &'static str,
        kind: GroupVersionKind,
        verbs: &'static [Verb],
    ) -> Self {
        self.subresources.extra.push(Extra { name, kind, verbs });
        self
    }

    /// Where the kind differs from all others.
    pub(crate) fn strategy(mut self, strategy: impl Strategy) -> Self {
        self.resource.strategy = Arc::new(strategy);
        self
    }

    /// The finished description.
    pub(crate) fn build(mut self) -> Resource {
        let gvk = self.resource.kind(self.version);
        let column = |(name, kind, priority): &ColumnRow| Column {
            name: (*name).into(),
            kind: *kind,
            priority: *priority,
            description: String::new(),
        };
        self.resource.versions.push(Version {
            name: self.version.into(),
            served: true,
            storage: true,
            deprecation: self.deprecation,
            schema: schemas::builtin(&gvk),
            columns: self.columns.iter().map(column).collect(),
            subresources: self.subresources,
        });
        self.resource
    }
}
