//! Questions that are answered and forgotten: may somebody do something, whose token is this, who am I.

use serde_json::{Map, Value, json};
use xebec_auth::UserInfo;
use xebec_auth::authz::{Attributes, Target as Object, Verdict};
use xebec_types::{Status, object, time};

use crate::api::{Api, Call};
use crate::catalog::Target;
use crate::engine;
use crate::reply::{self, Reply};

impl Api {
    /// Answers a review by its kind.
    ///
    /// # Errors
    /// 400 for what is incomplete, 404 for kinds that nobody answers.
    pub(crate) async fn review(&self, call: &Call, target: &Target) -> Reply {
        let validation = engine::field_validation(&call.query)?;
        let (mut review, warnings) =
            engine::decode_body(target, call.content_type(), &call.body, validation)?;
        review["status"] = match target.kind() {
            "SubjectAccessReview" => self.access(&subject(&review["spec"])?, &review["spec"])?,
            "LocalSubjectAccessReview" => {
                let spec = &review["spec"];
                let namespace = object::str_at(spec, "resourceAttributes.namespace");
                if namespace != call.info.namespace || spec.get("nonResourceAttributes").is_some() {
                    return Err(Status::bad_request(
                        "spec.resourceAttributes.namespace must match metadata.namespace",
                    ));
                }
                self.access(&subject(spec)?, spec)?
            }
            "SelfSubjectAccessReview" => self.access(&call.user, &review["spec"])?,
            "SelfSubjectRulesReview" => {
                let namespace = object::str_at(&review, "spec.namespace");
                if namespace.is_empty() {
                    return Err(Status::bad_request("no namespace on request"));
                }
                let rules = self.gate.rbac.review_rules(&call.user, namespace);
                serde_json::to_value(rules).map_err(Status::internal)?
            }
            "SelfSubjectReview" => {
                let metadata = object::metadata_mut(&mut review);
                metadata.insert("creationTimestamp".into(), time::rfc3339(call.now).into());
                json!({ "userInfo": user_info(&call.user) })
            }
            "TokenReview" => self.token_review(call, &review["spec"])?,
            _ => return Err(Status::no_such_resource()),
        };
        if review.get("metadata").is_none() {
            review["metadata"] = json!({});
        }
        let mut response = reply::value(201, &review);
        reply::warn(&mut response, &warnings);
        Ok(response)
    }

    fn access(&self, user: &UserInfo, spec: &Value) -> Result<Value, Status> {
        let text = |path: &str| object::str_at(spec, path);
        let (resource, path) = (spec.get("resourceAttributes"), spec.get("nonResourceAttributes"));
        let attributes = match (resource, path) {
            (Some(_), None) => {
                let star = |text| if text == "*" { "" } else { text };
                Attributes {
                    user,
                    verb: text("resourceAttributes.verb"),
                    target: Object::Resource {
                        group: text("resourceAttributes.group"),
                        resource: text("resourceAttributes.resource"),
                        subresource: text("resourceAttributes.subresource"),
                        namespace: star(text("resourceAttributes.namespace")),
                        name: star(text("resourceAttributes.name")),
                    },
                }
            }
            (None, Some(_)) => Attributes {
                user,
                verb: text("nonResourceAttributes.verb"),
                target: Object::Path(text("nonResourceAttributes.path")),
            },
            _ => {
                return Err(Status::bad_request(
                    "exactly one of resourceAttributes or nonResourceAttributes must be specified",
                ));
            }
        };
        let decision = self.gate.authorizer.authorize(&attributes);
        let mut status = json!({ "allowed": decision.is_allowed() });
        if decision.verdict == Verdict::Deny {
            status["denied"] = true.into();
        }
        if !decision.reason.is_empty() {
            status["reason"] = decision.reason.into();
        }
        Ok(status)
    }

    fn token_review(&self, call: &Call, spec: &Value) -> Result<Value, Status> {
        let token = object::str_at(spec, "token");
        if token.is_empty() {
            return Err(Status::bad_request("token is required for TokenReview in authentication"));
        }
        let audiences: Vec<String> = strings(spec.get("audiences"));
        match self.tokens.verifier.verify(token, &audiences, call.now) {
            Ok(Some((mut user, audiences))) => {
                user.join(xebec_auth::groups::AUTHENTICATED);
                Ok(json!({ "authenticated": true, "user": user_info(&user), "audiences": audiences }))
            }
            Ok(None) => Ok(json!({})),
            Err(error) => Ok(json!({ "error": error.to_string() })),
        }
    }
}

fn strings(list: Option<&Value>) -> Vec<String> {
    let list = list.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn subject(spec: &Value) -> Result<UserInfo, Status> {
    let user = UserInfo {
        name: object::str_at(spec, "user").into(),
        uid: object::str_at(spec, "uid").into(),
        groups: strings(spec.get("groups")),
        extra: spec
            .get("extra")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(key, values)| (key.to_lowercase(), strings(Some(values))))
            .collect(),
    };
    match user.name.is_empty() && user.groups.is_empty() {
        true => Err(Status::bad_request("at least one of user or group must be specified")),
        false => Ok(user),
    }
}

fn user_info(user: &UserInfo) -> Value {
    let mut info = Map::new();
    info.insert("username".into(), user.name.as_str().into());
    if !user.uid.is_empty() {
        info.insert("uid".into(), user.uid.as_str().into());
    }
    info.insert("groups".into(), json!(user.groups));
    if !user.extra.is_empty() {
        info.insert("extra".into(), json!(user.extra));
    }
    info.into()
}
