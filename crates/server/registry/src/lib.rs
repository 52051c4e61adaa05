//! One file per resource: names, scope, strategy, columns and subresources of every kind the server knows.
//!
//! The server has no handler for any kind. It derives routing, discovery, decoding, defaults, validation, patches,
//! tables, watches and authorization attributes from a [`Resource`], and asks the resource's [`Strategy`] only where a
//! kind differs from all others. A CustomResourceDefinition becomes the same [`Resource`] at run time.

mod resource;
mod strategy;

pub use resource::{Column, ColumnType, Extra, Names, Resource, Scale, Scope, Subresources, Verb, Version};
pub use strategy::{
    Allocation, Cells, Context, Deletion, GenericStrategy, ObjectReader, Strategy, SubresourceName, Warnings,
};
