//! `update`: PUT of a whole object.

use serde_json::Value;
use xebec_registry::SubresourceName;
use xebec_schema::Path;
use xebec_schema::error::invalid;
use xebec_types::{Status, object};

use super::get::{check_name, object_reply};
use crate::api::{Api, Call};
use crate::catalog::Target;
use crate::engine;
use crate::reply::{self, Reply};
use crate::write::Change;

impl Api {
    /// Replaces an object, or its part that `subresource` names.
    ///
    /// # Errors
    /// What any step of a write refuses; 409 for a stale resourceVersion.
    pub async fn update(&self, call: &Call, target: &Target, subresource: SubresourceName) -> Reply {
        let info = &call.info;
        let dry_run = call.dry_run(&Value::Null)?;
        let validation = engine::field_validation(&call.query)?;
        let (body, mut warnings) = engine::decode_body(target, call.content_type(), &call.body, validation)?;
        check_name(object::name(&body), &info.name)?;
        check_name_space(target, object::namespace(&body), &info.namespace)?;
        let create = target.resource().strategy.create_on_update() && subresource == SubresourceName::Main;
        if create && self.cached(target, &info.namespace, &info.name).is_err() {
            let mut body = body;
            object::metadata_mut(&mut body).insert("name".into(), info.name.as_str().into());
            let written = self.create_object(call, target, &info.namespace, body, dry_run).await?;
            return object_reply(call, target, 201, &written.encoded);
        }
        let change = Change { target, namespace: &info.namespace, name: &info.name, subresource, dry_run };
        let written = self
            .change_object(call, &change, |old| {
                check_preconditions(target, &info.name, &body, old)?;
                let mut new = body.clone();
                object::metadata_mut(&mut new).insert("name".into(), info.name.as_str().into());
                Ok((new, Vec::new()))
            })
            .await?;
        warnings.extend(written.warnings);
        let mut response = object_reply(call, target, 200, &written.encoded)?;
        reply::warn(&mut response, &warnings);
        Ok(response)
    }
}

fn check_name_space(target: &Target, given: &str, wanted: &str) -> Result<(), Status> {
    if !target.resource().namespaced() || given.is_empty() || given == wanted {
        return Ok(());
    }
    let text = "the namespace of the provided object does not match the namespace sent on the request";
    Err(Status::bad_request(text))
}

/// The uid and resourceVersion that a changed object carries must be those of the stored one.
///
/// # Errors
/// 409, and 422 if the resource demands a resourceVersion.
pub(super) fn check_preconditions(
    target: &Target,
    name: &str,
    new: &Value,
    old: &Value,
) -> Result<(), Status> {
    let resource = target.group_resource();
    let (uid, stored) = (object::uid(new), object::uid(old));
    if !uid.is_empty() && uid != stored {
        return Err(Status::other_uid(&resource, name, uid, stored));
    }
    match object::meta_str(new, "resourceVersion") {
        "" | "0" if target.resource().strategy.unconditional_update() => Ok(()),
        "" | "0" => {
            let path = Path::new("metadata").child("resourceVersion");
            let error = invalid(&path, "", "must be specified for an update");
            Err(engine::invalid(target, name, &[error]))
        }
        version if version == object::meta_str(old, "resourceVersion") => Ok(()),
        version if version.parse::<u64>().is_err() => Err(crate::query::invalid_version(version)),
        _ => Err(Status::stale(&resource, name)),
    }
}
