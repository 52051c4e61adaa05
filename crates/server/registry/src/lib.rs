//! One file per resource: names, scope, strategy, columns and subresources of every kind the server knows.
//!
//! The server has no handler for any kind. It derives routing, discovery, decoding, defaults, validation, patches,
//! tables, watches and authorization attributes from a [`Resource`], and asks the resource's [`Strategy`] only where a
//! kind differs from all others. A CustomResourceDefinition becomes the same [`Resource`] at run time.

mod apiextensions;
mod apps;
mod authentication;
mod authorization;
mod builder;
mod cells;
mod check;
mod coordination;
mod core;
mod defaults;
mod discovery;
mod rbac;
mod resource;
mod schemas;
mod strategy;
#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;

pub use apiextensions::custom;
pub use core::pod::qos_class;
pub use core::service::{IpRange, IpRangeError};
pub use defaults::type_defaults;
pub use resource::{Column, ColumnType, Extra, Names, Resource, Scale, Scope, Subresources, Verb, Version};
pub use schemas::subresource_schema;
pub use strategy::{
    Allocation, Cells, Context, Deletion, GenericStrategy, ObjectReader, Strategy, SubresourceName, Warnings,
};

/// What built-in kinds must know of the cluster.
#[derive(Debug, Clone)]
pub struct RegistryConfig {
    /// Ranges of Service addresses, the primary family first; at most one per family.
    pub service_cidrs: Vec<IpRange>,
    /// Ports that Services may take on every node.
    pub node_ports: RangeInclusive<u16>,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        let range = "10.96.0.0/16".parse().expect("invariant: a literal CIDR");
        Self { service_cidrs: vec![range], node_ports: 30000..=32767 }
    }
}

/// Every built-in resource, sorted by group and name. Adding a kind is one file and one line here.
pub fn builtin(config: &RegistryConfig) -> Vec<Resource> {
    vec![
        core::binding::resource(),
        core::configmap::resource(),
        core::endpoints::resource(),
        core::event::resource(),
        core::namespace::resource(),
        core::node::resource(),
        core::pod::resource(),
        core::secret::resource(),
        core::serviceaccount::resource(),
        core::service::resource(config),
        apiextensions::crd::resource(),
        apps::deployment::resource(),
        apps::replicaset::resource(),
        authentication::selfsubjectreview::resource(),
        authentication::tokenreview::resource(),
        authorization::localsubjectaccessreview::resource(),
        authorization::selfsubjectaccessreview::resource(),
        authorization::selfsubjectrulesreview::resource(),
        authorization::subjectaccessreview::resource(),
        coordination::lease::resource(),
        discovery::endpointslice::resource(),
        rbac::clusterrole::resource(),
        rbac::clusterrolebinding::resource(),
        rbac::role::resource(),
        rbac::rolebinding::resource(),
    ]
}
