//! `events`.

use clap::Args;
use futures::StreamExt;
use serde_json::Value;

use crate::discovery::{items, text};
use crate::duration::age;
use crate::error::{Error, Result};
use crate::output::tabs::{TABLE, align};
use crate::session::{Call, Session};

/// Flags of `events`.
#[derive(Clone, Debug, Default, Args)]
pub struct EventsArgs {
    /// In all namespaces.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Of one object: TYPE/NAME.
    #[arg(long = "for")]
    pub object: Option<String>,
    /// Only of these types, such as Warning.
    #[arg(long, value_delimiter = ',')]
    pub types: Vec<String>,
    /// Keep watching.
    #[arg(short = 'w', long)]
    pub watch: bool,
    /// No header line.
    #[arg(long)]
    pub no_headers: bool,
}

/// Runs `events`.
pub async fn run(session: &Session, args: EventsArgs) -> Result<i32> {
    let resource = session.discovery().await?.require("events")?;
    let path = resource.collection((!args.all_namespaces).then_some(session.namespace.as_str()));
    let selector = match &args.object {
        None => None,
        Some(word) => {
            let (called, name) = word
                .split_once('/')
                .ok_or_else(|| Error::client(format!("--for must be in resource/name form: {word:?}")))?;
            let kind = session.discovery().await?.require(called)?.kind.clone();
            Some(format!("involvedObject.kind={kind},involvedObject.name={name}"))
        }
    };
    let call = || Call::get(path.as_str()).maybe("fieldSelector", selector.as_deref());
    let list = session.json(call()).await?;
    let wanted =
        |event: &&Value| args.types.is_empty() || args.types.iter().any(|t| event["type"] == t.as_str());
    let mut events: Vec<&Value> = items(&list["items"]).filter(wanted).collect();
    events.sort_by_key(|event| text(last_seen(event)));
    if events.is_empty() && !args.watch {
        let place =
            if args.all_namespaces { String::new() } else { format!(" in {} namespace.", session.namespace) };
        session.warn(format!("No events found{place}"))?;
        return Ok(0);
    }
    let mut out = String::new();
    if !args.no_headers {
        out.push_str(if args.all_namespaces { "NAMESPACE\t" } else { "" });
        out.push_str("LAST SEEN\tTYPE\tREASON\tOBJECT\tMESSAGE\n");
    }
    events.iter().for_each(|event| out.push_str(&row(event, args.all_namespaces)));
    session.print(align(&out, TABLE))?;
    if args.watch {
        let from = call().maybe("resourceVersion", list["metadata"]["resourceVersion"].as_str());
        let mut changes = session.watch(from).await?;
        while let Some(change) = changes.next().await {
            let event = change?["object"].take();
            if wanted(&&event) {
                session.print(align(&row(&event, args.all_namespaces), TABLE))?;
            }
        }
    }
    Ok(0)
}

fn row(event: &Value, namespace: bool) -> String {
    let object = &event["involvedObject"];
    let place = if namespace { text(&event["metadata"]["namespace"]) + "\t" } else { String::new() };
    format!(
        "{place}{}\t{}\t{}\t{}/{}\t{}\n",
        when(event),
        text(&event["type"]),
        text(&event["reason"]),
        text(&object["kind"]).to_lowercase(),
        text(&object["name"]),
        text(&event["message"]).trim().replace('\n', " ")
    )
}

/// When an event was last seen; newer events carry only `eventTime` and a series.
pub fn last_seen(event: &Value) -> &Value {
    [
        &event["series"]["lastObservedTime"],
        &event["lastTimestamp"],
        &event["eventTime"],
        &event["firstTimestamp"],
    ]
    .into_iter()
    .find(|time| time.is_string())
    .unwrap_or(&event["metadata"]["creationTimestamp"])
}

/// `5s`, or `5s (x3 over 2m)` for one that repeats.
pub fn when(event: &Value) -> String {
    let count = event["series"]["count"].as_i64().or_else(|| event["count"].as_i64()).unwrap_or(1);
    let first = [&event["firstTimestamp"], &event["eventTime"]].into_iter().find(|time| time.is_string());
    match (count, first) {
        (2.., Some(first)) => format!("{} (x{count} over {})", age(last_seen(event)), age(first)),
        _ => age(last_seen(event)),
    }
}
