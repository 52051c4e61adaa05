//! What an informer holds, and the indexes over it.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::Key;

/// The value under which an index has an object; `None`: it is not in the index.
pub type IndexBy<K> = for<'a> fn(&'a K) -> Option<Cow<'a, str>>;

/// Objects by namespace and name, with indexes that every change keeps.
pub(crate) struct Objects<K> {
    by_namespace: HashMap<String, HashMap<String, Arc<K>>>,
    indexes: Vec<Entries<K>>,
}

struct Entries<K> {
    by: IndexBy<K>,
    objects: HashMap<String, HashSet<Member<K>>>,
}

/// An object in a set, told from others by its place in memory: two forms of one object differ.
struct Member<K>(Arc<K>);

impl<K> PartialEq for Member<K> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<K> Eq for Member<K> {}

impl<K> Hash for Member<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

impl<K> Default for Objects<K> {
    fn default() -> Self {
        Self { by_namespace: HashMap::new(), indexes: Vec::new() }
    }
}

impl<K> Objects<K> {
    /// One object.
    pub fn get(&self, key: &Key) -> Option<&Arc<K>> {
        self.by_namespace.get(&key.namespace)?.get(&key.name)
    }

    /// All objects.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<K>> {
        self.by_namespace.values().flat_map(HashMap::values)
    }

    /// The objects of a namespace.
    pub fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = &Arc<K>> {
        self.by_namespace.get(namespace).into_iter().flat_map(HashMap::values)
    }

    /// The names of all objects.
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        self.by_namespace.iter().flat_map(|(namespace, objects)| {
            objects.keys().map(move |name| Key::new(namespace.as_str(), name.as_str()))
        })
    }

    /// Puts an object in; answers what was there before.
    pub fn insert(&mut self, key: Key, object: Arc<K>) -> Option<Arc<K>> {
        let old = self.by_namespace.entry(key.namespace).or_default().insert(key.name, object.clone());
        for index in &mut self.indexes {
            if let Some(old) = &old {
                index.remove(old);
            }
            index.insert(&object);
        }
        old
    }

    /// Takes an object out.
    pub fn remove(&mut self, key: &Key) -> Option<Arc<K>> {
        let objects = self.by_namespace.get_mut(&key.namespace)?;
        let old = objects.remove(&key.name)?;
        if objects.is_empty() {
            self.by_namespace.remove(&key.namespace);
        }
        for index in &mut self.indexes {
            index.remove(&old);
        }
        Some(old)
    }

    /// Adds an index over what is there and what will come; answers its number.
    pub fn add_index(&mut self, by: IndexBy<K>) -> usize {
        let mut index = Entries { by, objects: HashMap::new() };
        self.iter().for_each(|object| index.insert(object));
        self.indexes.push(index);
        self.indexes.len() - 1
    }

    /// What the index of this number has under `value`.
    pub fn indexed(&self, index: usize, value: &str) -> impl Iterator<Item = &Arc<K>> {
        let members = self.indexes.get(index).and_then(|index| index.objects.get(value));
        members.into_iter().flatten().map(|member| &member.0)
    }
}

impl<K> Entries<K> {
    fn insert(&mut self, object: &Arc<K>) {
        let Some(value) = (self.by)(object) else { return };
        let member = Member(object.clone());
        match self.objects.get_mut(value.as_ref()) {
            Some(members) => drop(members.insert(member)),
            None => drop(self.objects.insert(value.into_owned(), HashSet::from([member]))),
        }
    }

    fn remove(&mut self, object: &Arc<K>) {
        let Some(value) = (self.by)(object) else { return };
        let Some(members) = self.objects.get_mut(value.as_ref()) else { return };
        members.remove(&Member(object.clone()));
        if members.is_empty() {
            self.objects.remove(value.as_ref());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text whose first letter an index looks at.
    fn first<'a>(text: &'a &'static str) -> Option<Cow<'a, str>> {
        text.get(..1).map(Cow::Borrowed)
    }

    fn objects() -> Objects<&'static str> {
        let mut objects = Objects::default();
        objects.insert(Key::new("one", "a"), Arc::new("x1"));
        objects.insert(Key::new("one", "b"), Arc::new("y1"));
        objects.insert(Key::new("two", "a"), Arc::new("x2"));
        objects
    }

    fn sorted<'a>(objects: impl Iterator<Item = &'a Arc<&'static str>>) -> Vec<&'static str> {
        let mut texts: Vec<&str> = objects.map(|text| **text).collect();
        texts.sort_unstable();
        texts
    }

    #[test]
    fn namespaces_hold_their_own() {
        let mut objects = objects();
        assert_eq!(sorted(objects.in_namespace("one")), ["x1", "y1"]);
        assert_eq!(sorted(objects.iter()), ["x1", "x2", "y1"]);
        assert_eq!(objects.remove(&Key::new("two", "a")).as_deref(), Some(&"x2"));
        assert_eq!(objects.remove(&Key::new("two", "a")), None);
        assert_eq!(sorted(objects.in_namespace("two")), [""; 0]);
        assert!(!objects.by_namespace.contains_key("two"), "an empty namespace costs nothing");
    }

    #[test]
    fn an_index_holds_what_was_there_before_it() {
        let mut objects = objects();
        let index = objects.add_index(first);
        assert_eq!(sorted(objects.indexed(index, "x")), ["x1", "x2"]);
        assert_eq!(sorted(objects.indexed(index, "z")), [""; 0]);
    }

    #[test]
    fn an_index_follows_every_change() {
        let mut objects = objects();
        let index = objects.add_index(first);
        objects.insert(Key::new("two", "b"), Arc::new("x3"));
        assert_eq!(sorted(objects.indexed(index, "x")), ["x1", "x2", "x3"]);
        objects.insert(Key::new("one", "a"), Arc::new("z1"));
        assert_eq!(sorted(objects.indexed(index, "x")), ["x2", "x3"]);
        assert_eq!(sorted(objects.indexed(index, "z")), ["z1"]);
        objects.insert(Key::new("two", "a"), Arc::new(""));
        assert_eq!(sorted(objects.indexed(index, "x")), ["x3"], "an object without a value is in no place");
        objects.remove(&Key::new("two", "a"));
        objects.remove(&Key::new("two", "b"));
        assert_eq!(sorted(objects.indexed(index, "x")), [""; 0]);
        assert!(!objects.indexes[index].objects.contains_key("x"), "an empty place costs nothing");
    }

    #[test]
    fn the_same_object_twice_is_there_once() {
        let mut objects = Objects::default();
        let index = objects.add_index(first);
        let object = Arc::new("x");
        objects.insert(Key::new("", "a"), object.clone());
        objects.insert(Key::new("", "a"), object);
        assert_eq!(sorted(objects.indexed(index, "x")), ["x"]);
    }
}
