//! Who a request is from.

use std::collections::BTreeMap;

/// Names of the groups that the server itself gives a meaning.
pub mod groups {
    /// May do everything; no role is looked at.
    pub const MASTERS: &str = "system:masters";
    /// Everybody who showed who they are.
    pub const AUTHENTICATED: &str = "system:authenticated";
    /// Everybody who did not.
    pub const UNAUTHENTICATED: &str = "system:unauthenticated";
    /// All service accounts; those of one namespace are in `system:serviceaccounts:NAMESPACE`, too.
    pub const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";
    /// All kubelets.
    pub const NODES: &str = "system:nodes";
}

const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";

/// A user as authentication found it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    /// The name that bindings refer to.
    pub name: String,
    /// What tells this user from earlier ones of the same name; may be empty.
    pub uid: String,
    /// The groups that bindings refer to.
    pub groups: Vec<String>,
    /// What else the authenticator knows; keys are lower case.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// Somebody who presented nothing.
    #[must_use]
    pub fn anonymous() -> Self {
        let groups = vec![groups::UNAUTHENTICATED.to_owned()];
        Self { name: "system:anonymous".into(), groups, ..Self::default() }
    }

    /// A service account, with the groups that it is always in.
    #[must_use]
    pub fn service_account(namespace: &str, name: &str, uid: &str) -> Self {
        Self {
            name: service_account_name(namespace, name),
            uid: uid.into(),
            groups: service_account_groups(namespace),
            extra: BTreeMap::new(),
        }
    }

    /// Whether the user is in `group`.
    #[must_use]
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }

    /// Adds the user to `group`, once.
    pub fn join(&mut self, group: &str) {
        if !self.is_in(group) {
            self.groups.push(group.into());
        }
    }
}

/// The user name of a service account.
#[must_use]
pub fn service_account_name(namespace: &str, name: &str) -> String {
    format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}")
}

/// The groups of the service accounts of a namespace, but for `system:authenticated`.
pub(crate) fn service_account_groups(namespace: &str) -> Vec<String> {
    vec![groups::SERVICE_ACCOUNTS.into(), format!("{}:{namespace}", groups::SERVICE_ACCOUNTS)]
}

/// Namespace and name, if `user` is the user name of a service account.
pub(crate) fn split_service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(SERVICE_ACCOUNT_PREFIX)?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}
