//! `serviceaccounts/token`: tokens for service accounts (`authentication.k8s.io/v1` TokenRequest).

use serde_json::{Value, json};
use xebec_auth::authn::{NamedClaim, TokenRequest};
use xebec_registry::ObjectReader;
use xebec_types::{Cause, GroupKind, GroupResource, Status, object, time};

use crate::api::{Api, Call};
use crate::catalog::Target;
use crate::engine;
use crate::reply::{self, Reply};

/// Seconds when the request names none.
const DEFAULT_SECONDS: i64 = 3600;
/// The shortest life of a token; upstream's.
const MIN_SECONDS: i64 = 600;
/// The longest: 2^32 seconds, as upstream validates.
const MAX_SECONDS: i64 = 1 << 32;

impl Api {
    /// Issues a token.
    ///
    /// # Errors
    /// 404 for the account or what the token shall be bound to, 409 for a wrong uid, 422 for the duration.
    pub(crate) async fn token(&self, call: &Call, target: &Target) -> Reply {
        let mut body = engine::read_json(call)?;
        let info = &call.info;
        let account = self.find(target, &info.namespace, &info.name).await?.shared();
        let seconds =
            object::at(&body, "spec.expirationSeconds").and_then(Value::as_i64).unwrap_or(DEFAULT_SECONDS);
        check_seconds(seconds)?;
        let audiences: Vec<String> = object::at(&body, "spec.audiences")
            .and_then(Value::as_array)
            .map(|list| list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
            .unwrap_or_default();
        let mut request = TokenRequest {
            namespace: info.namespace.clone(),
            service_account: NamedClaim { name: info.name.clone(), uid: object::uid(&account).into() },
            audiences: audiences.clone(),
            expiration_seconds: seconds,
            ..TokenRequest::default()
        };
        self.bind_token(&mut request, &body)?;
        let (token, expires) = self.tokens.issuer.issue(request, call.now).map_err(Status::internal)?;
        body["kind"] = "TokenRequest".into();
        body["apiVersion"] = "authentication.k8s.io/v1".into();
        body["metadata"] = json!({
            "name": info.name, "namespace": info.namespace, "creationTimestamp": time::rfc3339(call.now),
        });
        let shown = if audiences.is_empty() { &self.tokens.audiences } else { &audiences };
        body["spec"]["audiences"] = json!(shown);
        body["spec"]["expirationSeconds"] = seconds.into();
        body["status"] = json!({ "token": token, "expirationTimestamp": time::rfc3339(expires) });
        Ok(reply::value(201, &body))
    }

    /// Binds a token to the object that `spec.boundObjectRef` names.
    fn bind_token(&self, request: &mut TokenRequest, body: &Value) -> Result<(), Status> {
        let Some(reference) = object::at(body, "spec.boundObjectRef").filter(|r| r.is_object()) else {
            return Ok(());
        };
        let (kind, name) = (object::str_at(reference, "kind"), object::str_at(reference, "name"));
        let (plural, namespace) = match kind {
            "Pod" => ("pods", request.namespace.as_str()),
            "Secret" => ("secrets", request.namespace.as_str()),
            "Node" => ("nodes", ""),
            _ => {
                let text = format!("cannot bind token for serviceaccount to object of kind {kind:?}");
                return Err(Status::bad_request(text));
            }
        };
        let resource = GroupResource::new("", plural);
        let bound =
            self.cache.get(&resource, namespace, name).ok_or_else(|| Status::not_found(&resource, name))?;
        let (wanted, uid) = (object::str_at(reference, "uid"), object::uid(&bound));
        if !wanted.is_empty() && wanted != uid {
            let why = format!(
                "the UID in the bound object reference ({wanted}) does not match the UID in record. \
                 The object might have been deleted and then recreated"
            );
            return Err(Status::conflict(&resource, name, &why));
        }
        let claim = NamedClaim { name: name.into(), uid: uid.into() };
        match kind {
            "Pod" => {
                let node = object::str_at(&bound, "spec.nodeName");
                let found = self.cache.get(&GroupResource::new("", "nodes"), "", node);
                request.node =
                    found.map(|found| NamedClaim { name: node.into(), uid: object::uid(&found).into() });
                request.pod = Some(claim);
            }
            "Secret" => request.secret = Some(claim),
            _ => request.node = Some(claim),
        }
        Ok(())
    }
}

fn check_seconds(seconds: i64) -> Result<(), Status> {
    let rule = if seconds < MIN_SECONDS {
        "may not specify a duration less than 10 minutes"
    } else if seconds > MAX_SECONDS {
        "may not specify a duration larger than 2^32 seconds"
    } else {
        return Ok(());
    };
    let cause = Cause {
        reason: "FieldValueInvalid".into(),
        message: format!("Invalid value: {seconds}: {rule}"),
        field: "spec.expirationSeconds".into(),
    };
    Err(Status::invalid(&GroupKind::new("authentication.k8s.io", "TokenRequest"), "", vec![cause]))
}
