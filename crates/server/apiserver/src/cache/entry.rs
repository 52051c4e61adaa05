//! One object in the watch cache: its bytes, and beside them what selectors need.

use std::sync::{Arc, OnceLock};

use serde_json::Value;
use xebec_registry::Resource;
use xebec_types::{FieldSelector, LabelSelector, object};

use crate::codec::{self, Encoded};

/// An object at a revision.
#[derive(Debug)]
pub struct Entry {
    /// Key in the store.
    pub key: Arc<str>,
    /// The commit that wrote it.
    pub revision: u64,
    /// The object as it goes over the wire.
    pub encoded: Encoded,
    /// Where the name begins in the key; the namespace is before it.
    name_at: u32,
    /// Where the namespace begins in the key.
    namespace_at: u32,
    labels: Box<[(Box<str>, Box<str>)]>,
    fields: Box<[(&'static str, Box<str>)]>,
    value: OnceLock<Arc<Value>>,
}

impl Entry {
    /// From what the store holds; `None` if that is no object. The parsed object comes along: `known`, if the caller
    /// has the object that those bytes are.
    pub fn parse(
        resource: &Resource,
        prefix: &str,
        key: Arc<str>,
        stored: &[u8],
        revision: u64,
        known: Option<Value>,
    ) -> Option<(Self, Value)> {
        let encoded = codec::splice(stored, revision)?;
        let value = match known {
            Some(mut known) => {
                object::metadata_mut(&mut known)
                    .insert("resourceVersion".into(), revision.to_string().into());
                known
            }
            None => serde_json::from_slice(&encoded.bytes).ok()?,
        };
        let rest = key.strip_prefix(prefix)?;
        let name_at = prefix.len() + rest.find('/').map_or(0, |at| at + 1);
        let strategy = &resource.strategy;
        let entry = Self {
            revision,
            encoded,
            name_at: u32::try_from(name_at).ok()?,
            namespace_at: u32::try_from(prefix.len()).ok()?,
            labels: object::labels(&value).map(|(k, v)| (k.into(), v.into())).collect(),
            fields: strategy
                .selectable_fields()
                .iter()
                .map(|field| (*field, strategy.field(&value, field).into()))
                .collect(),
            value: OnceLock::new(),
            key,
        };
        Some((entry, value))
    }

    /// `metadata.name`
    pub fn name(&self) -> &str {
        &self.key[self.name_at as usize..]
    }

    /// `metadata.namespace`, empty for cluster-scoped objects.
    pub fn namespace(&self) -> &str {
        self.key[self.namespace_at as usize..self.name_at as usize].trim_end_matches('/')
    }

    /// The object, parsed for the caller alone.
    pub fn decode(&self) -> Value {
        match self.value.get() {
            Some(value) => (**value).clone(),
            None => serde_json::from_slice(&self.encoded.bytes).expect("invariant: parsed once already"),
        }
    }

    /// The object, parsed at most once and then kept: for the few that admission reads again and again.
    pub fn shared(&self) -> Arc<Value> {
        self.value.get_or_init(|| Arc::new(self.decode_fresh())).clone()
    }

    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(k, _)| **k == *key).map(|(_, v)| &**v)
    }

    /// The value of a selectable field; empty when it is missing.
    pub fn field(&self, field: &str) -> &str {
        match field {
            "metadata.name" => self.name(),
            "metadata.namespace" => self.namespace(),
            _ => self.fields.iter().find(|(f, _)| *f == field).map_or("", |(_, v)| v),
        }
    }

    /// Bytes that this entry keeps alive, roughly.
    pub fn weight(&self) -> usize {
        self.encoded.bytes.len() + 512
    }

    fn decode_fresh(&self) -> Value {
        serde_json::from_slice(&self.encoded.bytes).expect("invariant: parsed once already")
    }
}

/// Which objects a list or watch is about.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only this namespace, unless empty.
    pub namespace: String,
    /// By labels.
    pub labels: LabelSelector,
    /// By fields.
    pub fields: FieldSelector,
}

impl Filter {
    /// Whether an object is among them.
    pub fn matches(&self, entry: &Entry) -> bool {
        (self.namespace.is_empty() || self.namespace == entry.namespace())
            && self.labels.matches(|key| entry.label(key))
            && self.fields.matches(|field| entry.field(field))
    }

    /// Whether everything in the namespace is.
    pub fn selects_all(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;
    use xebec_registry::RegistryConfig;

    use super::*;

    #[test]
    fn an_object_that_is_known_makes_the_same_entry_as_one_that_is_parsed() {
        let pods = xebec_registry::builtin(&RegistryConfig::default())
            .into_iter()
            .find(|r| r.names.plural == "pods")
            .unwrap();
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "a", "labels": {"app": "x"}},
            "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30}, "status": {"phase": "Running"},
        });
        let (stored, prefix) = (codec::encode(&object), pods.key_prefix());
        let parse = |known| {
            let key = format!("{prefix}a/p").into();
            Entry::parse(&pods, &prefix, key, &stored, 7, known).unwrap()
        };
        let ((parsed, from_bytes), (handed, from_memory)) = (parse(None), parse(Some(object.clone())));
        assert_eq!(from_memory, from_bytes);
        assert_eq!(handed.encoded.bytes, parsed.encoded.bytes);
        assert_eq!((handed.label("app"), handed.field("spec.nodeName")), (Some("x"), "n"));
        assert_eq!((handed.name(), handed.namespace()), (parsed.name(), parsed.namespace()));
    }
}
