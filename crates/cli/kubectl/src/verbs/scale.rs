//! `scale`.

use clap::Args;
use serde_json::json;

use super::write::{MERGE, WriteArgs};
use crate::error::{Error, Result};
use crate::session::{Call, Session};
use crate::targets::{self, Files, Selectors};

/// Flags of `scale`.
#[derive(Clone, Debug, Default, Args)]
pub struct ScaleArgs {
    /// TYPE NAME... or TYPE/NAME...
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
    /// The number of replicas.
    #[arg(long)]
    pub replicas: u32,
    /// Only when there are so many now.
    #[arg(long)]
    pub current_replicas: Option<u32>,
}

/// Runs `scale`.
pub async fn run(session: &Session, args: ScaleArgs) -> Result<i32> {
    for target in targets::find(session, &args.words, &args.files, &args.selectors).await? {
        let now = target.object["spec"]["replicas"].as_u64().unwrap_or(1);
        if let Some(expected) = args.current_replicas.map(u64::from).filter(|expected| *expected != now) {
            return Err(Error::client(format!("Expected replicas to be {expected}, was {now}")));
        }
        if !args.write.client_only() {
            let body = json!({"spec": {"replicas": args.replicas}});
            let call = Call::patch(format!("{}/scale", target.path()), MERGE, &body);
            session.json(args.write.call(call, "kubectl-scale")).await?;
        }
        args.write.tell(session, &target, "scaled")?;
    }
    Ok(0)
}
