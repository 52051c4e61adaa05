//! Where a kind differs from all others.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;
use xebec_schema::FieldError;
use xebec_types::{GroupResource, names, object};

/// Which part of an object a write is meant for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubresourceName {
    /// The object itself.
    Main,
    /// `/status`.
    Status,
    /// `/scale`, already turned into a change of the object.
    Scale,
    /// Any other, as in `binding`.
    Other(&'static str),
}

/// Cached reads for strategies and admission: never a trip to the store.
pub trait ObjectReader: Send + Sync {
    /// An object, if it exists. `namespace` is empty for cluster-scoped resources.
    fn get(&self, resource: &GroupResource, namespace: &str, name: &str) -> Option<Arc<Value>>;

    /// All objects of a resource in a namespace, or everywhere when `namespace` is empty.
    fn list(&self, resource: &GroupResource, namespace: &str) -> Vec<Arc<Value>>;
}

/// What a strategy may know of the request.
pub struct Context<'a> {
    /// The present: one moment for the whole request.
    pub now: Timestamp,
    /// Name of the user.
    pub user: &'a str,
    /// Whether nothing will be stored.
    pub dry_run: bool,
    /// What the write is meant for.
    pub subresource: SubresourceName,
    /// Other objects.
    pub objects: &'a dyn ObjectReader,
}

/// How a delete begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// The object goes as soon as it has no finalizers.
    Immediate,
    /// The object is marked (deletionTimestamp, deletionGracePeriodSeconds) and stays until a delete with grace 0, as
    /// pods on nodes do.
    Graceful {
        /// Seconds to end on its own.
        seconds: i64,
    },
}

/// Something taken for a write (addresses, ports) that is given back unless the write succeeds.
///
/// [`Allocation::keep`] is called after the commit; dropping it undoes it.
pub trait Allocation: Send {
    /// The write has been stored.
    fn keep(self: Box<Self>);
}

/// Warnings for the client (`Warning: 299` headers).
pub type Warnings = Vec<String>;

/// Cells of one table row, in the order of the version's columns.
pub type Cells = Vec<Value>;

/// Where a kind differs from all others. The defaults are those of a custom resource without surprises.
///
/// The order of a write: decode, defaults (by type, see `xebec_schema`), [`Strategy::prepare_create`] or
/// [`Strategy::prepare_update`], mutating admission with defaults again, [`Strategy::allocate`], validation,
/// validating admission, store. The server itself fills and protects `metadata`, keeps status and main writes apart,
/// and raises `metadata.generation` when anything but metadata and status changed, if [`Strategy::has_generation`].
pub trait Strategy: Send + Sync + 'static {
    /// Store prefix below `/registry/` when it differs from the plural name, as in `services/specs`.
    fn key_prefix(&self) -> Option<&'static str> {
        None
    }

    /// Fills what the type-level defaults cannot know because it depends on the whole object. `old` is the stored
    /// object on update.
    fn default(&self, _object: &mut Value, _old: Option<&Value>) {}

    /// Clears what a client may not set on create, and sets what the server decides.
    fn prepare_create(&self, _cx: &Context<'_>, _object: &mut Value) {}

    /// Carries over from `old` what an update of `cx.subresource` may not change silently. Status and main writes are
    /// kept apart already.
    fn prepare_update(&self, _cx: &Context<'_>, _new: &mut Value, _old: &Value) {}

    /// Takes what the object needs from a pool: Service addresses and node ports. `None` for `new` is a delete.
    fn allocate(
        &self,
        _cx: &Context<'_>,
        _new: Option<&mut Value>,
        _old: Option<&Value>,
    ) -> Result<Option<Box<dyn Allocation>>, Vec<FieldError>> {
        Ok(None)
    }

    /// Whether [`Strategy::observed`] does anything: objects are parsed for it.
    fn observes(&self) -> bool {
        false
    }

    /// Called in order for every object that the watch cache learns of (`old` and `new` as far as they exist), also
    /// for those loaded at start: pools are derived from the store, never kept beside it.
    fn observed(&self, _old: Option<&Value>, _new: Option<&Value>) {}

    /// Which names are allowed; answers the broken rules.
    fn validate_name(&self, name: &str) -> Vec<String> {
        names::dns1123_subdomain(name)
    }

    /// Everything that is wrong with a new object.
    fn validate_create(&self, _cx: &Context<'_>, _object: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    /// Everything that is wrong with a changed object, including the change itself. Called for status writes too; see
    /// `cx.subresource`.
    fn validate_update(&self, _cx: &Context<'_>, _new: &Value, _old: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    /// Warnings on create and update.
    fn warnings(&self, _object: &Value) -> Warnings {
        Warnings::new()
    }

    /// Whether PUT may create the object; upstream allows it for a few kinds, such as `Lease` and `Event`.
    fn create_on_update(&self) -> bool {
        false
    }

    /// Whether PUT without resourceVersion overwrites.
    fn unconditional_update(&self) -> bool {
        true
    }

    /// Whether a finalizer without a domain must be one of the standard ones. It must where upstream's validation of
    /// the core group looks at the metadata, which is everywhere but in definitions and in custom resources.
    fn standard_finalizers_only(&self) -> bool {
        true
    }

    /// Whether `metadata.generation` is kept.
    fn has_generation(&self) -> bool {
        false
    }

    /// How a delete begins; `grace` is what the client asked for.
    fn deletion(&self, _object: &Value, _grace: Option<i64>) -> Deletion {
        Deletion::Immediate
    }

    /// Propagation when the client does not say: whether dependents are orphaned (`ReplicationController` only).
    fn orphans_by_default(&self) -> bool {
        false
    }

    /// Fields other than `metadata.name` and `metadata.namespace` that field selectors may use.
    fn selectable_fields(&self) -> &'static [&'static str] {
        &[]
    }

    /// The value of a selectable field; the empty string when it is missing.
    fn field<'a>(&self, object: &'a Value, field: &str) -> &'a str {
        object::str_at(object, field)
    }

    /// Cells for the columns of `version`.
    fn cells(&self, _version: &str, object: &Value, _now: Timestamp) -> Cells {
        vec![object::name(object).into(), object::meta_str(object, "creationTimestamp").into()]
    }
}

/// The strategy of a resource that differs in nothing.
pub struct GenericStrategy;

impl Strategy for GenericStrategy {}
