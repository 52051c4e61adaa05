//! The simple JSON paths of printer columns and selectable fields: `.spec.a`, `.status.list[0].b`,
//! `.status.conditions[?(@.type=="Ready")].status`, `.metadata.labels['a.b/c']`, `.spec.list[*].name`.

use serde_json::Value;

/// A path that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is an invalid json path: {0}")]
pub(crate) struct JsonPathError(String);

/// A path, ready to be followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JsonPath(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    Equal { field: String, value: String },
}

impl JsonPath {
    /// Reads a path.
    pub(crate) fn parse(text: &str) -> Result<Self, JsonPathError> {
        let bad = |what: &str| JsonPathError(format!("{what} in {text:?}"));
        let mut steps = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('.') {
                let (name, tail) = field(after);
                if name.is_empty() && !tail.starts_with('[') {
                    return Err(bad("empty field"));
                }
                if !name.is_empty() {
                    steps.push(Step::Field(name));
                }
                rest = tail;
            } else if let Some(after) = rest.strip_prefix('[') {
                let end = closing(after).ok_or_else(|| bad("unterminated bracket"))?;
                steps.push(bracket(&after[..end]).ok_or_else(|| bad("unsupported bracket"))?);
                rest = &after[end + 1..];
            } else {
                return Err(bad("a path must begin with a dot"));
            }
        }
        Ok(Self(steps))
    }

    /// Everything the path leads to.
    pub(crate) fn find<'a>(&self, object: &'a Value) -> Vec<&'a Value> {
        self.0
            .iter()
            .fold(vec![object], |found, step| found.into_iter().flat_map(|v| step.apply(v)).collect())
    }
}

impl Step {
    fn apply<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        let items = || value.as_array().map_or(&[][..], Vec::as_slice);
        match self {
            Self::Field(name) => value.get(name).into_iter().collect(),
            Self::Index(index) => {
                let from_end = usize::try_from(-*index).ok().and_then(|back| items().len().checked_sub(back));
                let at = usize::try_from(*index).ok().or(from_end);
                at.and_then(|at| items().get(at)).into_iter().collect()
            }
            Self::All => match value {
                Value::Object(map) => map.values().collect(),
                _ => items().iter().collect(),
            },
            Self::Equal { field, value: wanted } => items()
                .iter()
                .filter(|item| match item.get(field) {
                    Some(Value::String(text)) => text == wanted,
                    Some(other) => scalar(other).is_some_and(|text| text == *wanted),
                    None => false,
                })
                .collect(),
        }
    }
}

/// A number or boolean as text.
fn scalar(value: &Value) -> Option<String> {
    (value.is_number() || value.is_boolean()).then(|| value.to_string())
}

/// A field name with backslash escapes, and what follows it.
fn field(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '.' | '[' => return (name, &text[at..]),
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            c => name.push(c),
        }
    }
    (name, "")
}

/// The position of the bracket that closes, outside quotes.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, ']') => return Some(at),
            _ => {}
        }
    }
    None
}

fn bracket(inside: &str) -> Option<Step> {
    let inside = inside.trim();
    if inside == "*" {
        return Some(Step::All);
    }
    if let Some(condition) = inside.strip_prefix("?(").and_then(|t| t.strip_suffix(')')) {
        let (left, right) = condition.split_once("==")?;
        let field = left.trim().strip_prefix("@.")?.to_owned();
        return Some(Step::Equal { field, value: unquote(right.trim()).to_owned() });
    }
    if inside.starts_with(['"', '\'']) {
        return Some(Step::Field(unquote(inside).replace("\\.", ".")));
    }
    inside.parse().ok().map(Step::Index)
}

fn unquote(text: &str) -> &str {
    let inner = |q: char| text.strip_prefix(q).and_then(|t| t.strip_suffix(q));
    inner('"').or_else(|| inner('\'')).unwrap_or(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_lead_to_values() {
        let object = json!({
            "metadata": {"labels": {"a.b/c": "label"}},
            "spec": {"list": [{"n": 1}, {"n": 2}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "X", "status": "False"}]},
        });
        for (path, expected) in [
            (".spec.list[0].n", json!([1])),
            (".spec.list[-1].n", json!([2])),
            (".spec.list[*].n", json!([1, 2])),
            (r#".status.conditions[?(@.type=="Ready")].status"#, json!(["True"])),
            (".status.conditions[?(@.type=='X')].status", json!(["False"])),
            (".metadata.labels['a.b/c']", json!(["label"])),
            (r".metadata.labels.a\.b/c", json!(["label"])),
            (".nothing.here", json!([])),
        ] {
            let found: Vec<Value> =
                JsonPath::parse(path).unwrap().find(&object).into_iter().cloned().collect();
            assert_eq!(Value::from(found), expected, "{path}");
        }
        for bad in ["spec", ".a[", ".a[x]", "..a"] {
            assert!(JsonPath::parse(bad).is_err(), "{bad}");
        }
    }
}
