//! kubectl's JSONPath templates: `{.items[*].metadata.name}`, `{range .items[*]}{.kind}{"\n"}{end}`, filters
//! `[?(@.type=="Ready")]`, slices, unions and `..`. Paths that lead nowhere give nothing.

use std::cmp::Ordering;

use serde_json::Value;

use crate::error::{Error, Result};

/// A parsed template.
#[derive(Clone, Debug, PartialEq)]
pub struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Text(String),
    Path(Vec<Step>),
    Range(Vec<Step>, Vec<Piece>),
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Root,
    Field(String),
    Every,
    Deep,
    Fields(Vec<String>),
    Indices(Vec<i64>),
    Slice(Option<i64>, Option<i64>, usize),
    Filter(Operand, Option<(Op, Operand)>),
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Path(Vec<Step>),
    Literal(Value),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Op {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

const OPS: &[(&str, Op)] = &[
    ("==", Op::Equal),
    ("!=", Op::Unequal),
    ("<=", Op::LessOrEqual),
    (">=", Op::GreaterOrEqual),
    ("<", Op::Less),
    (">", Op::Greater),
];

impl Template {
    /// Reads a template.
    pub fn parse(text: &str) -> Result<Self> {
        let mut parser = Parser { text, at: 0 };
        let pieces = parser.pieces(false)?;
        Ok(Self(pieces))
    }

    /// Reads one path, for which the braces and the first dot may be missing: `metadata.name`.
    pub fn relaxed(text: &str) -> Result<Self> {
        let trimmed = text.trim();
        let inner = trimmed.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(trimmed);
        if inner.starts_with(['.', '[', '$', '@']) {
            Self::parse(&format!("{{{inner}}}"))
        } else {
            Self::parse(&format!("{{.{inner}}}"))
        }
    }

    /// The template filled in.
    pub fn render(&self, root: &Value) -> Result<String> {
        let mut out = String::new();
        render(&self.0, root, root, &mut out);
        Ok(out)
    }

    /// The values of the paths.
    pub fn values<'v>(&self, root: &'v Value) -> Vec<&'v Value> {
        let mut found = Vec::new();
        for piece in &self.0 {
            if let Piece::Path(steps) = piece {
                found.extend(follow(steps, root, root));
            }
        }
        found
    }
}

fn render(pieces: &[Piece], root: &Value, here: &Value, out: &mut String) {
    for piece in pieces {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Path(steps) => {
                let values: Vec<String> = follow(steps, root, here).into_iter().map(super::bare).collect();
                out.push_str(&values.join(" "));
            }
            Piece::Range(steps, body) => {
                for value in follow(steps, root, here) {
                    render(body, root, value, out);
                }
            }
        }
    }
}

fn follow<'v>(steps: &[Step], root: &'v Value, here: &'v Value) -> Vec<&'v Value> {
    let mut found = vec![here];
    for step in steps {
        found = found.into_iter().flat_map(|value| take(step, root, value)).collect();
    }
    found
}

fn take<'v>(step: &Step, root: &'v Value, value: &'v Value) -> Vec<&'v Value> {
    let elements = || value.as_array().map_or(&[][..], Vec::as_slice);
    match step {
        Step::Root => vec![root],
        Step::Field(name) => value.get(name).into_iter().collect(),
        Step::Fields(names) => names.iter().filter_map(|name| value.get(name)).collect(),
        Step::Every => children(value),
        Step::Deep => {
            let mut all = vec![value];
            all.extend(children(value).into_iter().flat_map(|child| take(&Step::Deep, root, child)));
            all
        }
        Step::Indices(indices) => {
            let count = elements().len();
            indices.iter().filter_map(|at| elements().get(position(*at, count)?)).collect()
        }
        Step::Slice(from, to, stride) => {
            let count = elements().len();
            let bound = |at: &Option<i64>, default| at.map_or(default, |at| clamp(at, count));
            let (from, to) = (bound(from, 0), bound(to, count));
            if from < to { elements()[from..to].iter().step_by(*stride).collect() } else { Vec::new() }
        }
        Step::Filter(left, rule) => {
            children(value).into_iter().filter(|v| holds(left, rule.as_ref(), root, v)).collect()
        }
    }
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(list) => list.iter().collect(),
        Value::Object(map) => map.values().collect(),
        _ => Vec::new(),
    }
}

fn position(at: i64, count: usize) -> Option<usize> {
    let at = if at < 0 { i64::try_from(count).ok()? + at } else { at };
    usize::try_from(at).ok()
}

fn clamp(at: i64, count: usize) -> usize {
    position(at, count).unwrap_or(0).min(count)
}

fn holds(left: &Operand, rule: Option<&(Op, Operand)>, root: &Value, here: &Value) -> bool {
    let lefts = operand(left, root, here);
    let Some((op, right)) = rule else {
        return !lefts.is_empty();
    };
    let rights = operand(right, root, here);
    lefts.iter().any(|l| rights.iter().any(|r| compare(l, *op, r)))
}

fn operand<'v>(operand: &'v Operand, root: &'v Value, here: &'v Value) -> Vec<&'v Value> {
    match operand {
        Operand::Literal(value) => vec![value],
        Operand::Path(steps) => follow(steps, root, here),
    }
}

fn compare(left: &Value, op: Op, right: &Value) -> bool {
    let order = match (left, right) {
        (Value::Number(l), Value::Number(r)) => l.as_f64().partial_cmp(&r.as_f64()),
        (Value::String(l), Value::String(r)) => Some(l.cmp(r)),
        _ => (left == right).then_some(Ordering::Equal),
    };
    match op {
        Op::Equal => order == Some(Ordering::Equal),
        Op::Unequal => order != Some(Ordering::Equal),
        Op::Less => order == Some(Ordering::Less),
        Op::Greater => order == Some(Ordering::Greater),
        Op::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        Op::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
    }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn eat(&mut self, word: &str) -> bool {
        let found = self.rest().starts_with(word);
        if found {
            self.at += word.len();
        }
        found
    }

    fn spaces(&mut self) {
        while self.rest().starts_with(char::is_whitespace) {
            self.at += 1;
        }
    }

    fn fail<T>(&self, what: &str) -> Result<T> {
        Err(Error::client(format!("error parsing jsonpath {}, {what}", self.text)))
    }

    fn pieces(&mut self, in_range: bool) -> Result<Vec<Piece>> {
        let mut pieces = Vec::new();
        while !self.rest().is_empty() {
            if !self.eat("{") {
                let end = self.rest().find('{').unwrap_or(self.rest().len());
                pieces.push(Piece::Text(self.rest()[..end].to_owned()));
                self.at += end;
                continue;
            }
            self.spaces();
            if self.eat("range ") {
                self.spaces();
                let steps = self.path()?;
                self.close()?;
                pieces.push(Piece::Range(steps, self.pieces(true)?));
            } else if self.rest().starts_with("end") {
                self.at += 3;
                self.close()?;
                return if in_range { Ok(pieces) } else { self.fail("not in range, nothing to end") };
            } else if self.rest().starts_with(['"', '\'']) {
                pieces.push(Piece::Text(self.quoted()?));
                self.close()?;
            } else {
                pieces.push(Piece::Path(self.path()?));
                self.close()?;
            }
        }
        if in_range { self.fail("unexpected end of range: {end} is missing") } else { Ok(pieces) }
    }

    fn close(&mut self) -> Result<()> {
        self.spaces();
        if self.eat("}") { Ok(()) } else { self.fail("unclosed action or unrecognized character") }
    }

    fn path(&mut self) -> Result<Vec<Step>> {
        let mut steps = Vec::new();
        if self.eat("$") {
            steps.push(Step::Root);
        } else if !self.eat("@") && !self.rest().starts_with(['.', '[', '}']) {
            return self.fail("unrecognized identifier");
        }
        loop {
            if self.eat("..") {
                steps.push(Step::Deep);
                self.name(&mut steps)?;
            } else if self.eat(".") {
                self.name(&mut steps)?;
            } else if self.eat("[") {
                let step = self.bracket()?;
                steps.push(step);
                self.spaces();
                if !self.eat("]") {
                    return self.fail("unterminated array");
                }
            } else {
                return Ok(steps);
            }
        }
    }

    /// The field after a dot; `.` alone is the value itself.
    fn name(&mut self, steps: &mut Vec<Step>) -> Result<()> {
        if self.eat("*") {
            steps.push(Step::Every);
            return Ok(());
        }
        let mut name = String::new();
        let mut chars = self.rest().char_indices();
        let mut end = self.rest().len();
        while let Some((at, c)) = chars.next() {
            match c {
                // A dot or bracket of the name itself.
                '\\' => name.extend(chars.next().map(|(_, c)| c)),
                '.' | '[' | ']' | '}' | ')' | ' ' | '=' | '!' | '<' | '>' | ',' => {
                    end = at;
                    break;
                }
                c => name.push(c),
            }
        }
        self.at += end;
        if !name.is_empty() {
            steps.push(Step::Field(name));
        }
        Ok(())
    }

    fn bracket(&mut self) -> Result<Step> {
        self.spaces();
        if self.eat("*") {
            return Ok(Step::Every);
        }
        if self.eat("?(") {
            return self.filter();
        }
        if self.rest().starts_with(['"', '\'']) {
            let mut names = vec![self.quoted()?];
            while self.eat(",") {
                self.spaces();
                names.push(self.quoted()?);
            }
            return Ok(Step::Fields(names));
        }
        let end = self.rest().find(']').unwrap_or(self.rest().len());
        let inside = self.rest()[..end].to_owned();
        self.at += end;
        let number = |text: &str| text.trim().parse::<i64>().ok();
        if inside.contains(':') {
            let parts: Vec<&str> = inside.split(':').collect();
            let bad = parts.iter().any(|part| !part.trim().is_empty() && number(part).is_none());
            let stride = parts.get(2).map_or(Some(1), |part| part.trim().parse().ok().filter(|n| *n > 0));
            return match (bad || parts.len() > 3, stride) {
                (false, Some(stride)) => Ok(Step::Slice(number(parts[0]), number(parts[1]), stride)),
                _ => self.fail("invalid slice"),
            };
        }
        match inside.split(',').map(number).collect() {
            Some(indices) => Ok(Step::Indices(indices)),
            None => self.fail("invalid array index"),
        }
    }

    fn filter(&mut self) -> Result<Step> {
        self.spaces();
        let left = self.operand()?;
        self.spaces();
        let mut rule = None;
        for (word, op) in OPS {
            if self.eat(word) {
                self.spaces();
                rule = Some((*op, self.operand()?));
                break;
            }
        }
        self.spaces();
        if self.eat(")") { Ok(Step::Filter(left, rule)) } else { self.fail("unterminated filter") }
    }

    fn operand(&mut self) -> Result<Operand> {
        if self.rest().starts_with(['@', '$', '.', '[']) {
            return self.path().map(Operand::Path);
        }
        if self.rest().starts_with(['"', '\'']) {
            return Ok(Operand::Literal(Value::String(self.quoted()?)));
        }
        let end = self.rest().find([')', ' ', '=', '!', '<', '>']).unwrap_or(self.rest().len());
        let word = self.rest()[..end].to_owned();
        self.at += end;
        match serde_json::from_str(&word) {
            Ok(value) => Ok(Operand::Literal(value)),
            Err(_) => self.fail("unrecognized filter operand"),
        }
    }

    fn quoted(&mut self) -> Result<String> {
        let mut chars = self.rest().char_indices();
        let Some((_, quote @ ('"' | '\''))) = chars.next() else {
            return self.fail("a quoted text is missing");
        };
        let mut text = String::new();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => text.extend(chars.next().map(|(_, c)| match c {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    other => other,
                })),
                c if c == quote => {
                    self.at += at + 1;
                    return Ok(text);
                }
                c => text.push(c),
            }
        }
        self.fail("unterminated quoted string")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn list() -> Value {
        json!({"kind": "List", "items": [
            {"metadata": {"name": "a", "labels": {"k8s.io/x": "1"}}, "ready": true, "n": 1},
            {"metadata": {"name": "b"}, "ready": false, "n": 2, "ports": [80, 443]},
        ]})
    }

    #[test]
    fn templates() {
        for (template, want) in [
            ("{.kind}", "List"),
            ("kind is {.kind}!", "kind is List!"),
            ("{.items[*].metadata.name}", "a b"),
            ("{.items[0].metadata.name}{.items[-1].metadata.name}", "ab"),
            ("{.items[0:1].metadata.name}", "a"),
            ("{.items[0,1].n}", "1 2"),
            ("{range .items[*]}{.metadata.name}{\"\\t\"}{.n}{'\\n'}{end}", "a\t1\nb\t2\n"),
            ("{.items[?(@.metadata.name==\"b\")].ports[1]}", "443"),
            ("{.items[?(@.n>1)].metadata.name}", "b"),
            ("{.items[?(@.ports)].metadata.name}", "b"),
            ("{.items[?(@.ready!=true)].metadata.name}", "b"),
            ("{.items[0].metadata.labels.k8s\\.io/x}", "1"),
            ("{.items[0].metadata['name','missing']}", "a"),
            ("{..name}", "a b"),
            ("{.items[1].ports}", "[80,443]"),
            ("{.nothing.here}", ""),
            ("{$.kind}{@.kind}", "ListList"),
        ] {
            assert_eq!(Template::parse(template).unwrap().render(&list()).unwrap(), want, "{template}");
        }
    }

    #[test]
    fn mistakes_are_refused() {
        for template in ["{.a", "{range .a}", "{end}", "{foo}", "{.a[x]}", "{.a[?(@.x==)]}", "{\"x}"] {
            assert!(Template::parse(template).is_err(), "{template}");
        }
        assert_eq!(Template::relaxed("kind").unwrap().values(&list()), [&json!("List")]);
    }
}
