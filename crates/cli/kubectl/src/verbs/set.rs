//! `set image`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::write::{STRATEGIC, WriteArgs};
use crate::discovery::{items, text};
use crate::error::{Error, Result};
use crate::session::{Call, Session};
use crate::targets::{self, Files, Found, Selectors};

/// Flags of `set`.
#[derive(Clone, Debug, Args)]
pub struct SetArgs {
    /// What to set.
    #[command(subcommand)]
    pub what: What,
}

/// What can be set.
#[derive(Clone, Debug, Subcommand)]
pub enum What {
    /// The images of containers.
    Image(ImageArgs),
}

/// Flags of `set image`.
#[derive(Clone, Debug, Default, Args)]
pub struct ImageArgs {
    /// TYPE NAME or TYPE/NAME, then CONTAINER=IMAGE...; `*` is every container.
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
}

/// Runs `set`.
pub async fn run(session: &Session, args: SetArgs) -> Result<i32> {
    let What::Image(args) = args.what;
    let (pairs, words): (Vec<&String>, Vec<&String>) = args.words.iter().partition(|word| word.contains('='));
    if pairs.is_empty() {
        return Err(Error::client("at least one image update is required"));
    }
    let words: Vec<String> = words.into_iter().cloned().collect();
    for target in targets::find(session, &words, &args.files, &args.selectors).await? {
        let template = if target.resource.kind == "Pod" { "/spec" } else { "/spec/template/spec" };
        let spec = target.object.pointer(template).cloned().unwrap_or_default();
        let mut patch = json!({});
        for pair in &pairs {
            let (name, image) = pair.split_once('=').unwrap_or((pair, ""));
            set(&spec, name, image, &mut patch).ok_or_else(|| {
                Error::client(format!("unable to find container named {name:?} in {}", target.label()))
            })?;
        }
        if !args.write.client_only() && patch != json!({}) {
            let body = if target.resource.kind == "Pod" {
                json!({"spec": patch})
            } else {
                json!({"spec": {"template": {"spec": patch}}})
            };
            let call = Call::patch(target.path(), STRATEGIC, &body);
            let object = session.json(args.write.call(call, "kubectl-set")).await?;
            args.write.tell(session, &Found { object, ..target }, "image updated")?;
        } else if patch != json!({}) {
            args.write.tell(session, &target, "image updated")?;
        }
    }
    Ok(0)
}

/// Adds what changes to the patch; `None` when there is no such container.
fn set(spec: &Value, name: &str, image: &str, patch: &mut Value) -> Option<()> {
    let mut found = None;
    for list in ["initContainers", "containers"] {
        for container in items(&spec[list]).filter(|c| name == "*" || c["name"] == name) {
            found = Some(());
            if container["image"] == image {
                continue;
            }
            let change = json!({"name": text(&container["name"]), "image": image});
            match patch[list].as_array_mut() {
                Some(all) => all.push(change),
                None => patch[list] = json!([change]),
            }
        }
    }
    found
}
