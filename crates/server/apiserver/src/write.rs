//! The one sequence that every write runs, through whatever verb or subresource it comes.
//!
//! decode, default, prepare, mutating admission, default, allocate, validate, validating admission, store with
//! precondition, wait until the cache has applied it.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use xebec_admission::{Attributes, Operation};
use xebec_registry::{Allocation, SubresourceName};
use xebec_store::{KeyValue, Op, Precondition, StoreError, Write};
use xebec_types::{GroupResource, GroupVersionKind, Status, object, time};

use crate::api::{Api, Call, cache_status, store_status};
use crate::cache::{Boarded, Entry};
use crate::catalog::Target;
use crate::codec::{self, Encoded};
use crate::{engine, meta, rbac};

/// How often a write that loses a race is tried again.
const MAX_RETRIES: usize = 64;
/// How often a generated name is made anew when it is taken; upstream's number.
const MAX_NAMES: usize = 8;

/// An object after a write.
pub struct Written {
    /// The object.
    pub encoded: Encoded,
    /// What the client should know.
    pub warnings: Vec<String>,
}

/// A change of an existing object.
pub struct Change<'a> {
    /// The resource.
    pub target: &'a Target,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// What is written.
    pub subresource: SubresourceName,
    /// Whether nothing is stored.
    pub dry_run: bool,
}

/// A prepared object, and what must happen before it is stored.
struct Prepared {
    object: Value,
    allocation: Option<Box<dyn Allocation>>,
    warnings: Vec<String>,
}

impl Api {
    /// Creates a decoded object.
    ///
    /// # Errors
    /// What any step refuses; 409 if it exists.
    pub async fn create_object(
        &self,
        call: &Call,
        target: &Target,
        namespace: &str,
        object: Value,
        dry_run: bool,
    ) -> Result<Written, Status> {
        let generated =
            object::name(&object).is_empty() && !object::meta_str(&object, "generateName").is_empty();
        if generated {
            for _ in 1..MAX_NAMES {
                match self.create_once(call, target, namespace, object.clone(), dry_run).await {
                    Err(status) if status.reason == "AlreadyExists" => {}
                    result => return result,
                }
            }
        }
        self.create_once(call, target, namespace, object, dry_run).await
    }

    async fn create_once(
        &self,
        call: &Call,
        target: &Target,
        namespace: &str,
        object: Value,
        dry_run: bool,
    ) -> Result<Written, Status> {
        let prepared = self.prepare_create(call, target, namespace, object, dry_run)?;
        let name = object::name(&prepared.object).to_owned();
        let key: Arc<str> = self.key(target, namespace, &name).into();
        let plain = Bytes::from(codec::encode(&prepared.object));
        if dry_run {
            return match target.cache().get(&key) {
                Some(_) => Err(Status::already_exists(&target.group_resource(), &name)),
                None => written(&plain, 0, prepared.warnings),
            };
        }
        match self.commit(&key, Precondition::Absent, plain.clone(), prepared.object).await {
            Ok((revision, _boarded)) => {
                if let Some(allocation) = prepared.allocation {
                    allocation.keep();
                }
                self.cache.wait(revision).await.map_err(cache_status)?;
                written(&plain, revision, prepared.warnings)
            }
            Err(StoreError::Conflict { .. }) => Err(exists(target, namespace, &name, self)),
            Err(error) => Err(store_status(&error)),
        }
    }

    fn prepare_create(
        &self,
        call: &Call,
        target: &Target,
        namespace: &str,
        mut object: Value,
        dry_run: bool,
    ) -> Result<Prepared, Status> {
        let resource = target.resource();
        let strategy = &resource.strategy;
        let cx = self.context(call, SubresourceName::Main, dry_run);
        self.default(target, &mut object);
        strategy.default(&mut object, None);
        meta::prepare_create(resource, namespace, &time::rfc3339(call.now), &mut object)?;
        strategy.prepare_create(&cx, &mut object);
        let names = Names::of(target);
        let name = object::name(&object).to_owned();
        let admitted = names.request(self, call, Operation::Create, &cx, namespace, &name, None);
        let mut warnings = self.gate.admission.admit(&admitted, &mut object)?;
        self.default(target, &mut object);
        strategy.default(&mut object, None);
        rbac::check_escalation(&self.gate.rbac, &call.user, resource, &object, None)?;
        let mut errors = meta::validate(resource, &object);
        let allocation = match errors.is_empty() {
            true => strategy
                .allocate(&cx, Some(&mut object), None)
                .map_err(|errors| engine::invalid(target, &name, &errors))?,
            false => None,
        };
        errors.extend(engine::validate(&target.version().schema, &object));
        errors.extend(strategy.validate_create(&cx, &object));
        if !errors.is_empty() {
            return Err(engine::invalid(target, &name, &errors));
        }
        warnings.extend(self.gate.admission.validate(&admitted, Some(&object))?);
        warnings.extend(strategy.warnings(&object));
        Ok(Prepared { object, allocation, warnings })
    }

    /// Changes an object by `change`, which is called again with the newer state when another write came between.
    ///
    /// # Errors
    /// 404, what `change` and any step refuse, 409 after many lost races.
    pub async fn change_object(
        &self,
        call: &Call,
        change: &Change<'_>,
        mut apply: impl FnMut(&Value) -> Result<(Value, Vec<String>), Status> + Send,
    ) -> Result<Written, Status> {
        let target = change.target;
        let mut current = self.cached(target, change.namespace, change.name)?;
        for _ in 0..MAX_RETRIES {
            let old = current.decode();
            let (new, mut warnings) = apply(&old)?;
            let prepared = self.prepare_update(call, change, new, &old)?;
            warnings.extend(prepared.warnings);
            if finished(target, &prepared.object) && object::deletion_timestamp(&old).is_some() {
                match self.remove(target, &current, change.dry_run).await? {
                    Ok(revision) => {
                        let plain = codec::encode(&prepared.object);
                        return written(&plain, revision, warnings);
                    }
                    Err(newer) => current = newer,
                }
                continue;
            }
            if prepared.object == old {
                return Ok(Written { encoded: current.encoded.clone(), warnings });
            }
            let plain = Bytes::from(codec::encode(&prepared.object));
            if change.dry_run {
                return written(&plain, current.revision, warnings);
            }
            let precondition = Precondition::ModRevision(current.revision);
            match self.commit(&current.key, precondition, plain.clone(), prepared.object).await {
                Ok((revision, _boarded)) => {
                    if let Some(allocation) = prepared.allocation {
                        allocation.keep();
                    }
                    self.cache.wait(revision).await.map_err(cache_status)?;
                    return written(&plain, revision, warnings);
                }
                Err(StoreError::Conflict { current: now, .. }) => {
                    current = self.newer(target, now, change.name)?;
                }
                Err(error) => return Err(store_status(&error)),
            }
        }
        Err(Status::stale(&target.group_resource(), change.name))
    }

    fn prepare_update(
        &self,
        call: &Call,
        change: &Change<'_>,
        mut object: Value,
        old: &Value,
    ) -> Result<Prepared, Status> {
        let target = change.target;
        let resource = target.resource();
        let strategy = &resource.strategy;
        let cx = self.context(call, change.subresource, change.dry_run);
        self.default(target, &mut object);
        strategy.default(&mut object, Some(old));
        meta::prepare_update(resource, &mut object, old);
        keep_apart(target, change.subresource, &mut object, old);
        strategy.prepare_update(&cx, &mut object, old);
        let names = Names::of(target);
        let admitted =
            names.request(self, call, Operation::Update, &cx, change.namespace, change.name, Some(old));
        let mut warnings = self.gate.admission.admit(&admitted, &mut object)?;
        self.default(target, &mut object);
        strategy.default(&mut object, Some(old));
        // As upstream's, a binding is no change of what is wanted.
        if strategy.has_generation() && change.subresource != SubresourceName::Other("binding") {
            meta::raise_generation(&mut object, old);
        }
        rbac::check_escalation(&self.gate.rbac, &call.user, resource, &object, Some(old))?;
        let mut errors = meta::validate_update(&object, old);
        let allocation = match (errors.is_empty(), change.subresource) {
            (true, SubresourceName::Main) => strategy
                .allocate(&cx, Some(&mut object), Some(old))
                .map_err(|errors| engine::invalid(target, change.name, &errors))?,
            _ => None,
        };
        errors.extend(engine::validate(&target.version().schema, &object));
        errors.extend(strategy.validate_update(&cx, &object, old));
        if !errors.is_empty() {
            return Err(engine::invalid(target, change.name, &errors));
        }
        warnings.extend(self.gate.admission.validate(&admitted, Some(&object))?);
        if change.subresource == SubresourceName::Main {
            warnings.extend(strategy.warnings(&object));
        }
        Ok(Prepared { object, allocation, warnings })
    }

    /// Writes one key, `object` as its bytes, and answers its revision without waiting for the cache. What comes with
    /// it is to be kept until the cache has applied the write.
    pub(crate) async fn commit(
        &self,
        key: &Arc<str>,
        precondition: Precondition,
        plain: Bytes,
        object: Value,
    ) -> Result<(u64, Boarded<'_>), StoreError> {
        let boarded = self.cache.flight.board(plain.clone(), object);
        let sealed = self
            .transformer
            .seal(key, plain)
            .map_err(|detail| StoreError::Corrupt { location: key.to_string(), detail })?;
        let write = Write { key: key.clone(), precondition, op: Op::Put(sealed) };
        Ok((self.store.commit(write).await?.revision, boarded))
    }

    /// Deletes an object in the state given and answers the revision, or the state that came between.
    pub(crate) async fn remove(
        &self,
        target: &Target,
        entry: &Arc<Entry>,
        dry_run: bool,
    ) -> Result<Result<u64, Arc<Entry>>, Status> {
        if dry_run {
            return Ok(Ok(entry.revision));
        }
        let precondition = Precondition::ModRevision(entry.revision);
        let write = Write { key: entry.key.clone(), precondition, op: Op::Delete };
        match self.store.commit(write).await {
            Ok(commit) => {
                self.cache.wait(commit.revision).await.map_err(cache_status)?;
                Ok(Ok(commit.revision))
            }
            Err(StoreError::Conflict { current, .. }) => {
                Ok(Err(self.newer(target, current, entry.name())?))
            }
            Err(StoreError::NotFound { .. }) => {
                Err(Status::not_found(&target.group_resource(), entry.name()))
            }
            Err(error) => Err(store_status(&error)),
        }
    }

    /// The state that a lost race has found.
    pub(crate) fn newer(
        &self,
        target: &Target,
        current: Option<KeyValue>,
        name: &str,
    ) -> Result<Arc<Entry>, Status> {
        let not_found = || Status::not_found(&target.group_resource(), name);
        let kv = current.ok_or_else(not_found)?;
        let plain = self.transformer.open(&kv.key, &kv.value).map_err(Status::internal)?;
        let prefix = target.cache().prefix();
        let parsed = Entry::parse(target.resource(), prefix, kv.key.clone(), &plain, kv.mod_revision, None);
        let (entry, _) = parsed.ok_or_else(|| Status::internal("the stored object cannot be read"))?;
        Ok(Arc::new(entry))
    }

    fn default(&self, target: &Target, object: &mut Value) {
        xebec_schema::defaults::default(object, &target.version().schema, &self.defaults);
    }
}

/// The names of a target that admission wants borrowed.
pub(crate) struct Names {
    resource: GroupResource,
    kind: GroupVersionKind,
}

impl Names {
    pub(crate) fn of(target: &Target) -> Self {
        let kind = target.resource().kind(&target.version().name);
        Self { resource: target.group_resource(), kind }
    }

    #[allow(clippy::too_many_arguments)]
    pub(crate) fn request<'a>(
        &'a self,
        api: &'a Api,
        call: &'a Call,
        operation: Operation,
        cx: &xebec_registry::Context<'_>,
        namespace: &'a str,
        name: &'a str,
        old: Option<&'a Value>,
    ) -> Attributes<'a> {
        Attributes {
            operation,
            resource: &self.resource,
            kind: &self.kind,
            subresource: cx.subresource,
            namespace,
            name,
            user: &call.user.name,
            groups: &call.user.groups,
            dry_run: cx.dry_run,
            old,
            objects: &*api.cache,
        }
    }
}

/// 409; while the existing object is being deleted, upstream says so.
fn exists(target: &Target, namespace: &str, name: &str, api: &Api) -> Status {
    let mut status = Status::already_exists(&target.group_resource(), name);
    let existing = api.cached(target, namespace, name).map(|entry| entry.decode());
    if existing.is_ok_and(|object| object::deletion_timestamp(&object).is_some()) {
        status.message = format!("object is being deleted: {}", status.message);
    }
    status
}

/// Main writes keep the status, status writes keep the rest.
fn keep_apart(target: &Target, subresource: SubresourceName, new: &mut Value, old: &Value) {
    if !target.version().subresources.status {
        return;
    }
    match subresource {
        SubresourceName::Status => {
            let mut kept = old.clone();
            match new.get_mut("status").map(Value::take) {
                Some(status) => kept["status"] = status,
                None => {
                    kept.as_object_mut().map(|object| object.remove("status"));
                }
            }
            // As upstream, status writes of built-in kinds may change labels and annotations.
            if !target.served.custom {
                for field in ["labels", "annotations", "finalizers", "managedFields"] {
                    let value = new.get("metadata").and_then(|m| m.get(field)).cloned();
                    let metadata = object::metadata_mut(&mut kept);
                    match value {
                        Some(value) => metadata.insert(field.into(), value),
                        None => metadata.remove(field),
                    };
                }
            }
            *new = kept;
        }
        // The scheduler's binding sets a condition, too.
        SubresourceName::Other("binding") => {}
        _ => match (old.get("status"), new.as_object_mut()) {
            (Some(status), Some(new)) => {
                new.insert("status".into(), status.clone());
            }
            (None, Some(new)) => {
                new.remove("status");
            }
            (_, None) => {}
        },
    }
}

/// Whether nothing keeps an object that is being deleted: no finalizer, no grace period, for a namespace no contents.
pub(crate) fn finished(target: &Target, object: &Value) -> bool {
    let marked = object::deletion_timestamp(object).is_some();
    let grace =
        object::at(object, "metadata.deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0);
    marked && grace == 0 && !finalizing(target, object)
}

/// Whether finalizers keep an object. A namespace also has those of its spec.
pub(crate) fn finalizing(target: &Target, object: &Value) -> bool {
    let spec =
        object::at(object, "spec.finalizers").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    let namespace = target.resource().group.is_empty() && target.resource().names.plural == "namespaces";
    !object::finalizers(object).is_empty() || namespace && spec
}

fn written(plain: &[u8], revision: u64, warnings: Vec<String>) -> Result<Written, Status> {
    let encoded =
        codec::splice(plain, revision).ok_or_else(|| Status::internal("the object cannot be encoded"))?;
    Ok(Written { encoded, warnings })
}
