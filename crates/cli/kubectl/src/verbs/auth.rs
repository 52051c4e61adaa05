//! `auth can-i` and `auth whoami`.

use clap::{Args, Subcommand};
use serde_json::json;

use crate::discovery::{items, text};
use crate::error::Result;
use crate::output::tabs::{TABLE, align};
use crate::session::{Call, Session};

/// Flags of `auth`.
#[derive(Clone, Debug, Args)]
pub struct AuthArgs {
    /// What to ask.
    #[command(subcommand)]
    pub what: Question,
}

/// What can be asked.
#[derive(Clone, Debug, Subcommand)]
pub enum Question {
    /// Whether an action is allowed.
    CanI {
        /// Verb, such as get.
        verb: String,
        /// TYPE or TYPE/NAME, or a path such as /logs.
        resource: String,
        /// Name of one object.
        name: Option<String>,
        /// Subresource, such as log.
        #[arg(long)]
        subresource: Option<String>,
        /// In all namespaces.
        #[arg(short = 'A', long)]
        all_namespaces: bool,
        /// Only the exit code.
        #[arg(short = 'q', long)]
        quiet: bool,
    },
    /// Who the server takes the caller for.
    Whoami,
}

/// Runs `auth`.
pub async fn run(session: &Session, args: AuthArgs) -> Result<i32> {
    let (verb, resource, name, subresource, all, quiet) = match args.what {
        Question::Whoami => return whoami(session).await,
        Question::CanI { verb, resource, name, subresource, all_namespaces, quiet } => {
            (verb, resource, name, subresource, all_namespaces, quiet)
        }
    };
    let spec = if resource.starts_with('/') {
        json!({"nonResourceAttributes": {"verb": verb, "path": resource}})
    } else {
        let (called, below) = resource.split_once('/').unwrap_or((&resource, ""));
        let found = session.discovery().await?.find(called);
        if found.is_none() && called != "*" {
            session.warn(format!("Warning: the server doesn't have a resource type '{called}'"))?;
        }
        let namespaced = found.as_ref().is_none_or(|r| r.namespaced);
        let namespace = if all || !namespaced { "" } else { session.namespace.as_str() };
        let name = name.unwrap_or_else(|| below.to_owned());
        json!({"resourceAttributes": {
            "verb": verb, "namespace": namespace, "name": name, "subresource": subresource,
            "group": found.as_ref().map_or("", |r| &r.group),
            "resource": found.as_ref().map_or(called, |r| &r.plural),
        }})
    };
    let review =
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": spec});
    let answer =
        session.json(Call::post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &review)).await?;
    let allowed = answer["status"]["allowed"] == true;
    if !quiet {
        let reason = text(&answer["status"]["reason"]);
        let why = if reason.is_empty() { String::new() } else { format!(" - {reason}") };
        session.line(if allowed { "yes".to_owned() } else { format!("no{why}") })?;
    }
    Ok(i32::from(!allowed))
}

async fn whoami(session: &Session) -> Result<i32> {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let answer =
        session.json(Call::post("/apis/authentication.k8s.io/v1/selfsubjectreviews", &review)).await?;
    let user = &answer["status"]["userInfo"];
    let groups: Vec<String> = items(&user["groups"]).map(text).collect();
    let rows =
        format!("ATTRIBUTE\tVALUE\nUsername\t{}\nGroups\t[{}]\n", text(&user["username"]), groups.join(" "));
    session.print(align(&rows, TABLE))?;
    Ok(0)
}
