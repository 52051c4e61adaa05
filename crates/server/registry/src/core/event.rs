//! `Event` (core/v1).

use jiff::Timestamp;
use serde_json::Value;
use xebec_schema::{FieldError, Path, error};
use xebec_types::object;

use crate::builder::{ColumnRow, Kind, NAME, text, wide};
use crate::cells::{int_at, name, since};
use crate::{Cells, Context, Resource, Strategy};

const COLUMNS: &[ColumnRow] = &[
    text("Last Seen"),
    text("Type"),
    text("Reason"),
    text("Object"),
    wide("Subobject"),
    wide("Source"),
    text("Message"),
    wide("First Seen"),
    wide("Count"),
    (NAME.0, NAME.1, 1),
];

/// The resource.
pub(crate) fn resource() -> Resource {
    Kind::namespaced("v1", "Event", "events").short(&["ev"]).columns(COLUMNS).strategy(EventStrategy).build()
}

/// What differs for events.
struct EventStrategy;

impl EventStrategy {
    fn first_seen(event: &Value) -> &str {
        match object::str_at(event, "firstTimestamp") {
            "" => object::str_at(event, "eventTime"),
            at => at,
        }
    }

    fn last_seen(event: &Value) -> &str {
        let candidates = ["series.lastObservedTime", "lastTimestamp"].map(|path| object::str_at(event, path));
        candidates.into_iter().find(|at| !at.is_empty()).unwrap_or_else(|| Self::first_seen(event))
    }

    fn source(event: &Value) -> String {
        let component = match object::str_at(event, "source.component") {
            "" => object::str_at(event, "reportingComponent"),
            component => component,
        };
        match object::str_at(event, "source.host") {
            "" => component.to_owned(),
            host => format!("{component}, {host}"),
        }
    }
}

impl Strategy for EventStrategy {
    fn validate_create(&self, _cx: &Context<'_>, object: &Value) -> Vec<FieldError> {
        // Events of cluster-scoped objects live in `default`; all others beside what they tell of.
        let involved = object::str_at(object, "involvedObject.namespace");
        let own = object::namespace(object);
        let fits =
            if involved.is_empty() { ["", "default", "kube-system"].contains(&own) } else { involved == own };
        if fits {
            return Vec::new();
        }
        let path = Path::new("involvedObject").child("namespace");
        vec![error::invalid(&path, involved, "does not match event.namespace")]
    }

    fn validate_update(&self, cx: &Context<'_>, new: &Value, _old: &Value) -> Vec<FieldError> {
        self.validate_create(cx, new)
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ]
    }

    fn field<'a>(&self, object: &'a Value, field: &str) -> &'a str {
        match field {
            "source" => match object::str_at(object, "source.component") {
                "" => object::str_at(object, "reportingComponent"),
                component => component,
            },
            _ => object::str_at(object, field),
        }
    }

    fn cells(&self, _version: &str, object: &Value, now: Timestamp) -> Cells {
        let get = |path: &str| object::str_at(object, path);
        let target = match get("involvedObject.name") {
            "" => get("involvedObject.kind").to_lowercase(),
            name => format!("{}/{name}", get("involvedObject.kind").to_lowercase()),
        };
        let first = Self::first_seen(object);
        let (last, count) = match int_at(object, "series.count") {
            0 => (Self::last_seen(object), int_at(object, "count").max(1)),
            count => (get("series.lastObservedTime"), count),
        };
        vec![
            since(last, now).into(),
            get("type").into(),
            get("reason").into(),
            target.into(),
            get("involvedObject.fieldPath").into(),
            Self::source(object).into(),
            get("message").trim().into(),
            since(first, now).into(),
            count.into(),
            name(object),
        ]
    }
}
