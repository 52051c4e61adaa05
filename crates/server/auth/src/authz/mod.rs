//! Authorization: may this user do that.
//!
//! [`RbacIndex`] is the only authorizer today; [`Authorizer`] is the seam for others. All of it works on what is in
//! memory and takes microseconds.

mod escalation;
mod index;
mod rules;

use xebec_types::quoted;

use crate::user::UserInfo;

pub use escalation::{EscalationError, RoleScope, check_binding_write, check_role_write};
pub use index::{RbacIndex, aggregated_rules};
pub use rules::{rule_allows, uncovered};

/// What a request wants to do.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    /// Who asks.
    pub user: &'a UserInfo,
    /// The verb: of the API (`get`, `list`, `create`, …), or the HTTP method in lower case for a path.
    pub verb: &'a str,
    /// What it is done to.
    pub target: Target<'a>,
}

/// What something is done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// An object or a collection.
    Resource {
        /// The API group; empty for the core group.
        group: &'a str,
        /// The plural name.
        resource: &'a str,
        /// The subresource; empty for none.
        subresource: &'a str,
        /// The namespace; empty for cluster scope or all namespaces.
        namespace: &'a str,
        /// The object's name; empty for a collection.
        name: &'a str,
    },
    /// A path that is no resource, such as `/healthz`.
    Path(&'a str),
}

/// What an authorizer thinks of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Yes, whatever others say.
    Allow,
    /// Let others decide; if nobody allows it, no.
    NoOpinion,
    /// No, whatever others say.
    Deny,
}

/// An authorizer's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The answer itself.
    pub verdict: Verdict,
    /// Why; may be empty.
    pub reason: String,
}

impl Decision {
    /// Whether it is allowed.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        self.verdict == Verdict::Allow
    }
}

/// Somebody who decides.
pub trait Authorizer: Send + Sync {
    /// Decides.
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision;
}

/// Says what is forbidden, in upstream's words; the whole `message` of the 403 answer.
#[must_use]
pub fn forbidden_message(attributes: &Attributes<'_>, reason: &str) -> String {
    let what = forbidden_detail(attributes, reason);
    let Target::Resource { group, resource, name, .. } = attributes.target else {
        return format!("forbidden: {what}");
    };
    let mut message = resource.to_owned();
    if !group.is_empty() {
        message.push('.');
        message.push_str(group);
    }
    if !name.is_empty() {
        message.push_str(&format!(" {}", quoted(name)));
    }
    format!("{message} is forbidden: {what}")
}

/// The part of [`forbidden_message`] after `is forbidden:`.
#[must_use]
pub fn forbidden_detail(attributes: &Attributes<'_>, reason: &str) -> String {
    let user = quoted(&attributes.user.name);
    let verb = attributes.verb;
    let mut message = match attributes.target {
        Target::Path(path) => format!("User {user} cannot {verb} path {}", quoted(path)),
        Target::Resource { group, resource, subresource, namespace, .. } => {
            let slash = if subresource.is_empty() { "" } else { "/" };
            let resource = quoted(&format!("{resource}{slash}{subresource}"));
            let place = if namespace.is_empty() {
                "at the cluster scope".to_owned()
            } else {
                format!("in the namespace {}", quoted(namespace))
            };
            let group = quoted(group);
            format!("User {user} cannot {verb} resource {resource} in API group {group} {place}")
        }
    };
    if !reason.is_empty() {
        message.push_str(": ");
        message.push_str(reason);
    }
    message
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_upstreams() {
        let user = UserInfo { name: "x".into(), ..UserInfo::default() };
        let message =
            |verb, target, reason| forbidden_message(&Attributes { user: &user, verb, target }, reason);
        let resource = |group, resource, subresource, namespace, name| Target::Resource {
            group,
            resource,
            subresource,
            namespace,
            name,
        };
        assert_eq!(
            message("list", resource("", "pods", "", "default", ""), ""),
            r#"pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "default""#
        );
        assert_eq!(
            message("update", resource("apps", "deployments", "scale", "ns", "web"), "no"),
            "deployments.apps \"web\" is forbidden: User \"x\" cannot update resource \"deployments/scale\" in API \
             group \"apps\" in the namespace \"ns\": no"
        );
        assert_eq!(
            message("list", resource("", "nodes", "", "", ""), ""),
            r#"nodes is forbidden: User "x" cannot list resource "nodes" in API group "" at the cluster scope"#
        );
        assert_eq!(
            message("get", Target::Path("/metrics"), ""),
            r#"forbidden: User "x" cannot get path "/metrics""#
        );
    }
}
