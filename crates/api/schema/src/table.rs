//! The built-in types, read from the generated table one by one as they are first used.
//!
//! A type expression is read from the left: `*` pointer, `[` list, `{` map with string keys, `W` list that is
//! a message in protobuf, `@NAME` struct (`@.NAME`: of the same group and version), `s<GO>` string with a Go
//! name; else one letter: `s` string, `b` bool, `i` int32, `l` int64, `d` double, `B` bytes, `q` quantity, `I`
//! int or string, `t` time, `u` time with microseconds, `D` duration, `f` field set, `r` raw extension, `j`
//! any JSON, `A`, `O`, `S` JSON schema or list, bool, list of strings. Flags: `o` omitempty, `z` omitzero, `!`
//! required. The number is protobuf's. Extras: `L=` list type (`a`, `s`, `m:KEYS`), `X=a` atomic or `X=g`
//! granular map, `P=` patch strategies, `M=` merge key, `D=` default.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use crate::schema::{Field, Inline, Kind, List, ListType, Map, NamedRef, Node, Object, Patch, Schema};

const TABLE: &str = include_str!("builtin.table");

struct Registry {
    /// Name and block of every type, sorted by name as the table is.
    index: Vec<(&'static str, &'static str)>,
    built: RwLock<HashMap<&'static str, Arc<Schema>>>,
}

/// Group names by the short group of the type names; a group without a dot is its own.
const GROUPS: &[(&str, &str)] = &[
    ("admission", "admission.k8s.io"),
    ("admissionregistration", "admissionregistration.k8s.io"),
    ("apidiscovery", "apidiscovery.k8s.io"),
    ("apiextensions", "apiextensions.k8s.io"),
    ("apiregistration", "apiregistration.k8s.io"),
    ("apiserverinternal", "internal.apiserver.k8s.io"),
    ("authentication", "authentication.k8s.io"),
    ("authorization", "authorization.k8s.io"),
    ("certificates", "certificates.k8s.io"),
    ("coordination", "coordination.k8s.io"),
    ("core", ""),
    ("discovery", "discovery.k8s.io"),
    ("events", "events.k8s.io"),
    ("flowcontrol", "flowcontrol.apiserver.k8s.io"),
    ("imagepolicy", "imagepolicy.k8s.io"),
    ("metrics", "metrics.k8s.io"),
    ("networking", "networking.k8s.io"),
    ("node", "node.k8s.io"),
    ("rbac", "rbac.authorization.k8s.io"),
    ("resource", "resource.k8s.io"),
    ("scheduling", "scheduling.k8s.io"),
    ("storage", "storage.k8s.io"),
    ("storagemigration", "storagemigration.k8s.io"),
];

/// Types that stand as one letter in the table but have a name of their own in OpenAPI.
const NAMED_LETTERS: &[(&str, &str)] = &[
    ("q", "resource.Quantity"),
    ("I", "intstr.IntOrString"),
    ("t", "meta.v1.Time"),
    ("u", "meta.v1.MicroTime"),
    ("f", "meta.v1.FieldsV1"),
    ("r", "runtime.RawExtension"),
    ("j", "apiextensions.v1.JSON"),
    ("A", "apiextensions.v1.JSONSchemaPropsOrArray"),
    ("O", "apiextensions.v1.JSONSchemaPropsOrBool"),
    ("S", "apiextensions.v1.JSONSchemaPropsOrStringArray"),
];

/// The schema of a built-in kind; also of the kinds that every group serves (`DeleteOptions`, `WatchEvent`, …).
#[must_use]
pub fn builtin(group: &str, version: &str, kind: &str) -> Option<Arc<Schema>> {
    let short = GROUPS.iter().find(|(_, full)| *full == group).map_or(group, |(short, _)| short);
    builtin_type(&format!("{short}.{version}.{kind}"))
        .or_else(|| builtin_type(&format!("meta.v1.{kind}")))
        .filter(|schema| schema.object().is_some_and(|object| object.is_kind))
}

/// The schema of the built-in struct with the given short name: group folder, version and Go name of the type, such
/// as `core.v1.Container`, `meta.v1.ObjectMeta`, `rbac.v1.PolicyRule`.
#[must_use]
pub fn builtin_type(name: &str) -> Option<Arc<Schema>> {
    let registry = registry();
    let read = registry.built.read().unwrap_or_else(PoisonError::into_inner);
    if let Some(schema) = read.get(name) {
        return Some(Arc::clone(schema));
    }
    drop(read);
    let at = registry.index.binary_search_by(|(have, _)| (*have).cmp(name)).ok()?;
    let (name, block) = registry.index[at];
    let schema = Arc::new(parse_type(name, block));
    let mut built = registry.built.write().unwrap_or_else(PoisonError::into_inner);
    Some(Arc::clone(built.entry(name).or_insert(schema)))
}

/// The short names of all built-in structs, sorted.
pub fn builtin_names() -> impl Iterator<Item = &'static str> {
    registry().index.iter().map(|(name, _)| *name)
}

/// The API group of a short type name: `rbac.v1.Role` belongs to `rbac.authorization.k8s.io`.
#[must_use]
pub fn group_of(name: &str) -> &str {
    let short = name.split('.').next().unwrap_or(name);
    GROUPS.iter().find(|(have, _)| *have == short).map_or(short, |(_, full)| full)
}

fn registry() -> &'static Registry {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    REGISTRY.get_or_init(|| {
        let index = TABLE.split("\n=").map(|block| {
            let block = block.strip_prefix('=').unwrap_or(block);
            let end = block.find([' ', '\n']).unwrap_or(block.len());
            (&block[..end], block)
        });
        Registry { index: index.collect(), built: RwLock::default() }
    })
}

fn parse_type(name: &str, block: &'static str) -> Schema {
    let mut lines = block.lines();
    let header = lines.next().unwrap_or_default();
    let mut object = Object {
        is_kind: header.split(' ').any(|word| word == "K"),
        atomic: header.split(' ').any(|word| word == "X=a"),
        ..Object::default()
    };
    let home = name.rsplit_once('.').map_or("", |(home, _)| home);
    for line in lines {
        add_field(&mut object, home, line);
    }
    object.fields.sort_by(|a, b| a.name.cmp(&b.name).then(a.via.cmp(&b.via)));
    // An own field hides one of the same name in an inlined struct, as in Go.
    object.fields.dedup_by(|later, kept| later.name == kept.name);
    Schema { name: name.to_owned(), ..Schema::of(Kind::Object(object), true) }
}

fn add_field(object: &mut Object, home: &str, line: &'static str) {
    let mut words = line.splitn(5, ' ');
    let mut word = || words.next().expect("invariant: a field line has four words");
    let (name, expression, flags, tag) = (word(), word(), word(), word());
    let tag = tag.parse().expect("invariant: protobuf numbers are numbers");
    let extras = Extras::parse(words.next().unwrap_or_default());
    let pointer = expression.starts_with('*');
    let schema = parse_expression(home, expression.trim_start_matches('*'), &extras);
    if name == "^" {
        object.inlines.push(Inline { schema: schema.clone(), tag });
        let via = u8::try_from(object.inlines.len()).expect("invariant: few structs are inlined");
        if let Some(inner) = schema.object() {
            object.fields.extend(inner.fields.iter().map(|field| Field { via, ..copy(field) }));
        }
        return;
    }
    object.fields.push(Field {
        name: name.to_owned(),
        schema,
        omit_empty: flags.contains('o'),
        omit_zero: flags.contains('z'),
        pointer,
        required: flags.contains('!'),
        tag,
        via: 0,
        patch: extras.patch(),
        atomic: extras.atomic,
        default: extras
            .default
            .map(|text| serde_json::from_str(text).expect("invariant: the table's defaults are JSON")),
    });
}

fn copy(field: &Field) -> Field {
    Field {
        name: field.name.clone(),
        schema: field.schema.clone(),
        patch: field.patch.clone(),
        default: field.default.clone(),
        ..*field
    }
}

#[derive(Default)]
struct Extras {
    list: Option<&'static str>,
    atomic: Option<bool>,
    strategies: &'static str,
    merge_key: Option<&'static str>,
    default: Option<&'static str>,
}

impl Extras {
    fn parse(text: &'static str) -> Self {
        let mut extras = Self::default();
        for word in text.split(' ').filter(|word| !word.is_empty()) {
            let (key, value) = word.split_once('=').expect("invariant: extras are KEY=VALUE");
            match key {
                "L" => extras.list = Some(value),
                "X" => extras.atomic = Some(value == "a"),
                "P" => extras.strategies = value,
                "M" => extras.merge_key = Some(value),
                "D" => extras.default = Some(value),
                _ => unreachable!("invariant: the table has no extra {key}"),
            }
        }
        extras
    }

    fn patch(&self) -> Patch {
        let has = |strategy: &str| self.strategies.split(',').any(|s| s == strategy);
        Patch {
            merge: has("merge"),
            retain_keys: has("retainKeys"),
            replace: has("replace"),
            merge_key: self.merge_key.map(str::to_owned),
        }
    }
}

fn parse_expression(home: &str, expression: &str, extras: &Extras) -> Node {
    let (first, rest) = expression.split_at(1);
    let kind = match first {
        "@" => {
            let name =
                rest.strip_prefix('.').map_or_else(|| rest.to_owned(), |name| format!("{home}.{name}"));
            return Node::Named(NamedRef::new(name));
        }
        "*" => return parse_expression(home, rest, extras),
        "W" => return parse_list(home, rest.trim_start_matches('['), extras, true),
        "[" => return parse_list(home, rest, extras, false),
        "{" => {
            let values = parse_expression(home, rest, &Extras::default());
            Kind::Map(Map { values, atomic: extras.atomic.unwrap_or(false) })
        }
        "s" if !rest.is_empty() => {
            let name = rest.trim_matches(['<', '>']).to_owned();
            return Node::Inline(Arc::new(Schema { name, ..Schema::of(Kind::String, true) }));
        }
        "A" | "O" | "S" => {
            Kind::SchemaOr(Node::Named(NamedRef::new("apiextensions.v1.JSONSchemaProps".to_owned())))
        }
        letter => scalar(letter),
    };
    let name = NAMED_LETTERS.iter().find(|(letter, _)| *letter == first).map_or("", |(_, name)| name);
    Node::Inline(Arc::new(Schema { name: name.to_owned(), ..Schema::of(kind, true) }))
}

fn parse_list(home: &str, items: &str, extras: &Extras, wrapped: bool) -> Node {
    let (list_type, keys) = match extras.list.and_then(|list| list.split_once(':').or(Some((list, "")))) {
        Some(("m", keys)) => (ListType::Map, keys),
        Some(("s", _)) => (ListType::Set, ""),
        _ => (ListType::Atomic, ""),
    };
    let list_type_declared = extras.list.is_some();
    let map_keys = keys.split(',').filter(|key| !key.is_empty()).map(str::to_owned).collect();
    let items = parse_expression(home, items, &Extras::default());
    Node::Inline(Arc::new(Schema::of(
        Kind::List(List { items, list_type, list_type_declared, map_keys, wrapped }),
        true,
    )))
}

fn scalar(letter: &str) -> Kind {
    match letter {
        "s" => Kind::String,
        "b" => Kind::Bool,
        "i" => Kind::Int32,
        "l" => Kind::Int64,
        "d" => Kind::Number,
        "B" => Kind::Bytes,
        "q" => Kind::Quantity,
        "I" => Kind::IntOrString,
        "t" => Kind::Time,
        "u" => Kind::MicroTime,
        "D" => Kind::Duration,
        "f" | "r" => Kind::Raw,
        "j" => Kind::Any,
        other => unreachable!("invariant: the table has no type {other}"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_type_parses_and_every_reference_resolves() {
        let mut seen = 0;
        for name in builtin_names() {
            let schema = builtin_type(name).unwrap();
            for field in &schema.object().unwrap().fields {
                let mut node = field.schema.clone();
                loop {
                    let next = match &node.kind {
                        Kind::List(list) => list.items.clone(),
                        Kind::Map(map) => map.values.clone(),
                        _ => break,
                    };
                    node = next;
                }
                assert!(!node.go_name().is_empty());
            }
            seen += 1;
        }
        assert!(seen > 1000, "{seen} types");
    }

    #[test]
    fn facts_of_the_table() {
        let pod = builtin("", "v1", "Pod").unwrap();
        assert_eq!(pod.name, "core.v1.Pod");
        let containers = pod.field("spec").unwrap().schema.field("containers").unwrap();
        assert_eq!(containers.patch.merge_key.as_deref(), Some("name"));
        let list = containers.schema.list().unwrap();
        assert_eq!((list.list_type, list.map_keys.as_slice()), (ListType::Map, &["name".to_owned()][..]));
        assert_eq!(list.items.name, "core.v1.Container");
        let volumes = builtin_type("core.v1.PodSpec").unwrap();
        let volumes = volumes.field("volumes").unwrap();
        assert!(volumes.patch.merge && volumes.patch.retain_keys);
        assert!(builtin("", "v1", "PodSpec").is_none(), "a part is no kind");
        assert!(builtin("apps", "v1", "DeleteOptions").is_some());
        assert_eq!(group_of("rbac.v1.Role"), "rbac.authorization.k8s.io");
        let volume = builtin_type("core.v1.Volume").unwrap();
        assert_eq!((volume.field("emptyDir").unwrap().via, volume.object().unwrap().inlines[0].tag), (1, 2));
    }
}
