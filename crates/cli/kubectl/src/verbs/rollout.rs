//! `rollout`: status, history, undo, restart, pause and resume of Deployments.

use clap::{ArgAction, Args, Subcommand};
use serde_json::{Value, json};

use super::delete::within;
use super::wait::follow;
use super::write::{JSON, MERGE, STRATEGIC, WriteArgs};
use crate::discovery::{items, text};
use crate::duration;
use crate::error::{Error, Result};
use crate::output::tabs::{TABLE, align};
use crate::output::yaml;
use crate::session::{Call, Session};
use crate::targets::{self, Files, Found, Selectors, pod_selector};

/// The number of a revision, on Deployments and their ReplicaSets.
const REVISION: &str = "deployment.kubernetes.io/revision";
/// Why a revision came about.
const CAUSE: &str = "kubernetes.io/change-cause";
/// A change of this annotation restarts the pods.
const RESTARTED: &str = "kubectl.kubernetes.io/restartedAt";
/// What the deployment controller adds to the template of a ReplicaSet.
const HASH: &str = "pod-template-hash";

/// Flags of `rollout`.
#[derive(Clone, Debug, Args)]
pub struct RolloutArgs {
    /// What to do.
    #[command(subcommand)]
    pub what: Action,
}

/// What can be done.
#[derive(Clone, Debug, Subcommand)]
pub enum Action {
    /// Wait until the newest revision runs.
    Status(StatusArgs),
    /// List the revisions.
    History(RevisionArgs),
    /// Go back to an earlier revision.
    Undo(RevisionArgs),
    /// Replace all pods.
    Restart(CommonArgs),
    /// Stop rolling out.
    Pause(CommonArgs),
    /// Go on rolling out.
    Resume(CommonArgs),
}

/// What and how.
#[derive(Clone, Debug, Default, Args)]
pub struct CommonArgs {
    /// TYPE NAME... or TYPE/NAME...
    pub words: Vec<String>,
    /// Objects in files.
    #[command(flatten)]
    pub files: Files,
    /// Objects that match.
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// How to write.
    #[command(flatten)]
    pub write: WriteArgs,
}

/// Flags of `rollout status`.
#[derive(Clone, Debug, Default, Args)]
pub struct StatusArgs {
    /// What.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Wait.
    #[arg(short = 'w', long, action = ArgAction::Set, default_value_t = true, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    pub watch: bool,
    /// How long; 0 for as long as it takes.
    #[arg(long, default_value = "0s")]
    pub timeout: String,
}

/// Flags of `rollout history` and `rollout undo`.
#[derive(Clone, Debug, Default, Args)]
pub struct RevisionArgs {
    /// What.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Which revision; 0 for the one before (undo) or all (history).
    #[arg(long, visible_alias = "revision", default_value_t = 0)]
    pub to_revision: i64,
}

/// Runs `rollout`.
pub async fn run(session: &Session, args: RolloutArgs) -> Result<i32> {
    let common = match &args.what {
        Action::Status(status) => &status.common,
        Action::History(args) | Action::Undo(args) => &args.common,
        Action::Restart(common) | Action::Pause(common) | Action::Resume(common) => common,
    };
    let selectors = Selectors { selector: common.selector.clone(), ..Selectors::default() };
    for target in targets::find(session, &common.words, &common.files, &selectors).await? {
        if target.resource.kind != "Deployment" {
            return Err(Error::client(format!(
                "rollout works on deployments only so far, not on {}",
                target.label()
            )));
        }
        match &args.what {
            Action::Status(args) => status(session, args, &target).await?,
            Action::History(args) => history(session, args, &target).await?,
            Action::Undo(args) => undo(session, args, &target).await?,
            Action::Restart(args) => restart(session, args, target).await?,
            Action::Pause(args) => pause(session, args, target, true).await?,
            Action::Resume(args) => pause(session, args, target, false).await?,
        }
    }
    Ok(0)
}

async fn status(session: &Session, args: &StatusArgs, target: &Found) -> Result<()> {
    let limit = duration::parse(&args.timeout).map_err(|e| Error::client(format!("--timeout: {e}")))?;
    if !args.watch {
        return session.line(progress(&target.object)?.0);
    }
    let mut last = String::new();
    let watching = follow(session, target, |deployment| {
        let (line, done) = progress(deployment)?;
        if line != last {
            session.line(&line)?;
            last = line;
        }
        Ok(done.then_some(()))
    });
    within(limit, watching).await
}

/// What stands between a Deployment and the end of its rollout; whether nothing does.
fn progress(deployment: &Value) -> Result<(String, bool)> {
    let name = text(&deployment["metadata"]["name"]);
    let status = &deployment["status"];
    let number = |value: &Value| value.as_i64().unwrap_or(0);
    if number(&status["observedGeneration"]) < number(&deployment["metadata"]["generation"]) {
        return Ok(("Waiting for deployment spec update to be observed...".into(), false));
    }
    let late = |c: &&Value| c["type"] == "Progressing" && c["reason"] == "ProgressDeadlineExceeded";
    if items(&status["conditions"]).any(|c| late(&c)) {
        return Err(Error::client(format!("deployment {name:?} exceeded its progress deadline")));
    }
    let wanted = deployment["spec"]["replicas"].as_i64().unwrap_or(1);
    let (total, updated, available) = (
        number(&status["replicas"]),
        number(&status["updatedReplicas"]),
        number(&status["availableReplicas"]),
    );
    let waiting = format!("Waiting for deployment {name:?} rollout to finish:");
    Ok(if updated < wanted {
        (format!("{waiting} {updated} out of {wanted} new replicas have been updated..."), false)
    } else if total > updated {
        (format!("{waiting} {} old replicas are pending termination...", total - updated), false)
    } else if available < updated {
        (format!("{waiting} {available} of {updated} updated replicas are available..."), false)
    } else {
        (format!("deployment {name:?} successfully rolled out"), true)
    })
}

/// The ReplicaSets of a Deployment, by revision.
async fn revisions(session: &Session, target: &Found) -> Result<Vec<(i64, Value)>> {
    let sets = session.discovery().await?.require("replicasets.apps")?;
    let selectors = Selectors { selector: pod_selector(&target.object), ..Selectors::default() };
    let uid = &target.object["metadata"]["uid"];
    let owned = |set: &Found| items(&set.object["metadata"]["ownerReferences"]).any(|o| o["uid"] == *uid);
    let found = targets::list(session, &sets, target.namespace.as_deref(), &selectors).await?;
    let number = |set: &Value| text(&set["metadata"]["annotations"][REVISION]).parse().unwrap_or(0);
    let mut all: Vec<(i64, Value)> =
        found.into_iter().filter(owned).map(|set| (number(&set.object), set.object)).collect();
    all.sort_by_key(|(number, _)| *number);
    Ok(all)
}

async fn history(session: &Session, args: &RevisionArgs, target: &Found) -> Result<()> {
    let all = revisions(session, target).await?;
    if args.to_revision > 0 {
        let set = all.iter().find(|(number, _)| *number == args.to_revision);
        let (number, set) = set.ok_or_else(|| Error::client("unable to find the specified revision"))?;
        session.line(format!("{} with revision #{number}\nPod Template:", target.label()))?;
        let template = yaml(&set["spec"]["template"])?;
        return session.print(template.lines().map(|line| format!("  {line}\n")).collect::<String>());
    }
    let mut out = "REVISION\tCHANGE-CAUSE\n".to_owned();
    for (number, set) in &all {
        let cause = set["metadata"]["annotations"][CAUSE].as_str().unwrap_or("<none>");
        out.push_str(&format!("{number}\t{cause}\n"));
    }
    session.line(format!("{} ", target.label()))?;
    session.print(align(&out, TABLE))?;
    session.line("")
}

async fn undo(session: &Session, args: &RevisionArgs, target: &Found) -> Result<()> {
    if target.object["spec"]["paused"] == true {
        return Err(Error::client(format!(
            "you cannot rollback a paused deployment; resume it first with 'kubectl rollout resume {}' and try again",
            target.label()
        )));
    }
    let all = revisions(session, target).await?;
    let found = match args.to_revision {
        0 => all.len().checked_sub(2).map(|at| &all[at]),
        wanted => all.iter().find(|(number, _)| *number == wanted),
    };
    let missing = || match args.to_revision {
        0 => Error::client(format!("no rollout history found for deployment {:?}", target.name)),
        wanted => Error::client(format!("unable to find specified revision {wanted} in history")),
    };
    let (_, set) = found.ok_or_else(missing)?;
    let mut template = set["spec"]["template"].clone();
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.remove(HASH);
    }
    if template == target.object["spec"]["template"] {
        let why = format!(
            "skipped rollback (current template already matches revision {})",
            text(&set["metadata"]["annotations"][REVISION])
        );
        return args.common.write.tell(session, target, &why);
    }
    let mut object = target.object.clone();
    if !args.common.write.client_only() {
        // The template is replaced whole: a merge would keep fields that the old revision did not have.
        let patch = json!([{"op": "replace", "path": "/spec/template", "value": template}]);
        let call = Call::patch(target.path(), JSON, &patch);
        object = session.json(args.common.write.call(call, "kubectl-rollout")).await?;
    }
    args.common.write.tell(session, &Found { object, ..target.clone() }, "rolled back")
}

async fn restart(session: &Session, args: &CommonArgs, target: Found) -> Result<()> {
    if target.object["spec"]["paused"] == true {
        return Err(Error::client(format!(
            "can't restart paused deployment (run rollout resume first): {}",
            target.name
        )));
    }
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let patch = json!({"spec": {"template": {"metadata": {"annotations": {RESTARTED: now}}}}});
    let mut object = target.object.clone();
    if !args.write.client_only() {
        let call = Call::patch(target.path(), STRATEGIC, &patch);
        object = session.json(args.write.call(call, "kubectl-rollout")).await?;
    }
    args.write.tell(session, &Found { object, ..target }, "restarted")
}

async fn pause(session: &Session, args: &CommonArgs, target: Found, paused: bool) -> Result<()> {
    let done = if paused { "paused" } else { "resumed" };
    if (target.object["spec"]["paused"] == true) == paused {
        let why = if paused { "is already paused" } else { "is not paused" };
        return Err(Error::client(format!("deployments.apps {:?} {why}", target.name)));
    }
    let mut object = target.object.clone();
    if !args.write.client_only() {
        let call = Call::patch(target.path(), MERGE, &json!({"spec": {"paused": paused}}));
        object = session.json(args.write.call(call, "kubectl-rollout")).await?;
    }
    args.write.tell(session, &Found { object, ..target }, done)
}
