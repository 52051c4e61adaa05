//! `patch`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::write::{JSON, MERGE, STRATEGIC, WriteArgs};
use crate::error::{Error, Result};
use crate::session::{Call, Session};
use crate::targets::{self, Files, Found, Selectors};

/// The kinds of patches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PatchType {
    /// Strategic merge patch.
    #[default]
    Strategic,
    /// Merge patch (RFC 7386).
    Merge,
    /// JSON patch (RFC 6902).
    Json,
}

/// Flags of `patch`.
#[derive(Clone, Debug, Default, Args)]
pub struct PatchArgs {
    /// TYPE NAME or TYPE/NAME.
    pub words: Vec<String>,
    /// The object in a file.
    #[command(flatten)]
    pub files: Files,
    /// How to write.
    #[command(flatten)]
    pub write: WriteArgs,
    /// The patch, as JSON or YAML.
    #[arg(short = 'p', long)]
    pub patch: Option<String>,
    /// A file with the patch.
    #[arg(long)]
    pub patch_file: Option<PathBuf>,
    /// What kind of patch it is.
    #[arg(long = "type", value_enum, default_value = "strategic")]
    pub kind: PatchType,
    /// Subresource to patch, such as status.
    #[arg(long)]
    pub subresource: Option<String>,
}

/// Runs `patch`.
pub async fn run(session: &Session, args: PatchArgs) -> Result<i32> {
    let text = match (&args.patch, &args.patch_file) {
        (Some(text), None) => text.clone(),
        (None, Some(path)) => {
            std::fs::read_to_string(path).map_err(|source| Error::File { path: path.clone(), source })?
        }
        (Some(_), Some(_)) => return Err(Error::client("cannot specify --patch and --patch-file together")),
        (None, None) => {
            return Err(Error::client(
                "must specify --patch or --patch-file containing the contents of the patch",
            ));
        }
    };
    let patch: Value = serde_yaml_ng::from_str(&text)
        .map_err(|e| Error::client(format!("unable to parse {text:?}: {e}")))?;
    if args.write.client_only() {
        return Err(Error::client("--dry-run=client is not supported by patch: use --dry-run=server"));
    }
    let content_type = match args.kind {
        PatchType::Strategic => STRATEGIC,
        PatchType::Merge => MERGE,
        PatchType::Json => JSON,
    };
    for target in targets::find(session, &args.words, &args.files, &Selectors::default()).await? {
        let path = match &args.subresource {
            Some(sub) => format!("{}/{sub}", target.path()),
            None => target.path(),
        };
        let call = args.write.call(Call::patch(path, content_type, &patch), "kubectl-patch");
        let object = session.json(call).await?;
        let same = object["metadata"]["resourceVersion"] == target.object["metadata"]["resourceVersion"];
        args.write.tell(
            session,
            &Found { object, ..target },
            if same { "patched (no change)" } else { "patched" },
        )?;
    }
    Ok(0)
}
