//! What table cells of several kinds have in common.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::Value;
use xebec_types::{object, time};

/// Time since an RFC 3339 timestamp as `kubectl get` shows it; `<unknown>` without one.
pub(crate) fn since(timestamp: &str, now: Timestamp) -> String {
    time::parse(timestamp)
        .map_or_else(|| "<unknown>".into(), |at| time::human_duration(now.as_second() - at.as_second()))
}

/// The age of an object.
pub(crate) fn age(object: &Value, now: Timestamp) -> Value {
    since(object::meta_str(object, "creationTimestamp"), now).into()
}

/// The name of an object as a cell.
pub(crate) fn name(object: &Value) -> Value {
    object::name(object).into()
}

/// A string at a dotted path, `<none>` when it is missing or empty.
pub(crate) fn or_none<'a>(object: &'a Value, path: &str) -> &'a str {
    match object::str_at(object, path) {
        "" => "<none>",
        text => text,
    }
}

/// The integer at a dotted path, 0 when it is missing.
pub(crate) fn int_at(object: &Value, path: &str) -> i64 {
    object::at(object, path).and_then(Value::as_i64).unwrap_or(0)
}

/// The list at a dotted path, empty when it is missing.
pub(crate) fn list_at<'a>(object: &'a Value, path: &str) -> &'a [Value] {
    object::at(object, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// How many entries the map at a dotted path has.
pub(crate) fn map_len(object: &Value, path: &str) -> usize {
    object::at(object, path).and_then(Value::as_object).map_or(0, serde_json::Map::len)
}

/// A map of strings as `a=b,c=d`; `<none>` when empty.
pub(crate) fn labels(map: Option<&Value>) -> String {
    let map = map.and_then(Value::as_object);
    let parts: Vec<String> =
        map.into_iter().flatten().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or(""))).collect();
    if parts.is_empty() { "<none>".into() } else { parts.join(",") }
}

/// A `metav1.LabelSelector` as upstream prints it (`a=b,c in (d,e),!f`); `<none>` when it selects everything.
pub(crate) fn selector(selector: Option<&Value>) -> String {
    let Some(selector) = selector else { return "<none>".into() };
    let mut parts = Vec::new();
    if let Some(map) = selector.get("matchLabels").and_then(Value::as_object) {
        parts.extend(map.iter().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or(""))));
    }
    for e in list_at(selector, "matchExpressions") {
        let key = object::str_at(e, "key");
        let mut values: Vec<&str> = list_at(e, "values").iter().filter_map(Value::as_str).collect();
        values.sort_unstable();
        parts.push(match object::str_at(e, "operator") {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    parts.sort();
    if parts.is_empty() { "<none>".into() } else { parts.join(",") }
}

/// Names and images of a pod template's containers, both joined by commas.
pub(crate) fn containers_and_images(pod_spec: Option<&Value>) -> (String, String) {
    let containers = pod_spec.map_or(&[][..], |spec| list_at(spec, "containers"));
    let join = |key: &str| containers.iter().map(|c| object::str_at(c, key)).collect::<Vec<_>>().join(",");
    (join("name"), join("image"))
}

/// The first `max` of `items` joined by commas, with ` + N more...` for the rest; `empty` when there are none.
pub(crate) fn first_and_more(items: &[String], max: usize, empty: &str) -> String {
    if items.is_empty() {
        return empty.into();
    }
    let mut text = items.iter().take(max).map(String::as_str).collect::<Vec<_>>().join(",");
    if items.len() > max {
        let _ = write!(text, " + {} more...", items.len() - max);
    }
    text
}
