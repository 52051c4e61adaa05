//! Lines with levels and columns.

use std::fmt::Display;

use serde_json::Value;

use crate::discovery::text;
use crate::output::bare;
use crate::output::tabs::{DESCRIBE, align};

/// A description as it grows.
#[derive(Debug, Default)]
pub struct Report(String);

impl Report {
    /// A line; tabs part its cells.
    pub fn line(&mut self, level: usize, text: impl AsRef<str>) {
        self.0.extend(std::iter::repeat_n("  ", level));
        self.0.push_str(text.as_ref());
        self.0.push('\n');
    }

    /// `Name:  value`.
    pub fn field(&mut self, level: usize, name: &str, value: impl Display) {
        self.line(level, format!("{name}:\t{value}"));
    }

    /// A field of several lines, of which there may be none.
    pub fn lines(&mut self, level: usize, name: &str, values: &[String]) {
        match values.split_first() {
            None => self.field(level, name, "<none>"),
            Some((first, rest)) => {
                self.field(level, name, first);
                rest.iter().for_each(|value| self.line(level, format!("\t{value}")));
            }
        }
    }

    /// Name, namespace, labels and annotations.
    pub fn head(&mut self, object: &Value) {
        let metadata = &object["metadata"];
        self.field(0, "Name", text(&metadata["name"]));
        if metadata["namespace"].is_string() {
            self.field(0, "Namespace", text(&metadata["namespace"]));
        }
        self.meta(object);
    }

    /// Labels and annotations.
    pub fn meta(&mut self, object: &Value) {
        self.lines(0, "Labels", &pairs(&object["metadata"]["labels"], "="));
        self.lines(0, "Annotations", &annotations(&object["metadata"]["annotations"]));
    }

    /// The aligned text.
    pub fn finish(&self) -> String {
        align(&self.0, DESCRIBE)
    }
}

/// The pairs of a map, in order.
pub fn pairs(map: &Value, between: &str) -> Vec<String> {
    let mut pairs: Vec<String> =
        map.as_object().into_iter().flatten().map(|(k, v)| format!("{k}{between}{}", bare(v))).collect();
    pairs.sort();
    pairs
}

/// Annotations, without the one that repeats the object.
fn annotations(map: &Value) -> Vec<String> {
    let mut all = pairs(map, ": ");
    all.retain(|pair| !pair.starts_with("kubectl.kubernetes.io/last-applied-configuration"));
    all
}

/// A text, or what stands for none.
pub fn or(value: &Value, none: &str) -> String {
    match bare(value) {
        text if text.is_empty() => none.to_owned(),
        text => text,
    }
}

/// `ReplicaSet/web-5d`, of the owner that controls an object.
pub fn controller(object: &Value) -> Option<String> {
    let owner =
        crate::discovery::items(&object["metadata"]["ownerReferences"]).find(|o| o["controller"] == true)?;
    Some(format!("{}/{}", text(&owner["kind"]), text(&owner["name"])))
}

/// `app=web,tier in (a,b)`, of a selector.
pub fn selector(object: &Value) -> String {
    crate::targets::pod_selector(object).unwrap_or_else(|| "<none>".into())
}
