//! Objects as bytes, in a canonical order that lets them be passed on without being parsed.
//!
//! A stored object is JSON that begins `{"apiVersion":…,"kind":…,"metadata":{…` and has no resourceVersion: that
//! is the store's revision. Serving an object means splicing the revision in as the first member of `metadata`, and
//! serving it in another version means writing another beginning; the rest is copied.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::IgnoredAny;
use serde::ser::{SerializeMap, Serializer};
use serde_json::{Map, Value};

/// Turns what is stored into plain JSON and back: the seam for encryption at rest.
pub trait Transformer: Send + Sync + 'static {
    /// From the store. `key` authenticates the place.
    ///
    /// # Errors
    /// What is wrong with the stored bytes, for the log.
    fn open(&self, key: &str, stored: &Bytes) -> Result<Bytes, String>;

    /// To the store.
    ///
    /// # Errors
    /// Why the value cannot be sealed.
    fn seal(&self, key: &str, plain: Bytes) -> Result<Bytes, String>;
}

/// Stores values as they are.
pub struct Plain;

impl Transformer for Plain {
    fn open(&self, _key: &str, stored: &Bytes) -> Result<Bytes, String> {
        Ok(stored.clone())
    }

    fn seal(&self, _key: &str, plain: Bytes) -> Result<Bytes, String> {
        Ok(plain)
    }
}

/// An object whose beginning is canonical and whose resourceVersion is spliced in.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// The whole object.
    pub bytes: Bytes,
    /// Where the members of `metadata` begin.
    meta: u32,
    /// The resourceVersion at `meta`.
    revision: u64,
}

/// Writes an object as it is stored: canonical order, no resourceVersion.
pub fn encode(object: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    let written = serde_json::to_writer(&mut out, &Canonical(object));
    written.expect("invariant: a JSON value serializes");
    out
}

/// Splices `revision` into a stored object. Bytes in another order than ours (written by another server) are
/// parsed and written anew; `None` if they are no object.
pub fn splice(stored: &[u8], revision: u64) -> Option<Encoded> {
    let stored = match metadata_offset(stored) {
        Some(_) => Cow::Borrowed(stored),
        None => Cow::Owned(encode(&serde_json::from_slice::<Value>(stored).ok()?)),
    };
    let meta = metadata_offset(&stored)?;
    Some(join(&stored[..meta], revision, &stored[meta..]))
}

fn join(head: &[u8], revision: u64, rest: &[u8]) -> Encoded {
    let member = member(revision, rest.first() != Some(&b'}'));
    let bytes: Bytes = [head, member.as_bytes(), rest].concat().into();
    Encoded { bytes, meta: u32::try_from(head.len()).expect("invariant: heads are short"), revision }
}

fn member(revision: u64, comma: bool) -> String {
    format!("\"resourceVersion\":\"{revision}\"{}", if comma { "," } else { "" })
}

impl Encoded {
    /// The resourceVersion.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// The same object at another revision, as the last state of a deleted object is sent.
    #[must_use]
    pub fn at(&self, revision: u64) -> Self {
        if revision == self.revision {
            return self.clone();
        }
        join(&self.bytes[..self.meta as usize], revision, self.after_revision())
    }

    /// The same object as another version of its kind, whose shape is the same.
    #[must_use]
    pub fn as_version(&self, api_version: &str, kind: &str) -> Bytes {
        let head = head(api_version, kind);
        if self.bytes[..self.meta as usize] == *head.as_bytes() {
            return self.bytes.clone();
        }
        [head.as_bytes(), &self.bytes[self.meta as usize..]].concat().into()
    }

    /// The object's `metadata` alone, as JSON.
    #[must_use]
    pub fn metadata(&self) -> &[u8] {
        // From the brace before the first member to its partner.
        let rest = &self.bytes[self.meta as usize - 1..];
        let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<IgnoredAny>();
        let first = values.next();
        assert!(matches!(first, Some(Ok(_))), "invariant: encoded objects are JSON");
        &rest[..values.byte_offset()]
    }

    /// The object without its resourceVersion, as it is stored.
    #[must_use]
    pub fn stored(&self) -> Vec<u8> {
        [&self.bytes[..self.meta as usize], self.after_revision()].concat()
    }

    fn after_revision(&self) -> &[u8] {
        let start = self.meta as usize + member(self.revision, false).len();
        let rest = &self.bytes[start..];
        rest.strip_prefix(b",").unwrap_or(rest)
    }
}

fn head(api_version: &str, kind: &str) -> String {
    format!("{{\"apiVersion\":\"{api_version}\",\"kind\":\"{kind}\",\"metadata\":{{")
}

/// Where the members of `metadata` begin, if the object begins as ours do and has no resourceVersion.
fn metadata_offset(stored: &[u8]) -> Option<usize> {
    let quoted = |from: usize| stored[from..].iter().position(|b| *b == b'"').map(|at| from + at + 1);
    let rest = stored.strip_prefix(b"{\"apiVersion\":\"")?;
    let api_version_end = quoted(stored.len() - rest.len())?;
    let rest = stored[api_version_end..].strip_prefix(b",\"kind\":\"")?;
    let kind_end = quoted(stored.len() - rest.len())?;
    let rest = stored[kind_end..].strip_prefix(b",\"metadata\":{")?;
    Some(stored.len() - rest.len())
}

/// The members that come first.
const FIRST: [&str; 3] = ["apiVersion", "kind", "metadata"];

struct Canonical<'a>(&'a Value);

impl Serialize for Canonical<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(object) = self.0.as_object() else { return self.0.serialize(serializer) };
        let mut map = serializer.serialize_map(None)?;
        for key in FIRST {
            match (key, object.get(key)) {
                ("metadata", Some(Value::Object(metadata))) => {
                    map.serialize_entry(key, &Metadata(metadata))?
                }
                ("metadata", _) => map.serialize_entry(key, &Map::new())?,
                (_, Some(value)) => map.serialize_entry(key, value)?,
                (_, None) => map.serialize_entry(key, "")?,
            }
        }
        for (key, value) in object {
            if !FIRST.contains(&key.as_str()) {
                map.serialize_entry(key, value)?;
            }
        }
        map.end()
    }
}

struct Metadata<'a>(&'a Map<String, Value>);

impl Serialize for Metadata<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in self.0.iter().filter(|(key, _)| *key != "resourceVersion") {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// What a transformer says is wrong, as an error to log and answer with.
pub type SharedTransformer = Arc<dyn Transformer>;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn revisions_are_spliced_in_and_out() {
        let object = json!({
            "data": {"a": "b"}, "kind": "ConfigMap", "apiVersion": "v1",
            "metadata": {"name": "x", "resourceVersion": "3"},
        });
        let stored = encode(&object);
        assert_eq!(
            std::str::from_utf8(&stored).unwrap(),
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"data":{"a":"b"}}"#
        );
        let encoded = splice(&stored, 12).unwrap();
        let parsed: Value = serde_json::from_slice(&encoded.bytes).unwrap();
        assert_eq!(parsed["metadata"], json!({"name": "x", "resourceVersion": "12"}));
        assert_eq!(encoded.stored(), stored);
        assert_eq!(encoded.metadata(), br#"{"resourceVersion":"12","name":"x"}"#);
        let later = encoded.at(1300);
        assert_eq!(later.stored(), stored);
        let parsed: Value = serde_json::from_slice(&later.bytes).unwrap();
        assert_eq!(parsed["metadata"]["resourceVersion"], "1300");
        let other = later.as_version("g/v2", "Thing");
        assert!(
            other
                .starts_with(br#"{"apiVersion":"g/v2","kind":"Thing","metadata":{"resourceVersion":"1300","#)
        );
    }

    #[test]
    fn foreign_orders_are_rewritten() {
        let foreign = br#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p"},"spec":{}}"#;
        let encoded = splice(foreign, 5).unwrap();
        assert_eq!(
            std::str::from_utf8(&encoded.bytes).unwrap(),
            r#"{"apiVersion":"v1","kind":"Pod","metadata":{"resourceVersion":"5","name":"p"},"spec":{}}"#
        );
        assert!(splice(b"not json", 5).is_none());
        let empty = splice(br#"{"apiVersion":"v1","kind":"A","metadata":{}}"#, 5).unwrap();
        assert_eq!(empty.stored(), br#"{"apiVersion":"v1","kind":"A","metadata":{}}"#);
    }
}
