//! Who is asking and what they may do: certificates, tokens, RBAC, the cluster's own PKI.
//!
//! - [`pki`] makes and renews the cluster's certificates and keys and writes kubeconfigs.
//! - [`authn`] turns what a request presents into a [`UserInfo`].
//! - [`authz`] answers whether that user may do what the request asks.
//! - [`bootstrap`] holds the roles and bindings that every cluster starts with.
//!
//! Nothing here does network I/O, and nothing but [`pki`] touches the disk: live objects come in through
//! [`authn::TokenGetter`] and [`authz::RbacIndex`].
//!
//! There is no node authorizer yet: nodes get what the role `system:node` allows through a binding to the group
//! `system:nodes`, which upstream leaves empty. A node may thus read what other nodes' pods use.

pub mod authn;
pub mod authz;
pub mod bootstrap;
pub mod pki;
mod user;

pub use user::{UserInfo, groups, service_account_name};
