//! `apply`: the three-way merge on the client's side, or server-side apply.

use clap::Args;
use serde_json::{Value, json};
use xebec_schema::builtin;

use super::write::{DryRun, MERGE, STRATEGIC, WriteArgs};
use crate::error::{Error, Result};
use crate::session::{Call, Session};
use crate::targets::{Files, Found};

/// Where the last applied configuration is remembered.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Owner of fields that were applied.
const MANAGER: &str = "kubectl-client-side-apply";
/// How often a patch is made anew when the object changes under it.
const TRIES: usize = 5;

/// Flags of `apply`.
#[derive(Clone, Debug, Default, Args)]
pub struct ApplyArgs {
    /// What to apply.
    #[command(flatten)]
    pub files: Files,
    /// How to write.
    #[command(flatten)]
    pub write: WriteArgs,
    /// Let the server merge.
    #[arg(long)]
    pub server_side: bool,
    /// Take fields from their owners (with --server-side).
    #[arg(long)]
    pub force_conflicts: bool,
    /// Only objects that match.
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// How to treat unknown fields: strict, warn or ignore.
    #[arg(long, default_value = "strict", num_args = 0..=1, default_missing_value = "strict")]
    pub validate: String,
    /// Not supported.
    #[arg(long)]
    pub prune: bool,
}

/// The server's word for `--validate`.
pub fn field_validation(validate: &str) -> Result<&'static str> {
    match validate {
        "strict" | "true" => Ok("Strict"),
        "warn" => Ok("Warn"),
        "ignore" | "false" => Ok("Ignore"),
        other => Err(Error::client(format!(
            "invalid - validate option {other:?}; must be one of: strict, warn, ignore"
        ))),
    }
}

/// Runs `apply`.
pub async fn run(session: &Session, args: ApplyArgs) -> Result<i32> {
    if args.prune {
        return Err(Error::client(
            "--prune is not supported: delete what is no longer wanted with kubectl delete",
        ));
    }
    if args.selector.is_some() {
        return Err(Error::client("--selector is not supported by apply: split the files instead"));
    }
    let validation = field_validation(&args.validate)?;
    let mut failed = false;
    for document in args.files.read(session).await? {
        // One bad object does not keep the others from being applied.
        let result = match document.locate(session).await {
            Ok(wanted) => apply(session, &args, wanted, validation).await,
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            session.warn(error.to_string())?;
            failed = true;
        }
    }
    Ok(i32::from(failed))
}

async fn apply(session: &Session, args: &ApplyArgs, wanted: Found, validation: &str) -> Result<()> {
    if wanted.name.is_empty() {
        return Err(Error::client("resource name may not be empty (generateName needs kubectl create)"));
    }
    if args.server_side {
        return server_side(session, args, wanted, validation).await;
    }
    let source = wanted.source.clone().unwrap_or_default();
    match session.json(Call::get(wanted.path())).await {
        Ok(current) => patch(session, args, wanted, current, validation).await,
        Err(error) if error.is_not_found() => {
            let mut object = wanted.object.clone();
            annotate(&mut object)?;
            let created = if args.write.client_only() {
                object
            } else {
                let path = wanted.resource.collection(wanted.namespace.as_deref());
                let call =
                    args.write.call(Call::post(path, &object), MANAGER).query("fieldValidation", validation);
                let doing = format!("error when creating {source:?}");
                session.json(call).await.map_err(|e| e.doing(doing))?
            };
            args.write.tell(session, &Found { object: created, ..wanted }, "created")
        }
        Err(error) => Err(error.doing(format!("error when retrieving current configuration of {source:?}"))),
    }
}

async fn patch(
    session: &Session,
    args: &ApplyArgs,
    wanted: Found,
    mut current: Value,
    validation: &str,
) -> Result<()> {
    let mut modified = wanted.object.clone();
    annotate(&mut modified)?;
    if current["metadata"]["annotations"][LAST_APPLIED].is_null() {
        session.warn(format!(
            "Warning: resource {} is missing the {LAST_APPLIED} annotation which is required by kubectl apply. \
             kubectl apply should only be used on resources created declaratively by either kubectl create \
             --save-config or kubectl apply. The missing annotation will be patched automatically.",
            wanted.resource.plural.clone() + "/" + &wanted.name
        ))?;
    }
    let doing = format!("error when applying patch to {:?}", wanted.source.clone().unwrap_or_default());
    for attempt in 1..=TRIES {
        let (patch, content_type) = difference(&wanted, &modified, &current)?;
        if patch.as_object().is_none_or(serde_json::Map::is_empty) {
            return args.write.tell(session, &Found { object: current, ..wanted }, "unchanged");
        }
        if args.write.client_only() {
            return args.write.tell(session, &Found { object: modified, ..wanted }, "configured");
        }
        let call = args.write.call(Call::patch(wanted.path(), content_type, &patch), MANAGER);
        match session.json(call.query("fieldValidation", validation)).await {
            Ok(after) => {
                let same = after["metadata"]["resourceVersion"] == current["metadata"]["resourceVersion"];
                let done =
                    if same && args.write.dry_run == DryRun::None { "unchanged" } else { "configured" };
                return args.write.tell(session, &Found { object: after, ..wanted }, done);
            }
            Err(error) if error.is_conflict() && attempt < TRIES => {
                current = session.json(Call::get(wanted.path())).await?;
            }
            Err(error) => return Err(error.doing(doing)),
        }
    }
    Err(Error::client(format!("{doing}: the object keeps changing")))
}

/// The patch from what was applied last, what is wanted and what is there; built-in kinds merge by their schema.
fn difference(wanted: &Found, modified: &Value, current: &Value) -> Result<(Value, &'static str)> {
    let remembered = current["metadata"]["annotations"][LAST_APPLIED].as_str();
    let original: Value = match remembered {
        Some(text) => serde_json::from_str(text)
            .map_err(|e| Error::client(format!("{}: annotation {LAST_APPLIED}: {e}", wanted.label())))?,
        None => json!({}),
    };
    let resource = &wanted.resource;
    Ok(match builtin(&resource.group, &resource.version, &resource.kind) {
        Some(schema) => (xebec_patch::three_way(&original, modified, current, &schema), STRATEGIC),
        None => (xebec_patch::three_way_json(&original, modified, current), MERGE),
    })
}

/// Remembers an object in its own annotation.
pub fn annotate(object: &mut Value) -> Result<()> {
    if let Some(annotations) = object["metadata"]["annotations"].as_object_mut() {
        annotations.remove(LAST_APPLIED);
    }
    let metadata =
        object["metadata"].as_object_mut().ok_or_else(|| Error::client("metadata is not an object"))?;
    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
    if annotations.is_null() {
        *annotations = json!({});
    }
    let remembered = format!("{object}\n");
    object["metadata"]["annotations"][LAST_APPLIED] = remembered.into();
    Ok(())
}

async fn server_side(session: &Session, args: &ApplyArgs, wanted: Found, validation: &str) -> Result<()> {
    if args.write.client_only() {
        return Err(Error::client(
            "--dry-run=client doesn't work with --server-side (did you mean --dry-run=server instead?)",
        ));
    }
    let call = Call::patch(wanted.path(), "application/apply-patch+yaml", &wanted.object)
        .query("force", args.force_conflicts.to_string())
        .query("fieldValidation", validation);
    let after = session.json(args.write.call(call, "kubectl")).await?;
    args.write.tell(session, &Found { object: after, ..wanted }, "serverside-applied")
}
