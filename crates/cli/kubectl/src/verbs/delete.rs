//! `delete`, which waits until what it deleted is gone.

use std::time::Duration;

use clap::{ArgAction, Args};
use futures::StreamExt;
use serde_json::{Value, json};

use super::write::DryRun;
use crate::discovery::text;
use crate::duration;
use crate::error::{Error, Result};
use crate::session::{Call, Session};
use crate::targets::{self, Files, Found, Selectors, Target};

/// Flags of `delete`.
#[derive(Clone, Debug, Args)]
pub struct DeleteArgs {
    /// TYPE[,TYPE] [NAME...] or TYPE/NAME...
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
    /// Seconds to let pods end; negative for the object's own.
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    pub grace_period: i64,
    /// Remove from the API at once (with --grace-period=0).
    #[arg(long)]
    pub force: bool,
    /// As --grace-period=1.
    #[arg(long)]
    pub now: bool,
    /// Wait until the objects are gone.
    #[arg(long, action = ArgAction::Set, default_value_t = true, num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    pub wait: bool,
    /// How long to wait; 0 for as long as it takes.
    #[arg(long, default_value = "0s")]
    pub timeout: String,
    /// Succeed when there is no such object.
    #[arg(long)]
    pub ignore_not_found: bool,
    /// What happens to dependents: background, orphan or foreground.
    #[arg(long, default_value = "background", num_args = 0..=1, require_equals = true,
          default_missing_value = "background")]
    pub cascade: String,
    /// Only tell what would be done.
    #[arg(long, value_enum, default_value = "none")]
    pub dry_run: DryRun,
    /// `name` for short lines.
    #[arg(short = 'o', long)]
    pub output: Option<String>,
}

/// Runs `delete`.
pub async fn run(session: &Session, args: DeleteArgs) -> Result<i32> {
    if args.output.as_deref().is_some_and(|o| o != "name") {
        return Err(Error::client("unexpected -o output mode. We only support '-o name'"));
    }
    let options = options(&args)?;
    let limit = duration::parse(&args.timeout).map_err(|e| Error::client(format!("--timeout: {e}")))?;
    if args.grace_period == 0 && args.force {
        session.warn(
            "Warning: Immediate deletion does not wait for confirmation that the running resource has been \
             terminated. The resource may continue to run on the cluster indefinitely.",
        )?;
    }
    let (mut deleted, mut code) = (Vec::new(), 0);
    let targets = find(session, &args).await?;
    let none = targets.is_empty();
    for target in targets {
        match delete(session, &args, &target, &options).await {
            Ok(answer) => {
                tell(session, &args, &target)?;
                deleted.push((target, answer));
            }
            Err(error) if error.is_not_found() && (args.ignore_not_found || args.selectors.all) => {}
            Err(error) => {
                session.warn(error.to_string())?;
                code = 1;
            }
        }
    }
    if none && !args.ignore_not_found {
        session.line("No resources found")?;
    }
    if args.wait && args.dry_run == DryRun::None {
        let waiting = async {
            for (target, answer) in &deleted {
                gone(session, target, &uid(answer)).await?;
            }
            Ok(())
        };
        within(limit, waiting).await?;
    }
    Ok(code)
}

/// Runs something within a time; the error is what kubectl says.
pub async fn within<T>(limit: Option<Duration>, work: impl Future<Output = Result<T>>) -> Result<T> {
    match limit {
        None => work.await,
        Some(limit) => match tokio::time::timeout(limit, work).await {
            Ok(result) => result,
            Err(_) => Err(Error::client("timed out waiting for the condition")),
        },
    }
}

fn options(args: &DeleteArgs) -> Result<Value> {
    let policy = match args.cascade.as_str() {
        "background" | "true" => "Background",
        "orphan" | "false" => "Orphan",
        "foreground" => "Foreground",
        other => {
            return Err(Error::client(format!(
                "invalid cascade value ({other}). Must be \"background\", \"foreground\", or \"orphan\""
            )));
        }
    };
    let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy});
    let grace = match (args.now, args.force, args.grace_period) {
        (true, _, given) if given >= 0 => {
            return Err(Error::client("--now and --grace-period cannot be specified together"));
        }
        (true, ..) => 1,
        (_, true, given) if given < 0 => 0,
        // Zero without --force is not meant: it would leave containers behind.
        (_, false, 0) => 1,
        (_, _, given) => given,
    };
    if grace >= 0 {
        options["gracePeriodSeconds"] = grace.into();
    }
    if args.dry_run == DryRun::Server {
        options["dryRun"] = json!(["All"]);
    }
    Ok(options)
}

async fn find(session: &Session, args: &DeleteArgs) -> Result<Vec<Found>> {
    if !args.files.filename.is_empty() || args.files.kustomize.is_some() {
        let mut found = Vec::new();
        for document in args.files.read(session).await? {
            found.push(document.locate(session).await?);
        }
        return Ok(found);
    }
    let namespace = (!args.all_namespaces).then_some(session.namespace.as_str());
    let mut found = Vec::new();
    let selects =
        args.selectors.all || args.selectors.selector.is_some() || args.selectors.field_selector.is_some();
    for Target { resource, name } in targets::parse(&*session.discovery().await?, &args.words)? {
        match name {
            Some(_) if selects => {
                return Err(Error::client("name cannot be provided when a selector is specified"));
            }
            Some(name) => {
                let namespace = resource.namespaced.then(|| session.namespace.clone());
                found.push(Found { resource, namespace, name, object: Value::Null, source: None });
            }
            None if selects => {
                found.extend(targets::list(session, &resource, namespace, &args.selectors).await?);
            }
            None => return Err(Error::client("resource(s) were provided, but no name was specified")),
        }
    }
    Ok(found)
}

async fn delete(session: &Session, args: &DeleteArgs, target: &Found, options: &Value) -> Result<Value> {
    if args.dry_run == DryRun::Client {
        return session.json(Call::get(target.path())).await;
    }
    let result = session.json(Call::delete(target.path(), options)).await;
    match &target.source {
        Some(source) => result.map_err(|e| e.doing(format!("error when deleting {source:?}"))),
        None => result,
    }
}

fn tell(session: &Session, args: &DeleteArgs, target: &Found) -> Result<()> {
    if args.output.is_some() {
        return session.line(target.label());
    }
    let done = if args.force && args.grace_period <= 0 { "force deleted" } else { "deleted" };
    let place = match &target.namespace {
        Some(namespace) => format!(" from {namespace} namespace"),
        None => String::new(),
    };
    let suffix = match args.dry_run {
        DryRun::None => "",
        DryRun::Client => " (dry run)",
        DryRun::Server => " (server dry run)",
    };
    session.line(format!("{} {done}{place}{suffix}", target.resource.quoted(&target.name)))
}

/// The answer to a delete is a Status with the uid in its details, or the object that is on its way out.
fn uid(answer: &Value) -> String {
    let of_status = text(&answer["details"]["uid"]);
    if of_status.is_empty() { text(&answer["metadata"]["uid"]) } else { of_status }
}

/// Waits until an object is gone; another one of the same name does not count.
pub async fn gone(session: &Session, target: &Found, uid: &str) -> Result<()> {
    loop {
        let object = match session.json(Call::get(target.path())).await {
            Ok(object) => object,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
        };
        if !uid.is_empty() && object["metadata"]["uid"] != uid {
            return Ok(());
        }
        let call = Call::get(target.resource.collection(target.namespace.as_deref()))
            .query("fieldSelector", format!("metadata.name={}", target.name))
            .maybe("resourceVersion", object["metadata"]["resourceVersion"].as_str());
        let mut events = session.watch(call).await?;
        while let Some(event) = events.next().await {
            match event {
                Ok(event) if event["type"] == "DELETED" => return Ok(()),
                Ok(_) => {}
                // The version is too old: look again.
                Err(_) => break,
            }
        }
    }
}
