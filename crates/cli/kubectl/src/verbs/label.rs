//! `label` and `annotate`: one verb on two maps.

use clap::Args;
use serde_json::{Map, Value, json};

use super::write::{MERGE, WriteArgs};
use crate::error::{Error, Result};
use crate::output::table;
use crate::session::{Call, Session};
use crate::targets::{self, Files, Found, Selectors};

/// Which map is changed.
#[derive(Clone, Copy, Debug)]
pub struct What {
    field: &'static str,
    done: &'static str,
    one: &'static str,
}

/// Labels.
pub const LABELS: What = What { field: "labels", done: "labeled", one: "label" };
/// Annotations.
pub const ANNOTATIONS: What = What { field: "annotations", done: "annotated", one: "annotation" };

/// Flags of both.
#[derive(Clone, Debug, Default, Args)]
pub struct LabelArgs {
    /// TYPE NAME... or TYPE/NAME..., then KEY=VALUE to set and KEY- to remove.
    pub words: Vec<String>,
    /// Objects in files.
    #[command(flatten)]
    pub files: Files,
    /// Objects that match.
    #[command(flatten)]
    pub selectors: Selectors,
    /// How to write.
    #[command(flatten)]
    pub write: WriteArgs,
    /// Change what has another value.
    #[arg(long)]
    pub overwrite: bool,
    /// Show instead of change.
    #[arg(long)]
    pub list: bool,
}

/// Runs either.
pub async fn run(session: &Session, args: LabelArgs, what: What) -> Result<i32> {
    let is_change = |word: &&String| word.contains('=') || word.ends_with('-');
    let changes: Vec<&String> = args.words.iter().filter(is_change).collect();
    let words: Vec<String> = args.words.iter().filter(|w| !is_change(w)).cloned().collect();
    if changes.is_empty() && !args.list {
        return Err(Error::client(format!("at least one {} update is required", what.one)));
    }
    let found = targets::find(session, &words, &args.files, &args.selectors).await?;
    for target in found {
        let now = target.object["metadata"][what.field].clone();
        if args.list {
            session.line(table::labels(&now).replace(',', "\n"))?;
            continue;
        }
        let mut patch = Map::new();
        for change in &changes {
            if let Some((key, value)) = read(session, change, &now, args.overwrite, what)? {
                patch.insert(key, value);
            }
        }
        let mut done = what.done;
        let mut object = target.object.clone();
        if patch.is_empty() {
            done = if what.field == "labels" { "not labeled" } else { what.done };
        } else if patch.values().all(Value::is_null) && what.field == "labels" {
            done = "unlabeled";
        }
        if !patch.is_empty() && !args.write.client_only() {
            let body = json!({"metadata": {what.field: patch}});
            let call = Call::patch(target.path(), MERGE, &body);
            object = session.json(args.write.call(call, &format!("kubectl-{}", what.one))).await?;
        }
        args.write.tell(session, &Found { object, ..target }, done)?;
    }
    Ok(0)
}

fn read(
    session: &Session,
    change: &str,
    now: &Value,
    overwrite: bool,
    what: What,
) -> Result<Option<(String, Value)>> {
    if let Some((key, value)) = change.split_once('=') {
        let old = now[key].as_str();
        if let Some(old) = old.filter(|old| *old != value && !overwrite) {
            return Err(Error::client(if what.field == "labels" {
                format!("'{key}' already has a value ({old}), and --overwrite is false")
            } else {
                format!(
                    "--overwrite is false but found the following declared annotation(s): '{key}' already has a \
                     value ({old})"
                )
            }));
        }
        return Ok((old != Some(value)).then(|| (key.to_owned(), value.into())));
    }
    let key = change.trim_end_matches('-');
    if now[key].is_null() {
        session.line(format!("{} {key:?} not found.", what.one))?;
        return Ok(None);
    }
    Ok(Some((key.to_owned(), Value::Null)))
}
