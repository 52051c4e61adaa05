//! Every other kind: its fields, with their names in words.

use serde_json::Value;

use super::report::Report;
use crate::output::bare;

/// Any object.
pub fn describe(report: &mut Report, object: &Value) {
    report.head(object);
    report.field(0, "API Version", bare(&object["apiVersion"]));
    report.field(0, "Kind", bare(&object["kind"]));
    let mut fields: Vec<(&String, &Value)> = object.as_object().into_iter().flatten().collect();
    fields.sort_by_key(|(name, _)| *name);
    for (name, value) in fields {
        if !["apiVersion", "kind", "metadata"].contains(&name.as_str()) {
            show(report, 0, name, value);
        }
    }
}

fn show(report: &mut Report, level: usize, name: &str, value: &Value) {
    let title = words(name);
    match value {
        Value::Object(map) => {
            report.line(level, format!("{title}:"));
            map.iter().for_each(|(name, value)| show(report, level + 1, name, value));
        }
        Value::Array(list) if list.iter().any(Value::is_object) => {
            report.line(level, format!("{title}:"));
            for item in list {
                item.as_object()
                    .into_iter()
                    .flatten()
                    .for_each(|(name, value)| show(report, level + 1, name, value));
            }
        }
        Value::Array(list) => {
            report.line(level, format!("{title}:"));
            list.iter().for_each(|item| report.line(level + 1, bare(item)));
        }
        other => report.field(level, &title, bare(other)),
    }
}

/// `clusterIP` is `Cluster IP`, `podSelector` is `Pod Selector`.
fn words(name: &str) -> String {
    let mut out = String::new();
    let mut lower_before = false;
    for (at, c) in name.chars().enumerate() {
        if c.is_uppercase() && lower_before {
            out.push(' ');
        }
        if at == 0 {
            out.extend(c.to_uppercase());
        } else {
            out.push(c);
        }
        lower_before = c.is_lowercase() || c.is_ascii_digit();
    }
    out
}
