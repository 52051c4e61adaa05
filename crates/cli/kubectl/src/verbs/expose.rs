//! `expose`: a Service for what selects pods.

use clap::Args;
use serde_json::{Value, json};

use super::create;
use super::write::WriteArgs;
use crate::discovery::{items, text};
use crate::error::{Error, Result};
use crate::session::Session;
use crate::targets::{self, Files, Selectors};

/// Flags of `expose`.
#[derive(Clone, Debug, Default, Args)]
pub struct ExposeArgs {
    /// TYPE NAME or TYPE/NAME.
    pub words: Vec<String>,
    /// The object in a file.
    #[command(flatten)]
    pub files: Files,
    /// How to write.
    #[command(flatten)]
    pub write: WriteArgs,
    /// Name of the Service [default: that of the object].
    #[arg(long)]
    pub name: Option<String>,
    /// Port of the Service [default: those of the containers].
    #[arg(long)]
    pub port: Option<u16>,
    /// Port of the pods, by number or name [default: --port].
    #[arg(long)]
    pub target_port: Option<String>,
    /// TCP, UDP or SCTP.
    #[arg(long, default_value = "TCP")]
    pub protocol: String,
    /// ClusterIP, NodePort or LoadBalancer.
    #[arg(long = "type", default_value = "ClusterIP")]
    pub kind: String,
    /// Address, or None for a headless Service.
    #[arg(long)]
    pub cluster_ip: Option<String>,
}

/// Runs `expose`.
pub async fn run(session: &Session, args: ExposeArgs) -> Result<i32> {
    for target in targets::find(session, &args.words, &args.files, &Selectors::default()).await? {
        let selector = if target.resource.kind == "Pod" {
            &target.object["metadata"]["labels"]
        } else if target.object["spec"]["selector"]["matchLabels"].is_object() {
            &target.object["spec"]["selector"]["matchLabels"]
        } else {
            &target.object["spec"]["selector"]
        };
        if selector.as_object().is_none_or(serde_json::Map::is_empty) {
            return Err(Error::client(format!(
                "couldn't retrieve selectors via --selector flag or introspection: {} has none",
                target.label()
            )));
        }
        let mut spec =
            json!({"type": args.kind, "selector": selector, "ports": ports(&args, &target.object)?});
        if let Some(address) = &args.cluster_ip {
            spec["clusterIP"] = address.clone().into();
        }
        let name = args.name.clone().unwrap_or_else(|| target.name.clone());
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "spec": spec,
            "metadata": {"name": name, "namespace": target.namespace, "labels": target.object["metadata"]["labels"]},
        });
        create::create(session, service, &args.write, "exposed").await?;
    }
    Ok(0)
}

fn ports(args: &ExposeArgs, object: &Value) -> Result<Vec<Value>> {
    let target = |number: u16| match &args.target_port {
        Some(port) => port.parse::<u16>().map_or_else(|_| Value::from(port.clone()), Value::from),
        None => number.into(),
    };
    if let Some(port) = args.port {
        return Ok(vec![json!({"port": port, "targetPort": target(port), "protocol": args.protocol})]);
    }
    let template = object.pointer("/spec/template/spec").unwrap_or(&object["spec"]);
    let mut ports = Vec::new();
    for port in items(&template["containers"]).flat_map(|c| items(&c["ports"])) {
        let number = port["containerPort"].as_u64().and_then(|n| u16::try_from(n).ok()).unwrap_or(0);
        let protocol = port["protocol"].as_str().unwrap_or(&args.protocol);
        ports.push(json!({"port": number, "targetPort": target(number), "protocol": protocol}));
    }
    let several = ports.len() > 1;
    for (at, port) in ports.iter_mut().enumerate().filter(|_| several) {
        port["name"] = format!("port-{}", at + 1).into();
    }
    if ports.is_empty() {
        let name = text(&object["metadata"]["name"]);
        return Err(Error::client(format!(
            "couldn't find port via --port flag or introspection of {name:?}"
        )));
    }
    Ok(ports)
}
