//! `delete` and `deletecollection`.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use serde_json::Value;
use xebec_admission::Operation;
use xebec_registry::{Deletion, SubresourceName};
use xebec_store::{Precondition, StoreError};
use xebec_types::{GroupResource, Status, StatusDetails, object, time};

use super::get::object_reply;
use crate::api::{Api, Call, cache_status, store_status};
use crate::cache::Entry;
use crate::catalog::Target;
use crate::codec::{self, Encoded};
use crate::crd;
use crate::negotiate;
use crate::query::{ListOptions, Query};
use crate::reply::{self, Reply};
use crate::verbs::list::{Page, concatenate};
use crate::write::{Names, finalizing};

/// How many objects of a collection are deleted at once.
const CONCURRENT: usize = 32;
/// How often a delete that loses a race is tried again.
const MAX_RETRIES: usize = 64;
/// Keeps an object until its dependents are orphaned.
const ORPHAN: &str = "orphan";
/// Keeps an object until its dependents are gone.
const FOREGROUND: &str = "foregroundDeletion";
/// Core resources whose delete answers the object and not a Status, as upstream's do.
const ANSWER_OBJECT: [&str; 7] = [
    "pods",
    "services",
    "serviceaccounts",
    "podtemplates",
    "persistentvolumes",
    "persistentvolumeclaims",
    "resourcequotas",
];

/// How to delete, from the query and the body.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeleteOptions {
    /// Seconds to end on its own.
    pub grace_period_seconds: Option<i64>,
    /// What must hold.
    pub preconditions: Option<Preconditions>,
    /// `Orphan`, `Background` or `Foreground`.
    pub propagation_policy: Option<String>,
    /// The old form of the propagation policy.
    pub orphan_dependents: Option<bool>,
    /// `All`, or nothing.
    pub dry_run: Vec<String>,
}

/// What must hold for a delete.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Preconditions {
    /// The object's uid.
    pub uid: Option<String>,
    /// The object's resourceVersion.
    pub resource_version: Option<String>,
}

impl DeleteOptions {
    /// Reads body and query; the body wins, as upstream has it.
    ///
    /// # Errors
    /// 400 for what cannot be read, 422 for contradictions.
    pub fn read(call: &Call) -> Result<Self, Status> {
        let mut options = match call.body.is_empty() {
            true => Self::from_query(&call.query)?,
            false => {
                let body: Value = match call.content_type() {
                    "application/json" => serde_json::from_slice(&call.body)
                        .map_err(|error| Status::bad_request(format!("delete options: {error}")))?,
                    "application/yaml" => negotiate::yaml_to_value(&call.body)?,
                    _ => return Err(Status::unsupported_media_type(&negotiate::ACCEPTED)),
                };
                call.dry_run(&body)?;
                serde_json::from_value(body)
                    .map_err(|error| Status::bad_request(format!("delete options: {error}")))?
            }
        };
        if call.dry_run(&Value::Null)? {
            options.dry_run = vec!["All".into()];
        }
        options.check()?;
        Ok(options)
    }

    fn from_query(query: &Query) -> Result<Self, Status> {
        let text = |key: &str| (!query.get(key).is_empty()).then(|| query.get(key).to_owned());
        Ok(Self {
            grace_period_seconds: query.integer("gracePeriodSeconds")?,
            preconditions: None,
            propagation_policy: text("propagationPolicy"),
            orphan_dependents: query.has("orphanDependents").then(|| query.flag("orphanDependents")),
            dry_run: Vec::new(),
        })
    }

    fn check(&self) -> Result<(), Status> {
        let wrong = |field: &str, reason: &str, message: &str| {
            let cause =
                xebec_types::Cause { reason: reason.into(), message: message.into(), field: field.into() };
            let kind = xebec_types::GroupKind::new("meta.k8s.io", "DeleteOptions");
            Err(Status::invalid(&kind, "", vec![cause]))
        };
        if self.orphan_dependents.is_some() && self.propagation_policy.is_some() {
            let text = "Invalid value: orphanDependents and deletionPropagation cannot be both set";
            return wrong("propagationPolicy", "FieldValueInvalid", text);
        }
        match self.propagation_policy.as_deref() {
            None | Some("" | "Orphan" | "Background" | "Foreground") => Ok(()),
            Some(other) => {
                let text = format!(
                    "Unsupported value: {other:?}: supported values: \"Foreground\", \"Background\", \"Orphan\", \
                     \"nil\""
                );
                wrong("propagationPolicy", "FieldValueNotSupported", &text)
            }
        }
    }

    fn is_dry(&self) -> bool {
        !self.dry_run.is_empty()
    }

    /// The finalizers an object has once this delete has begun.
    fn finalizers(&self, target: &Target, object: &Value) -> Vec<String> {
        let existing = object::finalizers(object);
        let (orphan, foreground) = match (self.propagation_policy.as_deref(), self.orphan_dependents) {
            (Some("Orphan"), _) | (_, Some(true)) => (true, false),
            (Some("Foreground"), _) => (false, true),
            (Some("Background"), _) | (_, Some(false)) => (false, false),
            _ if existing.contains(&ORPHAN) || existing.contains(&FOREGROUND) => {
                (existing.contains(&ORPHAN), existing.contains(&FOREGROUND))
            }
            _ => (target.resource().strategy.orphans_by_default(), false),
        };
        let mut finalizers: Vec<String> = existing
            .iter()
            .filter(|f| !matches!(**f, ORPHAN | FOREGROUND))
            .map(|f| (*f).to_owned())
            .collect();
        if orphan {
            finalizers.push(ORPHAN.into());
        }
        if foreground {
            finalizers.push(FOREGROUND.into());
        }
        finalizers
    }
}

/// What has become of an object.
pub(crate) enum Deleted {
    /// It is gone; this was its last state.
    Gone(Encoded),
    /// It is marked, and goes later.
    Marked(Encoded),
}

impl Api {
    /// Deletes one object.
    ///
    /// # Errors
    /// 404, 409 for preconditions, and what admission refuses.
    pub async fn delete(&self, call: &Call, target: &Target) -> Reply {
        let info = &call.info;
        let options = DeleteOptions::read(call)?;
        let entry = self.find(target, &info.namespace, &info.name).await?;
        match self.delete_entry(call, target, entry, &options).await? {
            Deleted::Marked(encoded) => {
                let code = if options.orphan_dependents == Some(false) { 202 } else { 200 };
                object_reply(call, target, code, &encoded)
            }
            Deleted::Gone(encoded) => {
                let resource = target.resource();
                if resource.group.is_empty() && ANSWER_OBJECT.contains(&resource.names.plural.as_str()) {
                    return object_reply(call, target, 200, &encoded);
                }
                let object: Value = serde_json::from_slice(&encoded.bytes).map_err(Status::internal)?;
                let details = StatusDetails {
                    name: info.name.clone(),
                    group: resource.group.clone(),
                    kind: resource.names.plural.clone(),
                    uid: object::uid(&object).into(),
                    ..StatusDetails::default()
                };
                Ok(reply::value(200, &Status::success(details).to_json()))
            }
        }
    }

    /// Deletes every object that the list options select, and answers them as they were.
    ///
    /// # Errors
    /// As [`Api::delete`], for the first object that fails.
    pub async fn delete_collection(&self, call: &Call, target: &Target) -> Reply {
        let options = DeleteOptions::read(call)?;
        let mut list = ListOptions::parse(&call.query, target, &call.info.namespace, false)?;
        list.limit = 0;
        let page = self.page(target, &list).await?;
        let options = &options;
        stream::iter(page.items.iter().cloned())
            .map(|entry| async move {
                match self.delete_entry(call, target, entry, options).await {
                    // Somebody else was faster.
                    Err(status) if status.code == 404 => Ok(()),
                    result => result.map(|_| ()),
                }
            })
            .buffer_unordered(CONCURRENT)
            .try_collect::<()>()
            .await?;
        let wanted = negotiate::wanted(&call.headers, false)?;
        let answer = Page { next: String::new(), remaining: None, ..page };
        Ok(reply::encoded(200, wanted.encoding, concatenate(target, &answer)))
    }

    /// Deletes an object, or marks it for whoever has to finish first.
    pub(crate) async fn delete_entry(
        &self,
        call: &Call,
        target: &Target,
        mut entry: Arc<Entry>,
        options: &DeleteOptions,
    ) -> Result<Deleted, Status> {
        for _ in 0..MAX_RETRIES {
            let old = entry.decode();
            check_preconditions(target, &entry, &old, options)?;
            let cx = self.context(call, SubresourceName::Main, options.is_dry());
            let names = Names::of(target);
            let namespace = entry.namespace();
            let admitted =
                names.request(self, call, Operation::Delete, &cx, namespace, entry.name(), Some(&old));
            self.gate.admission.validate(&admitted, None)?;
            let allocation = target
                .resource()
                .strategy
                .allocate(&cx, None, Some(&old))
                .map_err(|errors| crate::engine::invalid(target, entry.name(), &errors))?;
            let step = plan(target, &old, options, call);
            let newer = match step {
                Step::Pending => return Ok(Deleted::Marked(entry.encoded.clone())),
                Step::Remove => match self.remove(target, &entry, options.is_dry()).await? {
                    Ok(revision) => {
                        if let (Some(allocation), false) = (allocation, options.is_dry()) {
                            allocation.keep();
                        }
                        return Ok(Deleted::Gone(entry.encoded.at(revision)));
                    }
                    Err(newer) => newer,
                },
                Step::Mark(marked) => match self.mark(target, &entry, marked, options.is_dry()).await? {
                    Ok(encoded) => return Ok(Deleted::Marked(encoded)),
                    Err(newer) => newer,
                },
            };
            entry = newer;
        }
        Err(Status::stale(&target.group_resource(), entry.name()))
    }

    async fn mark(
        &self,
        target: &Target,
        entry: &Arc<Entry>,
        marked: Value,
        dry_run: bool,
    ) -> Result<Result<Encoded, Arc<Entry>>, Status> {
        let plain = bytes::Bytes::from(codec::encode(&marked));
        let splice = |revision| {
            codec::splice(&plain, revision).ok_or_else(|| Status::internal("the object cannot be encoded"))
        };
        if dry_run {
            return splice(entry.revision).map(Ok);
        }
        let precondition = Precondition::ModRevision(entry.revision);
        match self.commit(&entry.key, precondition, plain.clone(), marked).await {
            Ok((revision, _boarded)) => {
                self.cache.wait(revision).await.map_err(cache_status)?;
                splice(revision).map(Ok)
            }
            Err(StoreError::Conflict { current, .. }) => {
                Ok(Err(self.newer(target, current, entry.name())?))
            }
            Err(error) => Err(store_status(&error)),
        }
    }
}

enum Step {
    /// It goes at once.
    Remove,
    /// It is stored in this form and goes later.
    Mark(Value),
    /// It is going already, and nothing changes.
    Pending,
}

/// Decides what a delete does to an object (upstream's `BeforeDelete` and `deletionFinalizersForGarbageCollection`).
fn plan(target: &Target, old: &Value, options: &DeleteOptions, call: &Call) -> Step {
    let asked = options.grace_period_seconds;
    let mut finalizers = options.finalizers(target, old);
    if target.group_resource() == crd::definitions() && object::deletion_timestamp(old).is_none() {
        finalizers.push(crd::FINALIZER.into());
        finalizers.dedup();
    }
    let mut new = old.clone();
    let metadata = object::metadata_mut(&mut new);
    match finalizers.is_empty() {
        true => metadata.remove("finalizers"),
        false => metadata.insert("finalizers".into(), finalizers.into()),
    };
    let deleting = object::deletion_timestamp(old).and_then(time::parse);
    let grace = match target.resource().strategy.deletion(old, asked) {
        Deletion::Immediate => 0,
        Deletion::Graceful { seconds } => seconds.max(0),
    };
    let until = match deleting {
        None => call.now,
        Some(end) => {
            let left =
                object::at(old, "metadata.deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0);
            // Only a shorter grace period than the one that runs means anything.
            if left > 0 && (asked.is_none() || grace >= left) {
                return if new == *old { Step::Pending } else { Step::Mark(new) };
            }
            end.checked_sub(jiff::SignedDuration::from_secs(left)).unwrap_or(call.now).max(call.now)
        }
    };
    if grace == 0 && !finalizing(target, &new) {
        return Step::Remove;
    }
    if deleting.is_some() && grace == 0 && new == *old {
        return Step::Pending;
    }
    let end = until.checked_add(jiff::SignedDuration::from_secs(grace)).unwrap_or(until);
    let metadata = object::metadata_mut(&mut new);
    metadata.insert("deletionGracePeriodSeconds".into(), grace.into());
    if deleting.is_none() || grace > 0 {
        metadata.insert("deletionTimestamp".into(), time::rfc3339(end).into());
    }
    if deleting.is_none()
        && let Some(generation) = metadata.get("generation").and_then(Value::as_i64)
    {
        metadata.insert("generation".into(), (generation + 1).into());
    }
    if target.resource().group.is_empty() && target.resource().names.plural == "namespaces" {
        object::child_mut(&mut new, "status").insert("phase".into(), "Terminating".into());
    }
    if new == *old { Step::Pending } else { Step::Mark(new) }
}

fn check_preconditions(
    target: &Target,
    entry: &Entry,
    old: &Value,
    options: &DeleteOptions,
) -> Result<(), Status> {
    let Some(wanted) = &options.preconditions else { return Ok(()) };
    // Upstream names the kind here, not the resource.
    let kind = GroupResource::new(&target.resource().group, target.kind());
    let differs = |what: &str, fate: &str, wanted: &Option<String>, found: &str| {
        let wanted = wanted.as_deref().filter(|wanted| *wanted != found)?;
        let why = format!(
            "the {what} in the precondition ({wanted}) does not match the {what} in record ({found}). The object \
             might have been {fate}"
        );
        Some(Status::conflict(&kind, entry.name(), &why))
    };
    let revision = entry.revision.to_string();
    match differs("UID", "deleted and then recreated", &wanted.uid, object::uid(old))
        .or_else(|| differs("ResourceVersion", "modified", &wanted.resource_version, &revision))
    {
        Some(status) => Err(status),
        None => Ok(()),
    }
}
