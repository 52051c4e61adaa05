//! `wait`: until a condition holds, by watching.

use clap::Args;
use futures::StreamExt;
use serde_json::Value;

use super::delete::{gone, within};
use crate::discovery::{items, text};
use crate::duration;
use crate::error::{Error, Result};
use crate::output::bare;
use crate::output::jsonpath::Template;
use crate::session::{Call, Session};
use crate::targets::{self, Files, Found, Selectors};

/// Flags of `wait`.
#[derive(Clone, Debug, Default, Args)]
pub struct WaitArgs {
    /// TYPE NAME... or TYPE/NAME...
    pub words: Vec<String>,
    /// Objects in files.
    #[command(flatten)]
    pub files: Files,
    /// Objects that match.
    #[command(flatten)]
    pub selectors: Selectors,
    /// In all namespaces.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// condition=NAME[=VALUE], delete, create or jsonpath={...}[=VALUE].
    #[arg(long = "for")]
    pub condition: String,
    /// How long for each object; 0 to look once.
    #[arg(long, default_value = "30s")]
    pub timeout: String,
}

/// What is waited for.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// A condition of the status has a value.
    Status(String, String),
    /// The value at a path; any value when none is given.
    Path(Template, Option<String>),
    /// The object is gone.
    Delete,
    /// The object exists.
    Create,
}

impl Condition {
    /// Reads `--for`.
    pub fn parse(text: &str) -> Result<Self> {
        if let Some(rest) = text.strip_prefix("condition=") {
            let (name, value) = rest.split_once('=').unwrap_or((rest, "true"));
            return Ok(Self::Status(name.to_owned(), value.to_owned()));
        }
        if let Some(rest) = text.strip_prefix("jsonpath=") {
            let rest = rest.trim_matches('\'');
            // The value stands behind the braces; a filter inside them may hold `=` too.
            let (path, value) = match rest.rfind('}') {
                Some(end) => (&rest[..=end], rest[end + 1..].strip_prefix('=')),
                None => rest.split_once('=').map_or((rest, None), |(path, value)| (path, Some(value))),
            };
            return Ok(Self::Path(
                Template::relaxed(path)?,
                value.map(|v| v.trim_matches(['"', '\'']).to_owned()),
            ));
        }
        match text {
            "delete" => Ok(Self::Delete),
            "create" => Ok(Self::Create),
            _ => Err(Error::client(format!("unrecognized condition: {text:?}"))),
        }
    }

    /// Whether it holds for an object that exists.
    pub fn holds(&self, object: &Value) -> bool {
        match self {
            Self::Create => true,
            Self::Delete => false,
            Self::Path(path, want) => {
                let values = path.values(object);
                match want {
                    Some(want) => !values.is_empty() && values.iter().all(|value| bare(value) == *want),
                    None => values.iter().any(|value| !value.is_null()),
                }
            }
            Self::Status(name, want) => {
                let generation = object["metadata"]["generation"].as_i64();
                let observed = object["status"]["observedGeneration"].as_i64();
                // What the status says of an older generation does not count.
                let current = !matches!((generation, observed), (Some(g), Some(o)) if o < g);
                current
                    && items(&object["status"]["conditions"]).any(|condition| {
                        text(&condition["type"]).eq_ignore_ascii_case(name)
                            && text(&condition["status"]).eq_ignore_ascii_case(want)
                    })
            }
        }
    }
}

/// Runs `wait`.
pub async fn run(session: &Session, args: WaitArgs) -> Result<i32> {
    let condition = Condition::parse(&args.condition)?;
    let once = ["0", "0s"].contains(&args.timeout.as_str());
    let limit = duration::parse(&args.timeout).map_err(|e| Error::client(format!("--timeout: {e}")))?;
    let found = match find(session, &args, &condition).await {
        Err(error) if error.is_not_found() && condition == Condition::Delete => Vec::new(),
        other => other?,
    };
    if found.is_empty() && condition != Condition::Delete {
        return Err(Error::client("no matching resources found"));
    }
    let mut code = 0;
    for target in found {
        let label = target.label();
        if once && !condition.holds(&target.object) {
            session.warn(format!("error: condition not met for {label}"))?;
            code = 1;
            continue;
        }
        match within(limit, until(session, &target, &condition)).await {
            Ok(()) => {
                let done = if condition == Condition::Delete { "deleted" } else { "condition met" };
                session.line(format!("{label} {done}"))?;
            }
            Err(Error::Client(text)) if text.starts_with("timed out") => {
                session.warn(format!(
                    "error: timed out waiting for the condition on {}/{}",
                    target.resource.plural, target.name
                ))?;
                code = 1;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(code)
}

async fn find(session: &Session, args: &WaitArgs, condition: &Condition) -> Result<Vec<Found>> {
    let discovery = session.discovery().await?;
    if *condition == Condition::Create {
        let named = targets::parse(&discovery, &args.words)?.into_iter().filter_map(|target| {
            let namespace = target.resource.namespaced.then(|| session.namespace.clone());
            let name = target.name?;
            Some(Found { resource: target.resource, namespace, name, object: Value::Null, source: None })
        });
        return Ok(named.collect());
    }
    if args.all_namespaces {
        let mut found = Vec::new();
        for target in targets::parse(&discovery, &args.words)? {
            found.extend(targets::list(session, &target.resource, None, &args.selectors).await?);
        }
        return Ok(found);
    }
    targets::find(session, &args.words, &args.files, &args.selectors).await
}

/// Waits until a condition holds for an object.
pub async fn until(session: &Session, target: &Found, condition: &Condition) -> Result<()> {
    if *condition == Condition::Delete {
        return gone(session, target, &text(&target.object["metadata"]["uid"])).await;
    }
    follow(session, target, |object| Ok(condition.holds(object).then_some(()))).await
}

/// Looks at an object now and after every change until `step` gives something. The object need not exist yet.
pub async fn follow<T>(
    session: &Session,
    target: &Found,
    mut step: impl FnMut(&Value) -> Result<Option<T>>,
) -> Result<T> {
    let collection = target.resource.collection(target.namespace.as_deref());
    let selector = format!("metadata.name={}", target.name);
    loop {
        let list =
            session.json(Call::get(collection.as_str()).query("fieldSelector", selector.as_str())).await?;
        for object in items(&list["items"]) {
            if let Some(done) = step(object)? {
                return Ok(done);
            }
        }
        let call = Call::get(collection.as_str())
            .query("fieldSelector", selector.as_str())
            .maybe("resourceVersion", list["metadata"]["resourceVersion"].as_str());
        let mut events = session.watch(call).await?;
        while let Some(event) = events.next().await {
            // An expired watch begins anew with a list.
            let Ok(event) = event else { break };
            if (event["type"] == "ADDED" || event["type"] == "MODIFIED")
                && let Some(done) = step(&event["object"])?
            {
                return Ok(done);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn conditions() {
        let pod = json!({"metadata": {"generation": 2}, "status": {"phase": "Running", "observedGeneration": 2,
            "conditions": [{"type": "Ready", "status": "True"}]}});
        for (text, want) in [
            ("condition=Ready", true),
            ("condition=ready=false", false),
            ("jsonpath={.status.phase}=Running", true),
            ("jsonpath='{.status.conditions[?(@.type==\"Ready\")].status}'=True", true),
            ("jsonpath={.status.nothing}", false),
        ] {
            assert_eq!(Condition::parse(text).unwrap().holds(&pod), want, "{text}");
        }
        assert!(Condition::parse("ready").is_err());
        let stale = json!({"metadata": {"generation": 3}, "status": pod["status"]});
        assert!(!Condition::parse("condition=Ready").unwrap().holds(&stale));
    }
}
