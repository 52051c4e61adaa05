//! `run`: a pod with one container.

use clap::Args;
use serde_json::{Map, Value, json};

use super::create;
use super::write::WriteArgs;
use crate::error::{Error, Result};
use crate::session::Session;

/// Flags of `run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Name of the pod and of its container.
    pub name: String,
    /// Words before `--`; taken as arguments too, as upstream does.
    pub words: Vec<String>,
    /// How to write.
    #[command(flatten)]
    pub write: WriteArgs,
    /// Image of the container.
    #[arg(long)]
    pub image: String,
    /// Always, OnFailure or Never.
    #[arg(long, default_value = "Always")]
    pub restart: String,
    /// Always, IfNotPresent or Never.
    #[arg(long)]
    pub image_pull_policy: Option<String>,
    /// NAME=VALUE.
    #[arg(long)]
    pub env: Vec<String>,
    /// KEY=VALUE,...
    #[arg(short = 'l', long, value_delimiter = ',')]
    pub labels: Vec<String>,
    /// Port of the container.
    #[arg(long)]
    pub port: Option<u16>,
    /// The words after `--` are the command, not its arguments.
    #[arg(long)]
    pub command: bool,
    /// Not supported: use create, then exec.
    #[arg(short = 'i', long)]
    pub stdin: bool,
    /// Not supported: use create, then exec.
    #[arg(short = 't', long)]
    pub tty: bool,
    /// Not supported without -i.
    #[arg(long)]
    pub rm: bool,
    /// Arguments of the container.
    #[arg(last = true)]
    pub args: Vec<String>,
}

/// Runs `run`.
pub async fn run(session: &Session, args: RunArgs) -> Result<i32> {
    if args.stdin || args.tty || args.rm {
        return Err(Error::client(
            "--stdin, --tty and --rm are not supported: run the pod, then kubectl exec -it it",
        ));
    }
    if !["Always", "OnFailure", "Never"].contains(&args.restart.as_str()) {
        return Err(Error::client(format!("invalid restart policy: {}", args.restart)));
    }
    let mut container = json!({"name": args.name, "image": args.image});
    let words: Vec<String> = args.words.iter().chain(&args.args).cloned().collect();
    if !words.is_empty() {
        container[if args.command { "command" } else { "args" }] = words.into();
    }
    if let Some(policy) = &args.image_pull_policy {
        container["imagePullPolicy"] = policy.clone().into();
    }
    if let Some(port) = args.port {
        container["ports"] = json!([{"containerPort": port}]);
    }
    let env = pairs("--env", &args.env)?;
    if !env.is_empty() {
        container["env"] = env.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    }
    let mut labels: Map<String, Value> = pairs("--labels", &args.labels)?.into_iter().collect();
    if labels.is_empty() {
        labels.insert("run".into(), args.name.clone().into());
    }
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": args.name, "labels": labels},
        "spec": {"containers": [container], "restartPolicy": args.restart},
    });
    create::create(session, pod, &args.write, "created").await?;
    Ok(0)
}

fn pairs(flag: &str, list: &[String]) -> Result<Vec<(String, Value)>> {
    let split = |pair: &String| {
        let (key, value) = pair.split_once('=')?;
        Some((key.to_owned(), Value::from(value)))
    };
    list.iter()
        .map(|p| split(p).ok_or_else(|| Error::client(format!("{flag} {p:?}: expected KEY=VALUE"))))
        .collect()
}
