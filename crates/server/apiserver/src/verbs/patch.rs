//! `patch`: JSON, merge and strategic merge patches, turned into a changed object that runs the usual sequence.

use serde_json::Value;
use xebec_patch::PatchError;
use xebec_registry::SubresourceName;
use xebec_types::{Status, StatusDetails, object};

use super::get::{check_name, object_reply};
use super::update::check_preconditions;
use crate::api::{Api, Call};
use crate::catalog::Target;
use crate::reply::{self, Reply};
use crate::write::Change;
use crate::{engine, negotiate};

const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// A patch that has been read but not applied.
pub(crate) enum Patch {
    /// RFC 6902.
    Json(bytes::Bytes),
    /// RFC 7386.
    Merge(Value),
    /// Upstream's own.
    Strategic(Value),
}

impl Patch {
    /// Reads the body by its media type.
    ///
    /// # Errors
    /// 415 for what the target does not take, 400 for what cannot be read.
    pub(crate) fn read(call: &Call, target: &Target) -> Result<Self, Status> {
        let custom = target.served.custom;
        let read = || {
            serde_json::from_slice(&call.body)
                .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))
        };
        match call.content_type() {
            JSON => Ok(Self::Json(call.body.clone())),
            MERGE => Ok(Self::Merge(read()?)),
            STRATEGIC if !custom => Ok(Self::Strategic(read()?)),
            APPLY => Err(Status::new(
                415,
                "UnsupportedMediaType",
                "server-side apply (application/apply-patch+yaml) is not served yet; use kubectl apply \
                 --server-side=false",
            )),
            // Upstream's words.
            _ => Err(Status::new(415, "UnsupportedMediaType", "415: Unsupported Media Type")),
        }
    }

    /// Applies it to an object.
    ///
    /// # Errors
    /// 400 or 422 if it cannot be applied.
    pub(crate) fn apply(&self, target: &Target, old: &Value) -> Result<Value, Status> {
        let mut new = old.clone();
        match self {
            Self::Json(operations) => xebec_patch::json_patch(&mut new, operations),
            Self::Merge(patch) => {
                xebec_patch::merge_patch(&mut new, patch);
                Ok(())
            }
            Self::Strategic(patch) => xebec_patch::strategic_merge(&mut new, patch, &target.version().schema),
        }
        .map_err(|error| patch_status(&error))?;
        Ok(new)
    }
}

fn patch_status(error: &PatchError) -> Status {
    match error {
        PatchError::Syntax(_) => Status::bad_request(error.to_string()),
        PatchError::TooManyOperations { .. } => Status::too_large(error.to_string()),
        _ => {
            tracing::debug!(%error, "a patch cannot be applied");
            // Upstream says no more than that.
            Status::new(422, "Invalid", "the server rejected our request due to an error in our request")
                .with_details(StatusDetails::default())
        }
    }
}

impl Api {
    /// Patches an object, or its part that `subresource` names.
    ///
    /// # Errors
    /// What any step of a write refuses.
    pub async fn patch(&self, call: &Call, target: &Target, subresource: SubresourceName) -> Reply {
        let info = &call.info;
        negotiate::wanted(&call.headers, true)?;
        let dry_run = call.dry_run(&Value::Null)?;
        let validation = engine::field_validation(&call.query)?;
        let patch = Patch::read(call, target)?;
        let change = Change { target, namespace: &info.namespace, name: &info.name, subresource, dry_run };
        let written = self
            .change_object(call, &change, |old| {
                let patched = patch.apply(target, old)?;
                let (new, warnings) = engine::decode_patched(target, &patched, validation)?;
                check_name(object::name(&new), &info.name)?;
                check_patch_preconditions(target, &info.name, &new, old)?;
                Ok((new, warnings))
            })
            .await?;
        let mut response = object_reply(call, target, 200, &written.encoded)?;
        reply::warn(&mut response, &written.warnings);
        Ok(response)
    }
}

/// A patch that leaves the resourceVersion alone carries the stored one, and one that removes it does not care.
fn check_patch_preconditions(target: &Target, name: &str, new: &Value, old: &Value) -> Result<(), Status> {
    match object::meta_str(new, "resourceVersion") {
        "" => Ok(()),
        _ => check_preconditions(target, name, new, old),
    }
}
