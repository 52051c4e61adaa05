//! Tables that the server made, in kubectl's layout.

use serde_json::Value;

use super::tabs::Rows;
use crate::discovery::{Resource, items, text};

/// What to show of a table.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Columns of lesser priority too.
    pub wide: bool,
    /// The namespace as first column.
    pub namespace: bool,
    /// The labels as last column.
    pub labels: bool,
    /// No header line.
    pub no_headers: bool,
    /// Names as `kind/name`.
    pub kind: bool,
}

/// Prints tables of one kind; widths only grow, so that a watch stays aligned.
pub struct Printer {
    options: Options,
    kind: String,
    label_columns: Vec<String>,
    columns: Vec<(usize, String)>,
    rows: Rows,
}

impl Printer {
    /// A printer for objects of a kind.
    pub fn new(options: Options, resource: &Resource, label_columns: &[String]) -> Self {
        let label = resource.label("");
        let kind = label.trim_end_matches('/').to_owned();
        Self {
            options,
            kind,
            label_columns: label_columns.to_vec(),
            columns: Vec::new(),
            rows: Rows::default(),
        }
    }

    /// The lines of a table; the header comes with the first only.
    pub fn render(&mut self, table: &Value) -> String {
        let mut lines = Vec::new();
        // A watch sends the columns once.
        if self.columns.is_empty() {
            self.columns = self.visible(table);
            if !self.options.no_headers {
                lines.push(self.header());
            }
        }
        lines.extend(items(&table["rows"]).map(|row| self.row(row)));
        self.rows.measure(&lines);
        lines.iter().map(|line| self.rows.line(line)).collect()
    }

    fn visible(&self, table: &Value) -> Vec<(usize, String)> {
        items(&table["columnDefinitions"])
            .enumerate()
            .filter(|(_, column)| self.options.wide || column["priority"].as_i64().unwrap_or(0) == 0)
            .map(|(at, column)| (at, text(&column["name"])))
            .collect()
    }

    fn header(&self) -> Vec<String> {
        let mut cells = Vec::new();
        if self.options.namespace {
            cells.push("NAMESPACE".to_owned());
        }
        cells.extend(self.columns.iter().map(|(_, name)| name.to_uppercase()));
        let last = |label: &String| label.rsplit('/').next().unwrap_or(label).to_uppercase();
        cells.extend(self.label_columns.iter().map(last));
        if self.options.labels {
            cells.push("LABELS".to_owned());
        }
        cells
    }

    fn row(&self, row: &Value) -> Vec<String> {
        let metadata = &row["object"]["metadata"];
        let mut cells = Vec::new();
        if self.options.namespace {
            cells.push(text(&metadata["namespace"]));
        }
        for (at, name) in &self.columns {
            let value = cell(&row["cells"][*at]);
            let is_name = self.options.kind && name.eq_ignore_ascii_case("name");
            cells.push(if is_name { format!("{}/{value}", self.kind) } else { value });
        }
        cells.extend(self.label_columns.iter().map(|label| text(&metadata["labels"][label])));
        if self.options.labels {
            cells.push(labels(&metadata["labels"]));
        }
        cells
    }
}

fn cell(value: &Value) -> String {
    let text = super::bare(value);
    match text.split_once('\n') {
        Some((first, _)) => format!("{first}..."),
        None => text,
    }
}

/// `a=b,c=d`, or `<none>`.
pub fn labels(value: &Value) -> String {
    let mut pairs: Vec<String> =
        value.as_object().into_iter().flatten().map(|(k, v)| format!("{k}={}", super::bare(v))).collect();
    pairs.sort();
    if pairs.is_empty() { "<none>".into() } else { pairs.join(",") }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_by_priority_namespace_labels_and_kind() {
        let table = json!({
            "columnDefinitions": [{"name": "Name", "priority": 0}, {"name": "Ready"}, {"name": "IP", "priority": 1}],
            "rows": [{"cells": ["web", "1/1", "10.0.0.1"],
                      "object": {"metadata": {"namespace": "default", "labels": {"b": "2", "a": "1"}}}}],
        });
        let pods = Resource { kind: "Pod".into(), ..Resource::default() };
        let plain = Printer::new(Options::default(), &pods, &[]).render(&table);
        assert_eq!(plain, "NAME   READY\nweb    1/1\n");
        let all = Options { wide: true, namespace: true, labels: true, no_headers: false, kind: true };
        let want = "NAMESPACE   NAME      READY   IP         LABELS\n\
                    default     pod/web   1/1     10.0.0.1   a=1,b=2\n";
        assert_eq!(Printer::new(all, &pods, &[]).render(&table), want);
    }

    #[test]
    fn a_watch_has_one_header_and_never_narrower_columns() {
        let pods = Resource { kind: "Pod".into(), ..Resource::default() };
        let mut printer = Printer::new(Options::default(), &pods, &[]);
        let table = |name: &str| {
            json!({
                "columnDefinitions": [{"name": "Name"}, {"name": "Age"}], "rows": [{"cells": [name, "1s"]}],
            })
        };
        printer.render(&table("a-long-name"));
        assert_eq!(printer.render(&table("b")), "b             1s\n");
    }
}
