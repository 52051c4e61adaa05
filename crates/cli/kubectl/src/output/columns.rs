//! `-o custom-columns=NAME:.metadata.name,…`.

use serde_json::Value;

use super::jsonpath::Template;
use super::tabs::{TABLE, align};
use crate::error::{Error, Result};

/// Columns that the user chose.
#[derive(Clone, Debug)]
pub struct Columns(Vec<(String, Template)>);

impl Columns {
    /// Reads `HEADER:path,HEADER:path`.
    pub fn parse(spec: &str) -> Result<Self> {
        let column = |part: &str| {
            let (header, path) = part.split_once(':').ok_or_else(|| {
                Error::client(format!(
                    "unexpected custom-columns spec: {part}, expected <header>:<json-path-expr>"
                ))
            })?;
            Ok((header.to_owned(), Template::relaxed(path)?))
        };
        split(spec).into_iter().map(column).collect::<Result<_>>().map(Self)
    }

    /// The rows of an object or of a list's items.
    pub fn render(&self, object: &Value, headers: bool) -> String {
        let mut text = String::new();
        let mut row = |cells: Vec<String>| {
            text.push_str(&cells.join("\t"));
            text.push('\n');
        };
        if headers {
            row(self.0.iter().map(|(header, _)| header.clone()).collect());
        }
        let one = std::slice::from_ref(object);
        for item in object["items"].as_array().map_or(one, Vec::as_slice) {
            row(self.0.iter().map(|(_, path)| cell(&path.values(item))).collect());
        }
        align(&text, TABLE)
    }
}

/// Commas inside brackets belong to the path.
fn split(spec: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_usize);
    for (at, byte) in spec.bytes().enumerate() {
        match byte {
            b'[' | b'(' => depth += 1,
            b']' | b')' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                parts.push(&spec[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&spec[start..]);
    parts
}

fn cell(values: &[&Value]) -> String {
    let shown: Vec<String> = values.iter().filter(|v| !v.is_null()).map(|v| super::bare(v)).collect();
    if shown.is_empty() { "<none>".into() } else { shown.join(",") }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rows_and_missing_values() {
        let web = json!({"metadata": {"name": "web"}, "c": [{"i": "x"}, {"i": "y"}]});
        let list = json!({"items": [web, {"metadata": {"name": "b"}}]});
        let columns = Columns::parse("NAME:.metadata.name,IMAGES:.c[*].i").unwrap();
        assert_eq!(columns.render(&list, true), "NAME   IMAGES\nweb    x,y\nb      <none>\n");
        assert!(Columns::parse("NAME").is_err());
    }
}
