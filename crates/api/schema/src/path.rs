//! Where a value sits in an object, written the way error messages name it: `spec.containers[0].ports[1]`.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// A path to a field. Cloning and extending share the prefix, so that validation can carry paths around freely
/// and only a message pays for the text.
#[derive(Clone, Debug, Default)]
pub struct Path(Option<Arc<Node>>);

#[derive(Debug)]
struct Node {
    parent: Path,
    segment: Segment,
}

#[derive(Debug)]
enum Segment {
    Child(Cow<'static, str>),
    Index(usize),
    Key(Cow<'static, str>),
}

impl Path {
    /// The path of the object itself; its text is empty.
    #[must_use]
    pub const fn root() -> Self {
        Self(None)
    }

    /// A path of one field below the root.
    #[must_use]
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self::root().child(name)
    }

    /// The field `name` of the object at this path.
    #[must_use]
    pub fn child(&self, name: impl Into<Cow<'static, str>>) -> Self {
        self.push(Segment::Child(name.into()))
    }

    /// The item at `index` (from zero) of the list at this path.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.push(Segment::Index(index))
    }

    /// The value under `key` of the map at this path; written `[key]`.
    #[must_use]
    pub fn key(&self, key: impl Into<Cow<'static, str>>) -> Self {
        self.push(Segment::Key(key.into()))
    }

    /// Whether this is the path of the object itself.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_none()
    }

    fn push(&self, segment: Segment) -> Self {
        Self(Some(Arc::new(Node { parent: self.clone(), segment })))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(node) = &self.0 else { return Ok(()) };
        node.parent.fmt(f)?;
        match &node.segment {
            Segment::Child(name) if node.parent.is_root() => f.write_str(name),
            Segment::Child(name) => write!(f, ".{name}"),
            Segment::Index(index) => write!(f, "[{index}]"),
            Segment::Key(key) => write!(f, "[{key}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_read_like_upstreams() {
        let spec = Path::new("spec");
        assert_eq!(spec.child("containers").index(2).child("name").to_string(), "spec.containers[2].name");
        assert_eq!(spec.child("nodeSelector").key("a/b").to_string(), "spec.nodeSelector[a/b]");
        assert_eq!(Path::root().to_string(), "");
    }
}
