//! Label and field selectors as query parameters and as `metav1.LabelSelector`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as metav1;

/// A selector that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// The text does not parse.
    #[error("unable to parse requirement: {0}")]
    Parse(String),
    /// An operator of a `metav1.LabelSelector` is unknown or has the wrong number of values.
    #[error("{0:?} is not a valid label selector operator")]
    Operator(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Missing,
    GreaterThan(i64),
    LessThan(i64),
}

/// A conjunction of label requirements. The default one matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<(String, Test)>,
    nothing: bool,
}

impl LabelSelector {
    /// Matches every object.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Matches no object: what a missing `metav1.LabelSelector` means in most places.
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// Matches objects that carry all of these labels.
    pub fn from_map<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let requirements =
            labels.into_iter().map(|(k, v)| (k.to_owned(), Test::In(vec![v.to_owned()]))).collect();
        Self { requirements, nothing: false }
    }

    /// From the structured form; an empty selector matches everything.
    pub fn from_structured(selector: &metav1::LabelSelector) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            requirements.push((key.clone(), Test::In(vec![value.clone()])));
        }
        for e in selector.match_expressions.iter().flatten() {
            let values = e.values.clone().unwrap_or_default();
            let test = match (e.operator.as_str(), values.is_empty()) {
                ("In", false) => Test::In(values),
                ("NotIn", false) => Test::NotIn(values),
                ("Exists", true) => Test::Exists,
                ("DoesNotExist", true) => Test::Missing,
                _ => return Err(SelectorError::Operator(e.operator.clone())),
            };
            requirements.push((e.key.clone(), test));
        }
        Ok(Self { requirements, nothing: false })
    }

    /// From the query parameter `labelSelector`: `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for part in split_outside_parentheses(text) {
            let part = part.trim();
            if !part.is_empty() {
                requirements.push(parse_requirement(part)?);
            } else if !text.trim().is_empty() {
                return Err(SelectorError::Parse(format!("found ',', expected: identifier in {text:?}")));
            }
        }
        Ok(Self { requirements, nothing: false })
    }

    /// Whether it matches every object.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    /// Whether an object with these labels matches; `get` looks a label up.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|(key, test)| test.holds(get(key)))
    }

    /// Whether these labels match.
    pub fn matches_map(&self, labels: &std::collections::BTreeMap<String, String>) -> bool {
        self.matches(|key| labels.get(key).map(String::as_str))
    }
}

impl Test {
    fn holds(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|v| v.parse::<i64>().ok());
        match self {
            Self::In(values) => value.is_some_and(|v| values.iter().any(|x| x == v)),
            Self::NotIn(values) => value.is_none_or(|v| values.iter().all(|x| x != v)),
            Self::Exists => value.is_some(),
            Self::Missing => value.is_none(),
            Self::GreaterThan(n) => number().is_some_and(|v| v > *n),
            Self::LessThan(n) => number().is_some_and(|v| v < *n),
        }
    }
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0i32, 0);
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn parse_requirement(part: &str) -> Result<(String, Test), SelectorError> {
    let bad = || SelectorError::Parse(format!("invalid requirement {part:?}"));
    let key = |k: &str| {
        let k = k.trim();
        match crate::names::qualified_name(k).as_slice() {
            [] => Ok(k.to_owned()),
            errors => Err(SelectorError::Parse(format!("key: Invalid value: {k:?}: {}", errors.join("; ")))),
        }
    };
    let value = |v: &str| {
        let v = v.trim();
        match crate::names::label_value(v).as_slice() {
            [] => Ok(v.to_owned()),
            errors => {
                Err(SelectorError::Parse(format!("values: Invalid value: {v:?}: {}", errors.join("; "))))
            }
        }
    };
    let number = |v: &str| v.trim().parse().map_err(|_| bad());
    if let Some((k, v)) = part.split_once("!=") {
        return Ok((key(k)?, Test::NotIn(vec![value(v)?])));
    }
    if let Some((k, v)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Ok((key(k)?, Test::In(vec![value(v)?])));
    }
    if let Some((k, v)) = part.split_once('>') {
        return Ok((key(k)?, Test::GreaterThan(number(v)?)));
    }
    if let Some((k, v)) = part.split_once('<') {
        return Ok((key(k)?, Test::LessThan(number(v)?)));
    }
    if let Some(body) = part.strip_suffix(')') {
        let (head, list) = body.split_once('(').ok_or_else(bad)?;
        let values = list.split(',').map(value).collect::<Result<Vec<_>, _>>()?;
        let mut words = head.split_whitespace();
        let (k, operator) = (words.next().ok_or_else(bad)?, words.next().ok_or_else(bad)?);
        return match (operator, words.next()) {
            ("in", None) => Ok((key(k)?, Test::In(values))),
            ("notin", None) => Ok((key(k)?, Test::NotIn(values))),
            _ => Err(bad()),
        };
    }
    match part.strip_prefix('!') {
        Some(k) => Ok((key(k)?, Test::Missing)),
        None => Ok((key(part)?, Test::Exists)),
    }
}

/// A conjunction of exact field requirements (`spec.nodeName=a,status.phase!=Running`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector {
    requirements: Vec<(String, String, bool)>,
}

impl FieldSelector {
    /// From the query parameter `fieldSelector`. A backslash escapes `,`, `=` and itself.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for part in split_unescaped(text) {
            if part.is_empty() {
                continue;
            }
            let (path, value, equal) = if let Some((p, v)) = part.split_once("!=") {
                (p, v, false)
            } else if let Some((p, v)) = part.split_once("==").or_else(|| part.split_once('=')) {
                (p, v, true)
            } else {
                let what = format!("invalid selector: {text:?}; can't understand {part:?}");
                return Err(SelectorError::Parse(what));
            };
            requirements.push((path.trim().to_owned(), unescape(value), equal));
        }
        Ok(Self { requirements })
    }

    /// Whether it matches every object.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// The fields it asks about.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.requirements.iter().map(|(path, ..)| path.as_str())
    }

    /// The value that `field` must equal, if the selector says so. Lets `metadata.name=x` become a single read.
    pub fn required(&self, field: &str) -> Option<&str> {
        self.requirements.iter().find(|(p, _, equal)| p == field && *equal).map(|(_, v, _)| v.as_str())
    }

    /// Whether an object matches; `get` looks a field up, a missing one being the empty string.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> &'a str) -> bool {
        self.requirements.iter().all(|(path, value, equal)| (get(path) == value) == *equal)
    }
}

fn split_unescaped(text: &str) -> Vec<String> {
    let (mut parts, mut current, mut escaped) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        match c {
            ',' if !escaped => parts.push(std::mem::take(&mut current)),
            _ => current.push(c),
        }
        escaped = c == '\\' && !escaped;
    }
    parts.push(current);
    parts
}

fn unescape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.trim().chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next().unwrap_or('\\') } else { c });
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn matches(selector: &str, labels: &[(&str, &'static str)]) -> bool {
        LabelSelector::parse(selector)
            .unwrap()
            .matches(|k| labels.iter().find(|(key, _)| *key == k).map(|(_, v)| *v))
    }

    #[test]
    fn label_selectors_match() {
        let labels = [("app", "web"), ("tier", "front"), ("n", "5")];
        for yes in [
            "",
            "app=web",
            "app==web,tier=front",
            "app in (web, db)",
            "tier notin (back)",
            "app",
            "!gone",
            "gone!=x",
            "n>4",
            "n<6",
        ] {
            assert!(matches(yes, &labels), "{yes}");
        }
        for no in ["app=db", "!app", "app notin (web)", "gone", "gone in (a)", "n>5", "app!=web"] {
            assert!(!matches(no, &labels), "{no}");
        }
        for bad in ["a b c", "a in b", "a in (", "=x", "a=b=c d"] {
            assert!(LabelSelector::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn nothing_and_everything_differ() {
        assert!(LabelSelector::everything().matches(|_| None));
        assert!(!LabelSelector::nothing().matches(|_| None));
    }

    #[test]
    fn field_selectors_match() {
        let get = |f: &str| if f == "status.phase" { "Running" } else { "" };
        assert!(FieldSelector::parse("status.phase=Running,spec.nodeName=").unwrap().matches(get));
        assert!(!FieldSelector::parse("status.phase!=Running").unwrap().matches(get));
        assert!(FieldSelector::parse("nonsense").is_err());
        let escaped = FieldSelector::parse(r"metadata.name=a\,b").unwrap();
        assert_eq!(escaped.required("metadata.name"), Some("a,b"));
    }
}
