//! `replace`: objects as files say, whole.

use clap::Args;
use serde_json::Value;

use super::write::WriteArgs;
use crate::error::{Error, Result};
use crate::session::{Call, Session};
use crate::targets::{Files, Found};

/// Flags of `replace`.
#[derive(Clone, Debug, Default, Args)]
pub struct ReplaceArgs {
    /// The new objects.
    #[command(flatten)]
    pub files: Files,
    /// How to write.
    #[command(flatten)]
    pub write: WriteArgs,
    /// Not supported: delete and create instead.
    #[arg(long)]
    pub force: bool,
}

/// Runs `replace`.
pub async fn run(session: &Session, args: ReplaceArgs) -> Result<i32> {
    if args.force {
        return Err(Error::client("--force is not supported: use kubectl delete, then kubectl create"));
    }
    for document in args.files.read(session).await? {
        let mut found = document.locate(session).await?;
        if !args.write.client_only() {
            if found.object["metadata"]["resourceVersion"] == Value::Null {
                let now = session.json(Call::get(found.path())).await?;
                found.object["metadata"]["resourceVersion"] = now["metadata"]["resourceVersion"].clone();
            }
            let call = args.write.call(Call::put(found.path(), &found.object), "kubectl-replace");
            let doing = format!("error when replacing {:?}", document.source);
            found = Found { object: session.json(call).await.map_err(|e| e.doing(doing))?, ..found };
        }
        args.write.tell(session, &found, "replaced")?;
    }
    Ok(0)
}
