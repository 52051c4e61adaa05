//! `create`.

use xebec_types::Status;

use super::get::object_reply;
use crate::api::{Api, Call};
use crate::catalog::Target;
use crate::reply::{self, Reply};
use crate::{crd, engine};

impl Api {
    /// Creates the object of the body.
    ///
    /// # Errors
    /// What any step of a write refuses.
    pub async fn create(&self, call: &Call, target: &Target) -> Reply {
        if target.resource().namespaced() && call.info.namespace.is_empty() {
            return Err(Status::bad_request("an empty namespace may not be set during creation"));
        }
        let dry_run = call.dry_run(&serde_json::Value::Null)?;
        let validation = engine::field_validation(&call.query)?;
        let (object, mut warnings) =
            engine::decode_body(target, call.content_type(), &call.body, validation)?;
        let written = self.create_object(call, target, &call.info.namespace, object, dry_run).await?;
        warnings.extend(written.warnings);
        crd::served(self, target, written.encoded.revision()).await;
        let mut response = object_reply(call, target, 201, &written.encoded)?;
        reply::warn(&mut response, &warnings);
        Ok(response)
    }
}
