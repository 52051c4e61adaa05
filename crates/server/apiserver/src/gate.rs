//! What stands between a request and the verbs: authentication, authorization and admission.

use std::sync::Arc;

use xebec_admission::Chain;
use xebec_auth::UserInfo;
use xebec_auth::authn::Authenticators;
use xebec_auth::authz::{Attributes, Authorizer, RbacIndex, Target, forbidden_message};
use xebec_types::{Status, StatusDetails};

use crate::request::RequestInfo;

/// Who asks, what they may do, and what is admitted.
pub struct Gate {
    /// Who is asking.
    pub authenticators: Authenticators,
    /// What they may do.
    pub authorizer: Arc<dyn Authorizer>,
    /// Roles and bindings, for reviews and against escalation.
    pub rbac: Arc<RbacIndex>,
    /// What is admitted.
    pub admission: Chain,
}

impl Gate {
    /// Checks that a user may do what a request asks.
    ///
    /// # Errors
    /// 403 in upstream's words.
    pub fn authorize(&self, user: &UserInfo, info: &RequestInfo) -> Result<(), Status> {
        let target = match info.is_resource {
            true => Target::Resource {
                group: &info.group,
                resource: &info.resource,
                subresource: &info.subresource,
                namespace: &info.namespace,
                name: &info.name,
            },
            false => Target::Path(&info.path),
        };
        self.check(&Attributes { user, verb: info.verb, target })
    }

    /// Checks any action.
    ///
    /// # Errors
    /// 403 in upstream's words.
    pub fn check(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let decision = self.authorizer.authorize(attributes);
        if decision.is_allowed() {
            return Ok(());
        }
        let details = match attributes.target {
            Target::Resource { group, resource, name, .. } => StatusDetails {
                name: name.into(),
                group: group.into(),
                kind: resource.into(),
                ..StatusDetails::default()
            },
            Target::Path(_) => StatusDetails::default(),
        };
        Err(Status::new(403, "Forbidden", forbidden_message(attributes, &decision.reason))
            .with_details(details))
    }
}
