//! `get`, and the answer that carries one object.

use xebec_types::Status;

use crate::api::{Api, Call, cache_status};
use crate::catalog::Target;
use crate::codec::Encoded;
use crate::negotiate::{self, Shape};
use crate::query::invalid_version;
use crate::reply::{self, Reply};
use crate::table;

impl Api {
    /// Answers one object, or its status subresource, which is the same.
    ///
    /// # Errors
    /// 404, 406.
    pub async fn get(&self, call: &Call, target: &Target) -> Reply {
        let info = &call.info;
        match call.query.get("resourceVersion") {
            "" => self.cache.wait_fresh().await.map_err(cache_status)?,
            text => {
                let revision: u64 = text.parse().map_err(|_| invalid_version(text))?;
                self.cache.wait(revision).await.map_err(cache_status)?;
            }
        }
        let entry = self.cached(target, &info.namespace, &info.name)?;
        object_reply(call, target, 200, &entry.encoded)
    }
}

/// Answers one object in the shape that was asked for.
///
/// # Errors
/// 406.
pub fn object_reply(call: &Call, target: &Target, code: u16, encoded: &Encoded) -> Reply {
    let wanted = negotiate::wanted(&call.headers, true)?;
    let body = match wanted.shape {
        // Revision 0 is no revision: a dry run has stored nothing.
        Shape::Object if encoded.revision() == 0 => encoded.stored().into(),
        Shape::Object => encoded.as_version(&target.api_version(), target.kind()),
        Shape::Table => table::object(target, encoded, &call.query, call.now)?.to_string().into(),
        Shape::Metadata => table::metadata_of(encoded),
    };
    Ok(reply::encoded(code, wanted.encoding, body))
}

/// Refuses what a body may not name.
///
/// # Errors
/// 400 if the object's name is not the one in the path.
pub fn check_name(given: &str, wanted: &str) -> Result<(), Status> {
    if given.is_empty() || given == wanted {
        return Ok(());
    }
    let text = format!("the name of the object ({given}) does not match the name on the URL ({wanted})");
    Err(Status::bad_request(text))
}
