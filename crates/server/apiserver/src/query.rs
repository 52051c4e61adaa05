//! Query parameters, and the option sets that verbs read from them.

use xebec_types::{FieldSelector, LabelSelector, Status};

use crate::cache::Filter;
use crate::catalog::Target;

/// Decoded query parameters in their order.
#[derive(Debug, Clone, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// From what follows the question mark.
    pub fn parse(text: &str) -> Self {
        let pair = |part: &str| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            (percent_decode(key, true), percent_decode(value, true))
        };
        Self(text.split('&').filter(|part| !part.is_empty()).map(pair).collect())
    }

    /// The first value of a parameter; empty when it is missing.
    pub fn get(&self, key: &str) -> &str {
        self.0.iter().find(|(k, _)| k == key).map_or("", |(_, v)| v)
    }

    /// All values of a parameter.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// Whether a parameter is there.
    pub fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(k, _)| k == key)
    }

    /// A boolean parameter: there and neither `0` nor `false`, as upstream's conversion reads it.
    pub fn flag(&self, key: &str) -> bool {
        self.0
            .iter()
            .find(|(k, _)| k == key)
            .is_some_and(|(_, v)| v != "0" && !v.eq_ignore_ascii_case("false"))
    }

    /// An integer parameter.
    ///
    /// # Errors
    /// 400 if it is no integer.
    pub fn integer(&self, key: &str) -> Result<Option<i64>, Status> {
        match self.get(key) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
            }),
        }
    }
}

/// Decodes `%xx`, and `+` as a space where forms do.
pub fn percent_decode(text: &str, plus: bool) -> String {
    if !text.contains(['%', '+']) {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |i: usize| bytes.get(i).and_then(|b| char::from(*b).to_digit(16));
        match (bytes[at], hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).expect("invariant: two hex digits are a byte"));
                at += 2;
            }
            (b'+', ..) if plus => out.push(b' '),
            (byte, ..) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

const NEEDS_MATCH: &str = "resourceVersionMatch: Forbidden: sendInitialEvents requires setting \
    resourceVersionMatch to NotOlderThan";
const NEEDS_INITIAL: &str = "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless \
    sendInitialEvents is provided";

/// How exactly a resourceVersion must be met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// As the version itself suggests: none, most recent; 0, any; else not older.
    Unset,
    /// At least as new.
    NotOlderThan,
    /// Exactly that state.
    Exact,
}

/// Options of list and watch.
#[derive(Debug, Clone)]
pub struct ListOptions {
    /// Which objects.
    pub filter: Filter,
    /// As given; empty, `0` or a revision.
    pub resource_version: String,
    /// The parsed resourceVersion; 0 when empty.
    pub revision: u64,
    /// How exactly to meet it.
    pub matching: Match,
    /// Page size; 0 for all.
    pub limit: usize,
    /// Where the last page ended.
    pub continue_token: String,
    /// Seconds until a watch ends.
    pub timeout_seconds: Option<u64>,
    /// Whether a watch wants bookmarks.
    pub bookmarks: bool,
    /// Whether a watch begins with everything there is.
    pub initial_events: Option<bool>,
}

impl ListOptions {
    /// Reads and checks the parameters.
    ///
    /// # Errors
    /// 400 for what cannot be read, 422 for what cannot be combined.
    pub fn parse(query: &Query, target: &Target, namespace: &str, watch: bool) -> Result<Self, Status> {
        let labels = LabelSelector::parse(query.get("labelSelector"))
            .map_err(|error| Status::bad_request(error.to_string()))?;
        let fields = FieldSelector::parse(query.get("fieldSelector"))
            .map_err(|error| Status::bad_request(error.to_string()))?;
        check_fields(&fields, target)?;
        let resource_version = query.get("resourceVersion").to_owned();
        let revision = match resource_version.as_str() {
            "" => 0,
            text => text.parse().map_err(|_| invalid_version(text))?,
        };
        let matching = match query.get("resourceVersionMatch") {
            "" => Match::Unset,
            "NotOlderThan" => Match::NotOlderThan,
            "Exact" => Match::Exact,
            other => {
                let detail = "supported values: \"Exact\", \"NotOlderThan\", \"\"";
                let text = format!("resourceVersionMatch: Unsupported value: {other:?}: {detail}");
                return Err(invalid_options(&text));
            }
        };
        let options = Self {
            filter: Filter { namespace: namespace.into(), labels, fields },
            resource_version,
            revision,
            matching,
            limit: usize::try_from(query.integer("limit")?.unwrap_or(0)).unwrap_or(0),
            continue_token: query.get("continue").to_owned(),
            timeout_seconds: query
                .integer("timeoutSeconds")?
                .and_then(|s| u64::try_from(s).ok())
                .filter(|s| *s > 0),
            bookmarks: query.flag("allowWatchBookmarks"),
            initial_events: query.has("sendInitialEvents").then(|| query.flag("sendInitialEvents")),
        };
        options.check(watch)?;
        Ok(options)
    }

    /// The rules of upstream's `ValidateListOptions`.
    fn check(&self, watch: bool) -> Result<(), Status> {
        let matched = self.matching != Match::Unset;
        if watch {
            return match (self.initial_events, matched) {
                (Some(_), _) if self.matching != Match::NotOlderThan => Err(invalid_options(NEEDS_MATCH)),
                (None, true) => Err(invalid_options(NEEDS_INITIAL)),
                _ => Ok(()),
            };
        }
        let wrong = if self.initial_events.is_some() {
            "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list"
        } else if matched && self.resource_version.is_empty() {
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
        } else if matched && !self.continue_token.is_empty() {
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided"
        } else if self.matching == Match::Exact && self.revision == 0 {
            "resourceVersionMatch: Forbidden: resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\""
        } else {
            return Ok(());
        };
        Err(invalid_options(wrong))
    }
}

/// 400 for a resourceVersion that is none.
pub fn invalid_version(text: &str) -> Status {
    let why = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
    Status::bad_request(format!("invalid resource version: resourceVersion: Invalid value: {text:?}: {why}"))
}

fn invalid_options(text: &str) -> Status {
    let (field, message) = text.split_once(": ").unwrap_or(("", text));
    let reason =
        if message.starts_with("Unsupported") { "FieldValueNotSupported" } else { "FieldValueForbidden" };
    let cause = xebec_types::Cause { reason: reason.into(), message: message.into(), field: field.into() };
    Status::invalid(&xebec_types::GroupKind::new("meta.k8s.io", "ListOptions"), "", vec![cause])
}

fn check_fields(fields: &FieldSelector, target: &Target) -> Result<(), Status> {
    let known = target.resource().strategy.selectable_fields();
    for field in fields.fields() {
        let everywhere =
            field == "metadata.name" || field == "metadata.namespace" && target.resource().namespaced();
        if !everywhere && !known.contains(&field) {
            return Err(Status::bad_request(format!("field label not supported: {field}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let query =
            Query::parse("labelSelector=a%3Db%2Cc&watch=1&command=sh&command=-c&x=a+b&off=false&flag");
        assert_eq!(query.get("labelSelector"), "a=b,c");
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["sh", "-c"]);
        assert_eq!(query.get("x"), "a b");
        assert!(query.flag("watch") && query.flag("flag") && !query.flag("off") && !query.flag("none"));
        assert_eq!(percent_decode("%", true), "%");
        assert_eq!(percent_decode("a%2", true), "a%2");
    }
}
