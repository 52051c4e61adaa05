//! The trait of admission steps, and the chain that runs them.

use serde_json::Value;
use xebec_registry::{ObjectReader, SubresourceName};
use xebec_types::{GroupResource, GroupVersionKind, Status};

use crate::{DefaultTolerationSeconds, NamespaceLifecycle, Priority, ServiceAccount, TaintNodesByCondition};

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A new object.
    Create,
    /// A changed object.
    Update,
    /// The end of one.
    Delete,
    /// A stream into one (`exec`, `attach`, `portforward`, `proxy`).
    Connect,
}

/// What a request is, as admission sees it.
pub struct Attributes<'a> {
    /// What it does.
    pub operation: Operation,
    /// The resource.
    pub resource: &'a GroupResource,
    /// Kind and version of the object.
    pub kind: &'a GroupVersionKind,
    /// The subresource.
    pub subresource: SubresourceName,
    /// Namespace; empty for none.
    pub namespace: &'a str,
    /// Name; empty while it is not generated.
    pub name: &'a str,
    /// Name of the user.
    pub user: &'a str,
    /// Groups of the user.
    pub groups: &'a [String],
    /// Whether nothing will be stored.
    pub dry_run: bool,
    /// The stored object on update and delete.
    pub old: Option<&'a Value>,
    /// Other objects.
    pub objects: &'a dyn ObjectReader,
}

impl Attributes<'_> {
    /// Whether this is about objects of a core resource themselves, no subresource.
    pub fn is_core(&self, resource: &str) -> bool {
        self.resource.group.is_empty()
            && self.resource.resource == resource
            && self.subresource == SubresourceName::Main
    }

    /// 403 about this object.
    pub fn forbidden(&self, why: &str) -> Status {
        Status::forbidden(self.resource, self.name, why)
    }
}

/// Warnings for the client.
pub type Warnings = Vec<String>;

/// One step. Both methods let everything pass unless they are overridden.
pub trait Plugin: Send + Sync + 'static {
    /// Upstream's name, as in `ServiceAccount`.
    fn name(&self) -> &'static str;

    /// Whether the step looks at such requests at all.
    fn handles(&self, operation: Operation) -> bool;

    /// Changes the object, or refuses it. Runs before validation.
    ///
    /// # Errors
    /// Why the request is refused.
    fn admit(&self, _request: &Attributes<'_>, _object: &mut Value) -> Result<Warnings, Status> {
        Ok(Warnings::new())
    }

    /// Refuses the object (`None` on delete) or lets it pass. Runs after validation.
    ///
    /// # Errors
    /// Why the request is refused.
    fn validate(&self, _request: &Attributes<'_>, _object: Option<&Value>) -> Result<Warnings, Status> {
        Ok(Warnings::new())
    }
}

/// Steps in the order they run.
pub struct Chain(Vec<Box<dyn Plugin>>);

impl Chain {
    /// Of these steps.
    pub fn new(plugins: Vec<Box<dyn Plugin>>) -> Self {
        Self(plugins)
    }

    /// The steps that are always on, in upstream's order.
    pub fn standard() -> Self {
        Self::new(vec![
            Box::new(NamespaceLifecycle),
            Box::new(ServiceAccount),
            Box::new(TaintNodesByCondition),
            Box::new(Priority),
            Box::new(DefaultTolerationSeconds),
        ])
    }

    /// Names of the steps in order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|plugin| plugin.name())
    }

    /// Runs every changing step.
    ///
    /// # Errors
    /// Of the first step that refuses.
    pub fn admit(&self, request: &Attributes<'_>, object: &mut Value) -> Result<Warnings, Status> {
        let mut warnings = Warnings::new();
        for plugin in self.0.iter().filter(|p| p.handles(request.operation)) {
            warnings.extend(plugin.admit(request, object)?);
        }
        Ok(warnings)
    }

    /// Runs every judging step.
    ///
    /// # Errors
    /// Of the first step that refuses.
    pub fn validate(&self, request: &Attributes<'_>, object: Option<&Value>) -> Result<Warnings, Status> {
        let mut warnings = Warnings::new();
        for plugin in self.0.iter().filter(|p| p.handles(request.operation)) {
            warnings.extend(plugin.validate(request, object)?);
        }
        Ok(warnings)
    }
}
