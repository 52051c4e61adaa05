//! `config`: a look at the kubeconfig, and the choice of a context.

use clap::{Args, Subcommand};
use kube::config::Kubeconfig;
use serde_json::Value;

use crate::cmdline::Globals;
use crate::error::{Error, Result};
use crate::kubeconfig;
use crate::output::tabs::{TABLE, align};
use crate::output::yaml;

/// Flags of `config`.
#[derive(Clone, Debug, Args)]
pub struct ConfigArgs {
    /// What to do.
    #[command(subcommand)]
    pub what: Action,
}

/// What can be done.
#[derive(Clone, Debug, Subcommand)]
pub enum Action {
    /// Show the merged kubeconfig.
    View {
        /// With keys and certificates.
        #[arg(long)]
        raw: bool,
    },
    /// Show the name of the current context.
    CurrentContext,
    /// List the contexts.
    GetContexts,
    /// Choose the current context.
    #[command(visible_alias = "use")]
    UseContext {
        /// Its name.
        name: String,
    },
}

/// Runs `config`; it needs no cluster.
pub fn run(globals: &Globals, args: &ConfigArgs) -> Result<i32> {
    let config = kubeconfig::load(globals)?;
    match &args.what {
        Action::View { raw } => print!("{}", view(&config, *raw)?),
        Action::CurrentContext => match &config.current_context {
            Some(name) => println!("{name}"),
            None => return Err(Error::client("current-context is not set")),
        },
        Action::GetContexts => print!("{}", contexts(&config)),
        Action::UseContext { name } => return choose(globals, name),
    }
    Ok(0)
}

fn view(config: &Kubeconfig, raw: bool) -> Result<String> {
    let mut value = serde_json::to_value(config).map_err(|e| Error::client(format!("kubeconfig: {e}")))?;
    if !raw {
        for (list, item, secrets) in [
            ("clusters", "cluster", &["certificate-authority-data"][..]),
            ("users", "user", &["client-certificate-data", "client-key-data", "token", "password"][..]),
        ] {
            for entry in value[list].as_array_mut().into_iter().flatten() {
                for secret in secrets {
                    if let Some(held) = entry[item].get_mut(*secret).filter(|held| !held.is_null()) {
                        let omitted =
                            if secret.contains("certificate") { "DATA+OMITTED" } else { "REDACTED" };
                        *held = Value::from(omitted);
                    }
                }
            }
        }
    }
    yaml(&value)
}

fn contexts(config: &Kubeconfig) -> String {
    let mut out = "CURRENT\tNAME\tCLUSTER\tAUTHINFO\tNAMESPACE\n".to_owned();
    for named in &config.contexts {
        let current = if config.current_context.as_ref() == Some(&named.name) { "*" } else { "" };
        let (mut cluster, mut user, mut namespace) = ("", "", "");
        if let Some(context) = &named.context {
            cluster = &context.cluster;
            user = context.user.as_deref().unwrap_or_default();
            namespace = context.namespace.as_deref().unwrap_or_default();
        }
        out.push_str(&format!("{current}\t{}\t{cluster}\t{user}\t{namespace}\n", named.name));
    }
    align(&out, TABLE)
}

fn choose(globals: &Globals, name: &str) -> Result<i32> {
    for path in kubeconfig::files(globals) {
        if !path.exists() {
            continue;
        }
        let file = |source| Error::File { path: path.clone(), source };
        let text = std::fs::read_to_string(&path).map_err(file)?;
        // Untyped, so that what is not known here is kept.
        let mut value: Value =
            serde_yaml_ng::from_str(&text).map_err(|e| Error::client(format!("{}: {e}", path.display())))?;
        if crate::discovery::items(&value["contexts"]).any(|context| context["name"] == name) {
            value["current-context"] = name.into();
            std::fs::write(&path, yaml(&value)?).map_err(file)?;
            println!("Switched to context {name:?}.");
            return Ok(0);
        }
    }
    Err(Error::client(format!("no context exists with the name: {name:?}")))
}
