//! `create`: from files, or the common kinds from flags.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::apply::field_validation;
use super::write::WriteArgs;
use crate::discovery::text;
use crate::error::{Error, Result};
use crate::manifest::Document;
use crate::session::{Call, Session};
use crate::targets::{Files, Found};

/// Flags of `create`.
#[derive(Clone, Debug, Default, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct CreateArgs {
    /// Objects in files.
    #[command(flatten)]
    pub files: Files,
    /// How to write.
    #[command(flatten)]
    pub write: WriteArgs,
    /// How to treat unknown fields: strict, warn or ignore.
    #[arg(long, default_value = "strict", num_args = 0..=1, default_missing_value = "strict")]
    pub validate: String,
    /// Remember the configuration for a later apply.
    #[arg(long)]
    pub save_config: bool,
    /// A kind to make from flags.
    #[command(subcommand)]
    pub kind: Option<Kind>,
}

/// Kinds that flags can make.
#[derive(Clone, Debug, Subcommand)]
pub enum Kind {
    /// A namespace.
    #[command(visible_alias = "ns")]
    Namespace(Named),
    /// A service account.
    #[command(name = "serviceaccount", visible_alias = "sa")]
    ServiceAccount(Named),
    /// A config map.
    #[command(name = "configmap", visible_alias = "cm")]
    ConfigMap(Data),
    /// A secret.
    Secret {
        /// Which kind of secret.
        #[command(subcommand)]
        kind: SecretKind,
    },
    /// A deployment.
    #[command(visible_alias = "deploy")]
    Deployment(DeploymentArgs),
    /// A service.
    #[command(visible_alias = "svc")]
    Service {
        /// Which type of service.
        #[command(subcommand)]
        kind: ServiceKind,
    },
}

/// Kinds of secrets.
#[derive(Clone, Debug, Subcommand)]
pub enum SecretKind {
    /// From literals and files.
    Generic(Data),
}

/// Types of services.
#[derive(Clone, Debug, Subcommand)]
pub enum ServiceKind {
    /// Reached inside the cluster.
    #[command(name = "clusterip")]
    ClusterIp(ServiceArgs),
    /// Reached at every node.
    #[command(name = "nodeport")]
    NodePort(ServiceArgs),
}

/// A name, and how to write.
#[derive(Clone, Debug, Args)]
pub struct Named {
    /// Name.
    pub name: String,
    /// How to write.
    #[command(flatten)]
    pub write: WriteArgs,
}

/// Where the values of config maps and secrets come from.
#[derive(Clone, Debug, Args)]
pub struct Data {
    /// Name and how to write.
    #[command(flatten)]
    pub named: Named,
    /// KEY=VALUE.
    #[arg(long)]
    pub from_literal: Vec<String>,
    /// [KEY=]FILE, or a directory.
    #[arg(long)]
    pub from_file: Vec<String>,
    /// A file of KEY=VALUE lines.
    #[arg(long)]
    pub from_env_file: Vec<PathBuf>,
    /// Type of a secret.
    #[arg(long = "type")]
    pub kind: Option<String>,
}

/// Flags of `create deployment`.
#[derive(Clone, Debug, Args)]
pub struct DeploymentArgs {
    /// Name and how to write.
    #[command(flatten)]
    pub named: Named,
    /// Images, one container each.
    #[arg(long, required = true, value_delimiter = ',')]
    pub image: Vec<String>,
    /// Number of pods.
    #[arg(short = 'r', long, default_value_t = 1)]
    pub replicas: u32,
    /// Port of the container.
    #[arg(long)]
    pub port: Option<u16>,
    /// Command of the container.
    #[arg(last = true)]
    pub command: Vec<String>,
}

/// Flags of `create service`.
#[derive(Clone, Debug, Args)]
pub struct ServiceArgs {
    /// Name and how to write.
    #[command(flatten)]
    pub named: Named,
    /// PORT[:TARGET].
    #[arg(long, value_delimiter = ',')]
    pub tcp: Vec<String>,
    /// Address, or None for a headless service.
    #[arg(long)]
    pub clusterip: Option<String>,
    /// Port of the nodes.
    #[arg(long)]
    pub node_port: Option<u16>,
}

/// Runs `create`.
pub async fn run(session: &Session, args: CreateArgs) -> Result<i32> {
    let Some(kind) = args.kind else {
        return from_files(session, &args.files, &args.write, &args.validate, args.save_config).await;
    };
    let (object, write) = match kind {
        Kind::Namespace(named) => (object("v1", "Namespace", &named.name), named.write),
        Kind::ServiceAccount(named) => (object("v1", "ServiceAccount", &named.name), named.write),
        Kind::ConfigMap(data) => (config_map(&data)?, data.named.write),
        Kind::Secret { kind: SecretKind::Generic(data) } => (secret(&data)?, data.named.write),
        Kind::Deployment(args) => (deployment(&args)?, args.named.write),
        Kind::Service { kind: ServiceKind::ClusterIp(args) } => {
            (service(&args, "ClusterIP")?, args.named.write)
        }
        Kind::Service { kind: ServiceKind::NodePort(args) } => {
            (service(&args, "NodePort")?, args.named.write)
        }
    };
    create(session, object, &write, "created").await?;
    Ok(0)
}

async fn from_files(
    session: &Session,
    files: &Files,
    write: &WriteArgs,
    validate: &str,
    save: bool,
) -> Result<i32> {
    let validation = field_validation(validate)?;
    let mut failed = false;
    for document in files.read(session).await? {
        let result = async {
            let mut found = document.locate(session).await?;
            if save {
                super::apply::annotate(&mut found.object)?;
            }
            let doing = format!("error when creating {:?}", document.source);
            post(session, found, write, validation, "created").await.map_err(|e| e.doing(doing))
        };
        if let Err(error) = result.await {
            session.warn(error.to_string())?;
            failed = true;
        }
    }
    Ok(i32::from(failed))
}

/// Creates an object that flags described.
pub async fn create(session: &Session, object: Value, write: &WriteArgs, done: &str) -> Result<Found> {
    let found = Document { source: "flags".into(), object }.locate(session).await?;
    post(session, found, write, "Strict", done).await
}

async fn post(
    session: &Session,
    found: Found,
    write: &WriteArgs,
    validation: &str,
    done: &str,
) -> Result<Found> {
    let mut object = found.object.clone();
    if !write.client_only() {
        let path = found.resource.collection(found.namespace.as_deref());
        let call =
            write.call(Call::post(path, &object), "kubectl-create").query("fieldValidation", validation);
        object = session.json(call).await?;
    }
    let name = text(&object["metadata"]["name"]);
    let created = Found { name, object, ..found };
    write.tell(session, &created, done)?;
    Ok(created)
}

fn object(api_version: &str, kind: &str, name: &str) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}})
}

fn config_map(data: &Data) -> Result<Value> {
    if data.kind.is_some() {
        return Err(Error::client("unknown flag: --type"));
    }
    let (mut texts, mut binaries) = (Map::new(), Map::new());
    for (key, bytes) in values(data)? {
        match String::from_utf8(bytes) {
            Ok(text) => texts.insert(key, text.into()),
            Err(binary) => binaries.insert(key, STANDARD.encode(binary.as_bytes()).into()),
        };
    }
    let mut map = object("v1", "ConfigMap", &data.named.name);
    for (field, values) in [("data", texts), ("binaryData", binaries)] {
        if !values.is_empty() {
            map[field] = values.into();
        }
    }
    Ok(map)
}

fn secret(data: &Data) -> Result<Value> {
    let mut secret = object("v1", "Secret", &data.named.name);
    let values: Map<String, Value> =
        values(data)?.into_iter().map(|(key, bytes)| (key, STANDARD.encode(bytes).into())).collect();
    if !values.is_empty() {
        secret["data"] = values.into();
    }
    if let Some(kind) = &data.kind {
        secret["type"] = kind.clone().into();
    }
    Ok(secret)
}

fn values(data: &Data) -> Result<Vec<(String, Vec<u8>)>> {
    let mut all = Vec::new();
    for literal in &data.from_literal {
        let (key, value) = literal
            .split_once('=')
            .ok_or_else(|| Error::client(format!("invalid literal source {literal}, expected key=value")))?;
        all.push((key.to_owned(), value.as_bytes().to_vec()));
    }
    for spec in &data.from_file {
        let (key, path) = match spec.split_once('=') {
            Some((key, path)) => (Some(key.to_owned()), PathBuf::from(path)),
            None => (None, PathBuf::from(spec)),
        };
        let file = |source| Error::File { path: path.clone(), source };
        let mut paths = vec![path.clone()];
        if path.is_dir() {
            let entries = std::fs::read_dir(&path).map_err(file)?;
            paths = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
            paths.sort();
        }
        for path in paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let bytes = std::fs::read(&path).map_err(|source| Error::File { path: path.clone(), source })?;
            all.push((key.clone().unwrap_or(name), bytes));
        }
    }
    for path in &data.from_env_file {
        let text =
            std::fs::read_to_string(path).map_err(|source| Error::File { path: path.clone(), source })?;
        let lines =
            text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'));
        for line in lines {
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            all.push((key.to_owned(), value.as_bytes().to_vec()));
        }
    }
    Ok(all)
}

fn deployment(args: &DeploymentArgs) -> Result<Value> {
    if args.image.len() > 1 && !args.command.is_empty() {
        return Err(Error::client("cannot specify multiple --image options and command"));
    }
    let name = &args.named.name;
    let mut containers = Vec::new();
    for image in &args.image {
        let mut container = json!({"name": container_name(image), "image": image});
        if !args.command.is_empty() {
            container["command"] = args.command.clone().into();
        }
        if let Some(port) = args.port {
            container["ports"] = json!([{"containerPort": port}]);
        }
        containers.push(container);
    }
    let labels = json!({"app": name});
    Ok(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": args.replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
        },
    }))
}

/// A container is called as its image, without registry and tag.
fn container_name(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    let name = last.split(['@', ':']).next().unwrap_or(last);
    name.to_lowercase().replace(['_', '.'], "-")
}

fn service(args: &ServiceArgs, kind: &str) -> Result<Value> {
    let name = &args.named.name;
    let headless = args.clusterip.as_deref() == Some("None");
    if args.tcp.is_empty() && !headless {
        return Err(Error::client("at least one tcp port specifier must be provided"));
    }
    let mut ports = Vec::new();
    for spec in &args.tcp {
        let (port, target) = spec.split_once(':').unwrap_or((spec, spec));
        let number: u16 =
            port.parse().map_err(|_| Error::client(format!("invalid port {port:?} in --tcp={spec}")))?;
        let target = target.parse::<u16>().map_or_else(|_| Value::from(target), Value::from);
        let name = spec.replace(':', "-");
        let mut entry = json!({"name": name, "port": number, "targetPort": target, "protocol": "TCP"});
        if let Some(port) = args.node_port {
            entry["nodePort"] = port.into();
        }
        ports.push(entry);
    }
    let labels = json!({"app": name});
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "labels": labels},
        "spec": {"type": kind, "selector": labels, "ports": ports},
    });
    if let Some(address) = &args.clusterip {
        service["spec"]["clusterIP"] = address.clone().into();
    }
    Ok(service)
}
