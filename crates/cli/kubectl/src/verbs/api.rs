//! `api-resources`, `api-versions`, `cluster-info` and `version`.

use clap::Args;
use serde_json::json;

use crate::discovery::text;
use crate::error::{Error, Result};
use crate::output::tabs::{TABLE, align};
use crate::output::{json_text, yaml};
use crate::session::{Call, Session};

/// Flags of `api-resources`.
#[derive(Clone, Debug, Default, Args)]
pub struct ResourcesArgs {
    /// Only of this group.
    #[arg(long)]
    pub api_group: Option<String>,
    /// Only those in namespaces, or only those not.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub namespaced: Option<bool>,
    /// Only those with these verbs.
    #[arg(long, value_delimiter = ',')]
    pub verbs: Vec<String>,
    /// wide or name.
    #[arg(short = 'o', long)]
    pub output: Option<String>,
    /// No header line.
    #[arg(long)]
    pub no_headers: bool,
}

/// Flags of `version`.
#[derive(Clone, Debug, Default, Args)]
pub struct VersionArgs {
    /// Do not ask the server.
    #[arg(long)]
    pub client: bool,
    /// yaml or json.
    #[arg(short = 'o', long)]
    pub output: Option<String>,
}

/// Runs `api-resources`.
pub async fn resources(session: &Session, args: ResourcesArgs) -> Result<i32> {
    let discovery = session.discovery().await?;
    let mut all: Vec<_> = discovery
        .preferred()
        .filter(|r| args.api_group.as_ref().is_none_or(|group| r.group == *group))
        .filter(|r| args.namespaced.is_none_or(|namespaced| r.namespaced == namespaced))
        .filter(|r| args.verbs.iter().all(|verb| r.verbs.contains(verb)))
        .collect();
    all.sort_by(|l, r| (&l.group, &l.plural).cmp(&(&r.group, &r.plural)));
    let wide = match args.output.as_deref() {
        Some("name") => {
            let names: String = all.iter().map(|r| r.full_name() + "\n").collect();
            session.print(names)?;
            return Ok(0);
        }
        Some("wide") => true,
        None => false,
        Some(other) => {
            return Err(Error::client(format!("--output {other} is not available: use wide or name")));
        }
    };
    let mut out = String::new();
    if !args.no_headers {
        out.push_str("NAME\tSHORTNAMES\tAPIVERSION\tNAMESPACED\tKIND");
        out.push_str(if wide { "\tVERBS\tCATEGORIES\n" } else { "\n" });
    }
    for r in all {
        let mut cells = vec![
            r.plural.clone(),
            r.short_names.join(","),
            r.api_version(),
            r.namespaced.to_string(),
            r.kind.clone(),
        ];
        if wide {
            cells.extend([r.verbs.join(","), r.categories.join(",")]);
        }
        out.push_str(&cells.join("\t"));
        out.push('\n');
    }
    session.print(align(&out, TABLE))?;
    Ok(0)
}

/// Runs `api-versions`.
pub async fn versions(session: &Session) -> Result<i32> {
    let discovery = session.discovery().await?;
    let name = |(group, version): &(String, String)| {
        if group.is_empty() { version.clone() } else { format!("{group}/{version}") }
    };
    let mut versions: Vec<String> = discovery.versions.iter().map(name).collect();
    versions.sort();
    session.line(versions.join("\n"))?;
    Ok(0)
}

/// Runs `cluster-info`.
pub fn cluster_info(session: &Session) -> Result<i32> {
    session.line(format!("Kubernetes control plane is running at {}", session.server))?;
    Ok(0)
}

/// Runs `version`.
pub async fn version(session: &Session, args: VersionArgs) -> Result<i32> {
    let client = concat!("v", env!("CARGO_PKG_VERSION"), "+xebec");
    let server = if args.client { None } else { Some(session.json(Call::get("/version")).await) };
    match args.output.as_deref() {
        None => {
            session.line(format!("Client Version: {client}"))?;
            if let Some(Ok(server)) = &server {
                session.line(format!("Server Version: {}", text(&server["gitVersion"])))?;
            }
        }
        Some(format @ ("yaml" | "json")) => {
            let mut both = json!({"clientVersion": {"gitVersion": client}});
            if let Some(Ok(server)) = &server {
                both["serverVersion"] = server.clone();
            }
            session.print(if format == "yaml" { yaml(&both)? } else { json_text(&both)? })?;
        }
        Some(_) => return Err(Error::client("--output must be 'yaml' or 'json'")),
    }
    match server {
        Some(Err(error)) => Err(error),
        _ => Ok(0),
    }
}
