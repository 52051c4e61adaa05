//! The objects that service-account tokens are bound to, as the watch cache knows them.

use std::sync::Arc;

use xebec_auth::authn::{Live, TokenGetter};
use xebec_registry::ObjectReader;
use xebec_types::{GroupResource, object, time};

use crate::cache::Cache;

/// Reads from the watch cache.
pub struct CachedObjects(pub Arc<Cache>);

impl CachedObjects {
    fn live(&self, resource: &str, namespace: &str, name: &str) -> Option<Live> {
        let object = self.0.get(&GroupResource::new("", resource), namespace, name)?;
        let deleted_at = object::deletion_timestamp(&object).and_then(time::parse).map(|at| at.as_second());
        Some(Live { uid: object::uid(&object).into(), deleted_at })
    }
}

impl TokenGetter for CachedObjects {
    fn service_account(&self, namespace: &str, name: &str) -> Option<Live> {
        self.live("serviceaccounts", namespace, name)
    }

    fn pod(&self, namespace: &str, name: &str) -> Option<Live> {
        self.live("pods", namespace, name)
    }

    fn secret(&self, namespace: &str, name: &str) -> Option<Live> {
        self.live("secrets", namespace, name)
    }

    fn node(&self, name: &str) -> Option<Live> {
        self.live("nodes", "", name)
    }
}
