//! The resource that a CustomResourceDefinition describes.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde_json::Value;
use xebec_schema::{FieldError, Path, Schema};
use xebec_types::object;

use super::jsonpath::JsonPath;
use crate::cells::{self, list_at};
use crate::resource::{Column, ColumnType, Names, Resource, Scale, Scope, Subresources, Verb, Version};
use crate::{Cells, Context, Strategy};

/// The shape that a definition's `openAPIV3Schema` describes.
pub(crate) fn structural(schema: &Value, path: &Path) -> Result<Schema, Vec<FieldError>> {
    xebec_schema::from_crd(schema, path)
}

/// The resource of a definition that has been stored, so that its schema is known to be sound.
///
/// # Errors
/// What is wrong with the schemas, for definitions that were stored by other means.
pub fn resource(crd: &Value) -> Result<Resource, Vec<FieldError>> {
    let spec = crd.get("spec").unwrap_or(&Value::Null);
    let get = |path: &str| object::str_at(spec, path).to_owned();
    let words = |path: &str| -> Vec<String> {
        list_at(spec, path).iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut versions = Vec::new();
    let mut tables = Vec::new();
    for (i, version) in list_at(spec, "versions").iter().enumerate() {
        let path = Path::new("spec").child("versions").index(i).child("schema").child("openAPIV3Schema");
        let schema = object::at(version, "schema.openAPIV3Schema").unwrap_or(&Value::Null);
        let schema = Arc::new(structural(schema, &path)?);
        let (columns, sources): (Vec<_>, Vec<_>) = columns(version).into_iter().unzip();
        tables.push((object::str_at(version, "name").to_owned(), sources));
        versions.push(version_of(version, schema, columns));
    }
    versions.sort_by(|a, b| priority(&b.name).cmp(&priority(&a.name)).then_with(|| a.name.cmp(&b.name)));
    warn_of_deprecation(&mut versions, &get("group"), &get("names.kind"));
    let fields = list_at(spec, "versions")
        .iter()
        .flat_map(|v| list_at(v, "selectableFields"))
        .map(|f| object::str_at(f, "jsonPath").trim_start_matches('.').to_owned())
        .collect();
    let status = versions.iter().any(|v| v.subresources.status);
    Ok(Resource {
        group: get("group"),
        names: Names {
            kind: get("names.kind"),
            list_kind: get("names.listKind"),
            plural: get("names.plural"),
            singular: get("names.singular"),
            short: words("names.shortNames"),
            categories: words("names.categories"),
        },
        scope: if get("scope") == "Cluster" { Scope::Cluster } else { Scope::Namespaced },
        versions,
        verbs: Verb::ALL,
        stored: true,
        strategy: Arc::new(CustomStrategy { tables, fields: interned(fields), status }),
    })
}

fn version_of(version: &Value, schema: Arc<Schema>, columns: Vec<Column>) -> Version {
    let is = |field: &str| version.get(field) == Some(&Value::Bool(true));
    let scale = object::at(version, "subresources.scale").map(|scale| Scale {
        spec_replicas: object::str_at(scale, "specReplicasPath").to_owned(),
        status_replicas: object::str_at(scale, "statusReplicasPath").to_owned(),
        label_selector: Some(object::str_at(scale, "labelSelectorPath").to_owned()).filter(|p| !p.is_empty()),
    });
    let status = object::at(version, "subresources.status").is_some();
    let warning = object::str_at(version, "deprecationWarning");
    Version {
        name: object::str_at(version, "name").to_owned(),
        served: is("served"),
        storage: is("storage"),
        deprecation: is("deprecated").then(|| warning.to_owned()),
        schema,
        columns,
        subresources: Subresources { status, scale, extra: Vec::new() },
    }
}

/// What is said of a deprecated version that has no words of its own: which newer one to use, if there is one.
fn warn_of_deprecation(versions: &mut [Version], group: &str, kind: &str) {
    for i in 0..versions.len() {
        if versions[i].deprecation.as_deref() != Some("") {
            continue;
        }
        let newer = versions[..i].iter().find(|v| v.served && v.deprecation.is_none());
        let remedy = newer.map_or_else(String::new, |v| format!("; use {group}/{} {kind}", v.name));
        versions[i].deprecation = Some(format!("{group}/{} {kind} is deprecated{remedy}", versions[i].name));
    }
}

/// `v2` before `v1` before `v1beta2` before `v1alpha1` before anything else.
fn priority(version: &str) -> (u8, u64, u64) {
    let Some(rest) = version.strip_prefix('v') else { return (0, 0, 0) };
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let Ok(major) = rest[..digits].parse() else { return (0, 0, 0) };
    let tail = &rest[digits..];
    let stage = |name: &str| tail.strip_prefix(name).and_then(|minor| minor.parse().ok());
    match (tail, stage("beta"), stage("alpha")) {
        ("", ..) => (3, major, 0),
        (_, Some(minor), _) => (2, major, minor),
        (_, _, Some(minor)) => (1, major, minor),
        _ => (0, 0, 0),
    }
}

/// Where a cell comes from.
enum Source {
    Name,
    Path(ColumnType, JsonPath),
}

fn columns(version: &Value) -> Vec<(Column, Source)> {
    let column = |name: &str, kind, priority, description: &str| Column {
        name: name.into(),
        kind,
        priority,
        description: description.into(),
    };
    let mut all = vec![(column("Name", ColumnType::Name, 0, ""), Source::Name)];
    for own in list_at(version, "additionalPrinterColumns") {
        let kind = match object::str_at(own, "type") {
            "integer" => ColumnType::Integer,
            "number" => ColumnType::Number,
            "boolean" => ColumnType::Boolean,
            "date" => ColumnType::Date,
            _ => ColumnType::String,
        };
        // A path that cannot be read was refused when the definition was written.
        let Ok(path) = JsonPath::parse(object::str_at(own, "jsonPath")) else { continue };
        let priority = i32::try_from(cells::int_at(own, "priority")).unwrap_or(1);
        let (name, description) = (object::str_at(own, "name"), object::str_at(own, "description"));
        all.push((column(name, kind, priority, description), Source::Path(kind, path)));
    }
    if all.len() == 1 {
        let path = JsonPath::parse(".metadata.creationTimestamp").expect("invariant: a literal path");
        all.push((column("Age", ColumnType::Date, 0, ""), Source::Path(ColumnType::Date, path)));
    }
    all
}

/// What differs for custom resources.
struct CustomStrategy {
    tables: Vec<(String, Vec<Source>)>,
    fields: &'static [&'static str],
    status: bool,
}

/// Field names for as long as the process lives. Definitions name few fields, and the same ones again when they
/// change.
fn interned(fields: BTreeSet<String>) -> &'static [&'static str] {
    static KNOWN: Mutex<Vec<&'static [&'static str]>> = Mutex::new(Vec::new());
    if fields.is_empty() {
        return &[];
    }
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(same) = known.iter().find(|list| list.iter().copied().eq(fields.iter().map(String::as_str))) {
        return same;
    }
    let list: Vec<&'static str> = fields.into_iter().map(|f| &*f.leak()).collect();
    let list: &'static [&'static str] = list.leak();
    known.push(list);
    list
}

impl Strategy for CustomStrategy {
    fn prepare_create(&self, _cx: &Context<'_>, object: &mut Value) {
        if let Some(map) = object.as_object_mut().filter(|_| self.status) {
            map.remove("status");
        }
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn standard_finalizers_only(&self) -> bool {
        false
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        self.fields
    }

    fn cells(&self, version: &str, object: &Value, now: Timestamp) -> Cells {
        let sources =
            self.tables.iter().find(|(name, _)| name == version).map_or(&[][..], |(_, s)| s.as_slice());
        sources.iter().map(|source| cell(source, object, now)).collect()
    }
}

fn cell(source: &Source, object: &Value, now: Timestamp) -> Value {
    let Source::Path(kind, path) = source else { return cells::name(object) };
    let found = path.find(object);
    let Some(first) = found.first() else { return Value::Null };
    match (kind, first) {
        (ColumnType::Date, Value::String(at)) => cells::since(at, now).into(),
        (ColumnType::String, _) => {
            let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
            found.iter().map(|v| text(v)).collect::<Vec<_>>().join(",").into()
        }
        (ColumnType::Integer, Value::Number(n)) => n.as_i64().map_or(Value::Null, Value::from),
        (ColumnType::Number, Value::Number(_)) | (ColumnType::Boolean, Value::Bool(_)) => (*first).clone(),
        _ => Value::Null,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn deprecated_versions_name_the_one_to_use() {
        let version = |name: &str, more: Value| {
            let schema = json!({"openAPIV3Schema": {"type": "object"}});
            let mut version =
                json!({"name": name, "served": true, "storage": name == "v1", "schema": schema});
            version.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            version
        };
        let crd = json!({"spec": {
            "group": "g.example", "scope": "Namespaced", "names": {"kind": "Thing", "plural": "things"},
            "versions": [
                version("v1alpha1", json!({"deprecated": true})),
                version("v1beta1", json!({"deprecated": true, "deprecationWarning": "read the news"})),
                version("v1", json!({})),
                version("v2", json!({"deprecated": true})),
            ],
        }});
        let resource = resource(&crd).unwrap();
        let warnings: Vec<_> = resource.versions.iter().map(|v| v.deprecation.as_deref()).collect();
        assert_eq!(
            warnings,
            [
                Some("g.example/v2 Thing is deprecated"),
                None,
                Some("read the news"),
                Some("g.example/v1alpha1 Thing is deprecated; use g.example/v1 Thing"),
            ]
        );
    }
}
