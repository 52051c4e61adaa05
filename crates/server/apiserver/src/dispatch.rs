//! From a request that has passed the filters to its verb.

use http::Method;
use xebec_registry::{SubresourceName, Verb};
use xebec_types::Status;

use crate::api::{Api, Call};
use crate::catalog::Target;
use crate::reply::Reply;

impl Api {
    /// Answers a request for a resource.
    ///
    /// # Errors
    /// Whatever the verb refuses.
    pub async fn dispatch(&self, call: &Call, method: &Method) -> Reply {
        let target = self.target(&call.info)?;
        let mut reply = match call.info.subresource.is_empty() {
            true => self.main(call, &target).await,
            false => self.subresource(call, method, &target).await,
        }?;
        if let Some(warning) = &target.version().deprecation {
            crate::reply::warn(&mut reply, std::slice::from_ref(warning));
        }
        Ok(reply)
    }

    async fn main(&self, call: &Call, target: &Target) -> Reply {
        let verb = verb_of(call.info.verb).ok_or_else(Status::method_not_allowed)?;
        let named = !call.info.name.is_empty();
        let fits = match verb {
            Verb::Create | Verb::List | Verb::DeleteCollection => !named,
            Verb::Get | Verb::Update | Verb::Patch | Verb::Delete => named,
            Verb::Watch => true,
        };
        if !fits || !target.resource().verbs.contains(&verb) {
            return Err(Status::method_not_allowed());
        }
        match verb {
            Verb::Create if !target.resource().stored => self.review(call, target).await,
            Verb::Create => self.create(call, target).await,
            Verb::Get => self.get(call, target).await,
            Verb::List => self.list(call, target).await,
            Verb::Watch => self.watch(call, target).await,
            Verb::Update => self.update(call, target, SubresourceName::Main).await,
            Verb::Patch => self.patch(call, target, SubresourceName::Main).await,
            Verb::Delete => self.delete(call, target).await,
            Verb::DeleteCollection => self.delete_collection(call, target).await,
        }
    }

    async fn subresource(&self, call: &Call, method: &Method, target: &Target) -> Reply {
        let subresources = &target.version().subresources;
        match call.info.subresource.as_str() {
            "status" if subresources.status => self.part(call, target, SubresourceName::Status).await,
            "scale" if subresources.scale.is_some() => self.scale(call, target).await,
            name => {
                let extra = subresources.extra.iter().find(|extra| extra.name == name);
                let extra = extra.ok_or_else(Status::no_such_resource)?;
                self.special(call, method, target, extra.name).await
            }
        }
    }

    /// A part of an object that reads and writes as the object itself.
    pub(crate) async fn part(&self, call: &Call, target: &Target, name: SubresourceName) -> Reply {
        match call.info.verb {
            "get" => self.get(call, target).await,
            "update" => self.update(call, target, name).await,
            "patch" => self.patch(call, target, name).await,
            _ => Err(Status::method_not_allowed()),
        }
    }
}

fn verb_of(verb: &str) -> Option<Verb> {
    Verb::ALL.iter().copied().find(|known| known.as_str() == verb)
}
