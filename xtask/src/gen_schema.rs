//! `gen-schema`: writes the table of built-in API types that `xebec-schema` carries.
//!
//! The table is text: `=TYPE [K] [X=a]` opens a type (`K`: a kind; `X=a`: an atomic map), and each line after it is
//! a field, `NAME TYPE FLAGS TAG [EXTRA…]`. The type expressions and extras are explained where they are read, in
//! `crates/api/schema/src/table.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::go_types::{GoField, GoTypes, short_package};

/// Arguments of `gen-schema`.
#[derive(clap::Args)]
pub struct Args {
    /// Folder with upstream's reference data (go-fields.json, openapi/).
    #[arg(long)]
    reference: PathBuf,
    /// The table to write.
    #[arg(long, default_value = "crates/api/schema/src/builtin.table")]
    out: PathBuf,
}

/// Runs the chore.
pub fn run(args: &Args) -> Result<()> {
    let table = generate(&args.reference)?;
    std::fs::write(&args.out, table).with_context(|| format!("cannot write {}", args.out.display()))
}

/// The whole table as text.
pub fn generate(reference: &Path) -> Result<String> {
    let types = GoTypes::read(reference)?;
    let openapi = OpenApi::read(reference)?;
    let mut out = String::new();
    for full in reachable(&types)? {
        write_type(&mut out, &types, &openapi, &full)?;
    }
    Ok(out)
}

/// OpenAPI definitions by their published name: v3 (which has defaults) over v2 (which has every type).
struct OpenApi {
    definitions: BTreeMap<String, Value>,
}

impl OpenApi {
    fn read(reference: &Path) -> Result<Self> {
        let mut definitions = BTreeMap::new();
        let v2 = read_json(&reference.join("openapi/swagger.json"))?;
        collect(&mut definitions, v2.pointer("/definitions"));
        for entry in std::fs::read_dir(reference.join("openapi/v3"))? {
            let document = read_json(&entry?.path())?;
            collect(&mut definitions, document.pointer("/components/schemas"));
        }
        Ok(Self { definitions })
    }

    fn definition(&self, full: &str) -> Option<&Value> {
        let (package, name) = full.rsplit_once('.')?;
        let path = package.strip_prefix("k8s.io/")?.replace('/', ".");
        self.definitions.get(&format!("io.k8s.{path}.{name}"))
    }
}

fn collect(into: &mut BTreeMap<String, Value>, schemas: Option<&Value>) {
    let Some(schemas) = schemas.and_then(Value::as_object) else { return };
    for (name, schema) in schemas {
        into.insert(name.clone(), schema.clone());
    }
}

fn read_json(file: &Path) -> Result<Value> {
    let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("cannot parse {}", file.display()))
}

/// Every kind and what it is made of, sorted by short name.
fn reachable(types: &GoTypes) -> Result<Vec<String>> {
    let mut found = BTreeSet::new();
    let mut queue: Vec<String> = types
        .structs
        .iter()
        .filter(|(full, fields)| is_kind(full, fields))
        .map(|(full, _)| full.clone())
        .collect();
    while let Some(full) = queue.pop() {
        let Some(fields) = types.structs.get(&full) else { continue };
        if !found.insert(full.clone()) {
            continue;
        }
        let package = full.rsplit_once('.').map_or("", |(package, _)| package);
        for field in fields {
            let expression = types.expression(package, &field.go)?;
            let Some((_, target)) = expression.split_once('@') else { continue };
            let name = target.rsplit('.').next().unwrap_or(target);
            let home = home_of(types, package, target, name)?;
            queue.push(home);
        }
    }
    // Reached through a special type whose fields the table does not show.
    let mut sorted: Vec<(String, String)> = found
        .into_iter()
        .map(|full| {
            let (package, name) = full.rsplit_once('.').context("type without a package")?;
            Ok((format!("{}.{name}", short_package(package)?), full.clone()))
        })
        .collect::<Result<_>>()?;
    sorted.sort();
    Ok(sorted.into_iter().map(|(_, full)| full).collect())
}

fn home_of(types: &GoTypes, package: &str, target: &str, name: &str) -> Result<String> {
    if target.starts_with('.') {
        return Ok(format!("{package}.{name}"));
    }
    types
        .structs
        .keys()
        .find(|full| {
            full.rsplit_once('.').is_some_and(|(home, n)| {
                n == name && short_package(home).is_ok_and(|short| target == format!("{short}.{name}"))
            })
        })
        .cloned()
        .with_context(|| format!("unknown type {target}"))
}

fn is_kind(full: &str, fields: &[GoField]) -> bool {
    let external = !full.contains("/pkg/runtime.") && !full.contains(".Internal");
    external && fields.iter().any(|f| f.inline && f.go.ends_with("TypeMeta"))
        || full.ends_with("/v1.WatchEvent")
}

fn write_type(out: &mut String, types: &GoTypes, openapi: &OpenApi, full: &str) -> Result<()> {
    let (package, name) = full.rsplit_once('.').context("type without a package")?;
    let fields = &types.structs[full];
    // An inlined struct is not published itself: its fields are told where it is inlined.
    let own = openapi.definition(full);
    let definition = own.or_else(|| inliner(types, full).and_then(|parent| openapi.definition(&parent)));
    write!(out, "={}.{name}", short_package(package)?)?;
    if is_kind(full, fields) {
        out.push_str(" K");
    }
    if own.and_then(|d| d.get("x-kubernetes-map-type")).is_some_and(|t| t == "atomic") {
        out.push_str(" X=a");
    }
    out.push('\n');
    let required: Vec<&str> = definition
        .and_then(|d| d.get("required")?.as_array())
        .map(|names| names.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    for field in fields {
        let property = definition.and_then(|d| d.get("properties")?.get(&field.json));
        let line = field_line(types, package, field, property, required.contains(&field.json.as_str()))
            .with_context(|| format!("{full}.{}", field.json))?;
        out.push_str(&line);
        out.push('\n');
    }
    Ok(())
}

/// A struct that inlines `full` and is published.
fn inliner(types: &GoTypes, full: &str) -> Option<String> {
    let inlines = |package: &str, field: &GoField| {
        field.inline && types.resolve(package, &field.go).is_ok_and(|target| target == full)
    };
    let mut parents = types.structs.iter().filter_map(|(parent, fields)| {
        let (package, _) = parent.rsplit_once('.')?;
        fields.iter().any(|field| inlines(package, field)).then(|| parent.clone())
    });
    parents.next()
}

fn field_line(
    types: &GoTypes,
    package: &str,
    field: &GoField,
    property: Option<&Value>,
    required: bool,
) -> Result<String> {
    let name = if field.inline { "^" } else { &field.json };
    let mut flags = String::new();
    for (set, letter) in [(field.omitempty, 'o'), (field.omitzero, 'z'), (required, '!')] {
        if set {
            flags.push(letter);
        }
    }
    if flags.is_empty() {
        flags.push('-');
    }
    let tag = field.proto.as_deref().and_then(|p| p.split(',').nth(1)).unwrap_or("0");
    let mut line = format!("{name} {} {flags} {tag}", types.expression(package, &field.go)?);
    let text = |key: &str| property.and_then(|p| p.get(key)).and_then(Value::as_str);
    match text("x-kubernetes-list-type") {
        Some("map") => {
            let keys = property.and_then(|p| p.get("x-kubernetes-list-map-keys")?.as_array());
            let keys: Vec<&str> = keys.into_iter().flatten().filter_map(Value::as_str).collect();
            write!(line, " L=m:{}", keys.join(","))?;
        }
        Some("set") => line.push_str(" L=s"),
        Some("atomic") => line.push_str(" L=a"),
        _ => {}
    }
    match text("x-kubernetes-map-type") {
        Some("atomic") => line.push_str(" X=a"),
        Some("granular") => line.push_str(" X=g"),
        _ => {}
    }
    if let Some(strategy) = &field.patch_strategy {
        write!(line, " P={strategy}")?;
    }
    if let Some(key) = &field.patch_merge_key {
        write!(line, " M={key}")?;
    }
    let optional = field.omitempty || field.go.starts_with('*');
    let default = property.and_then(|p| p.get("default"));
    let default = default.filter(|d| !is_zero(d) || (optional && !d.is_object()));
    if let Some(default) = default {
        write!(line, " D={default}")?;
    }
    Ok(line)
}

/// Upstream publishes the zero value as default of every value without omitempty: that follows from the flags.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Object(o) => o.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_table_is_what_the_reference_gives() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let reference = root.parent().unwrap().join("shared/reference");
        if !reference.is_dir() {
            eprintln!("skipped: {} is absent", reference.display());
            return;
        }
        let committed = std::fs::read_to_string(root.join("crates/api/schema/src/builtin.table")).unwrap();
        assert!(generate(&reference).unwrap() == committed, "run `cargo xtask gen-schema --reference DIR`");
    }
}
