//! The formats of `-o`.

pub mod columns;
pub mod jsonpath;
pub mod table;
pub mod tabs;

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use columns::Columns;
use jsonpath::Template;

/// A format that objects are printed in.
#[derive(Clone, Debug)]
pub enum Format {
    /// YAML with sorted keys.
    Yaml,
    /// JSON, indented by four.
    Json,
    /// `kind/name`.
    Name,
    /// A JSONPath template.
    JsonPath(Template),
    /// Columns that the user chose.
    Columns(Columns),
}

/// What `-o` of a command that lists says.
#[derive(Clone, Debug)]
pub enum Output {
    /// The server's table.
    Table {
        /// With the columns of lesser priority.
        wide: bool,
    },
    /// The objects.
    Objects(Format),
}

impl Output {
    /// Reads `-o`.
    pub fn parse(text: Option<&str>) -> Result<Self> {
        match text {
            None | Some("") => Ok(Self::Table { wide: false }),
            Some("wide") => Ok(Self::Table { wide: true }),
            Some(other) => Format::parse(other).map(Self::Objects),
        }
    }
}

impl Format {
    /// Reads `-o` of a command that prints objects.
    pub fn parse(text: &str) -> Result<Self> {
        let (name, rest) = text.split_once('=').unwrap_or((text, ""));
        match name {
            "yaml" => Ok(Self::Yaml),
            "json" => Ok(Self::Json),
            "name" => Ok(Self::Name),
            "jsonpath" if rest.is_empty() => {
                Err(Error::client("template format specified but no template given"))
            }
            "jsonpath" => Template::parse(rest).map(Self::JsonPath),
            "custom-columns" if rest.is_empty() => {
                Err(Error::client("custom-columns format specified but no custom columns given"))
            }
            "custom-columns" => Columns::parse(rest).map(Self::Columns),
            _ => Err(Error::client(format!(
                "unable to match a printer suitable for the output format {text:?}, allowed formats are: \
                 custom-columns,json,jsonpath,name,wide,yaml"
            ))),
        }
    }

    /// As [`Self::parse`]; `None` when `-o` was not given.
    pub fn optional(text: Option<&str>) -> Result<Option<Self>> {
        text.filter(|text| !text.is_empty()).map(Self::parse).transpose()
    }

    /// One object, or a `List`, as text.
    pub fn render(&self, object: &Value) -> Result<String> {
        let object = &without_managed_fields(object);
        Ok(match self {
            Self::Yaml => yaml(object)?,
            Self::Json => json_text(object)?,
            Self::Name => names(object),
            Self::JsonPath(template) => template.render(object)?,
            Self::Columns(columns) => columns.render(object, true),
        })
    }
}

/// YAML with sorted keys.
pub fn yaml(value: &Value) -> Result<String> {
    serde_yaml_ng::to_string(&sorted(value)).map_err(|e| Error::client(format!("YAML: {e}")))
}

/// JSON, indented by four, with sorted keys and a newline at the end.
pub fn json_text(value: &Value) -> Result<String> {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    serde::Serialize::serialize(&sorted(value), &mut serializer)
        .map_err(|e| Error::client(format!("JSON: {e}")))?;
    out.push(b'\n');
    String::from_utf8(out).map_err(|e| Error::client(format!("JSON: {e}")))
}

/// Objects as a `List`, as `get` prints several.
pub fn list_of(objects: Vec<Value>) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": objects})
}

fn names(object: &Value) -> String {
    if let Some(items) = object["items"].as_array() {
        return items.iter().map(names).collect();
    }
    let kind = object["kind"].as_str().unwrap_or_default().to_lowercase();
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    match object["apiVersion"].as_str().and_then(|v| v.split_once('/')) {
        Some((group, _)) => format!("{kind}.{group}/{name}\n"),
        None => format!("{kind}/{name}\n"),
    }
}

/// Keys in order, whatever map the JSON crate was built with.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            Value::Object(keys.into_iter().map(|key| (key.clone(), sorted(&map[key]))).collect::<Map<_, _>>())
        }
        Value::Array(list) => Value::Array(list.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

fn without_managed_fields(object: &Value) -> Value {
    let mut object = object.clone();
    let strip = |object: &mut Value| {
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
    };
    strip(&mut object);
    object.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten().for_each(strip);
    object
}

/// A value as templates and columns print it: strings bare, everything else as JSON.
pub fn bare(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => sorted(other).to_string(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a", "managedFields": []}});
        let render = |format: &str| Format::parse(format).unwrap().render(&pod).unwrap();
        assert_eq!(render("yaml"), "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n");
        assert_eq!(render("name"), "pod/a\n");
        assert!(render("json").starts_with("{\n    \"apiVersion\": \"v1\",\n"));
        assert_eq!(render("jsonpath={.metadata.name}"), "a");
        assert!(Format::parse("xml").is_err());
        let deployment = json!({"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "a"}});
        assert_eq!(Format::Name.render(&list_of(vec![deployment])).unwrap(), "deployment.apps/a\n");
    }
}
