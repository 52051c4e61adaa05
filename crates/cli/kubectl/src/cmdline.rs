//! The command line, with kubectl's flags.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::ValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Args, Command, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::verbs;

/// Xebec's kubectl: the client of a Kubernetes API.
#[derive(Debug, Parser)]
#[command(name = "kubectl", disable_version_flag = true, disable_help_subcommand = false)]
pub struct Cli {
    /// Flags of every verb.
    #[command(flatten)]
    pub globals: Globals,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Flags of every verb.
#[derive(Clone, Debug, Default, Args)]
pub struct Globals {
    /// Kubeconfig file [default: $KUBECONFIG, Xebec's own, ~/.kube/config].
    #[arg(long, global = true)]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig.
    #[arg(long, global = true)]
    pub context: Option<String>,
    /// Cluster of the kubeconfig.
    #[arg(long, global = true)]
    pub cluster: Option<String>,
    /// User of the kubeconfig.
    #[arg(long, global = true)]
    pub user: Option<String>,
    /// Namespace.
    #[arg(short = 'n', long, global = true)]
    pub namespace: Option<String>,
    /// Address of the API server.
    #[arg(short = 's', long, global = true)]
    pub server: Option<String>,
    /// Bearer token.
    #[arg(long, global = true)]
    pub token: Option<String>,
    /// User to act as.
    #[arg(long = "as", global = true)]
    pub impersonate: Option<String>,
    /// Group to act as; may be repeated.
    #[arg(long = "as-group", global = true)]
    pub impersonate_groups: Vec<String>,
    /// Certificate authority of the server.
    #[arg(long, global = true)]
    pub certificate_authority: Option<PathBuf>,
    /// Do not verify the server's certificate.
    #[arg(long, global = true)]
    pub insecure_skip_tls_verify: bool,
    /// How long to wait for a single request, such as 5s; 0 is for ever.
    #[arg(long, global = true, default_value = "0")]
    pub request_timeout: String,
    /// Verbosity; accepted for scripts, prints nothing more.
    #[arg(short = 'v', long = "v", global = true)]
    pub verbosity: Option<u8>,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Show objects.
    Get(verbs::get::GetArgs),
    /// Show objects in detail.
    Describe(verbs::describe::DescribeArgs),
    /// Bring objects into the state that files describe.
    Apply(verbs::apply::ApplyArgs),
    /// Create objects.
    Create(verbs::create::CreateArgs),
    /// Delete objects.
    Delete(verbs::delete::DeleteArgs),
    /// Replace objects by those in files.
    Replace(verbs::replace::ReplaceArgs),
    /// Print the logs of containers.
    #[command(visible_alias = "log")]
    Logs(verbs::logs::LogsArgs),
    /// Run a command in a container.
    Exec(verbs::exec::ExecArgs),
    /// Forward local ports to a pod.
    PortForward(verbs::port_forward::PortForwardArgs),
    /// Set the number of replicas.
    Scale(verbs::scale::ScaleArgs),
    /// Manage rollouts.
    Rollout(verbs::rollout::RolloutArgs),
    /// Make a Service for a workload.
    Expose(verbs::expose::ExposeArgs),
    /// Run an image in a pod.
    Run(verbs::run::RunArgs),
    /// Change labels.
    Label(verbs::label::LabelArgs),
    /// Change annotations.
    Annotate(verbs::label::LabelArgs),
    /// Change fields of an object.
    Patch(verbs::patch::PatchArgs),
    /// Set features of objects.
    Set(verbs::set::SetArgs),
    /// Wait for a condition.
    Wait(verbs::wait::WaitArgs),
    /// Show events.
    Events(verbs::events::EventsArgs),
    /// Ask about permissions.
    Auth(verbs::auth::AuthArgs),
    /// List the kinds that the server serves.
    ApiResources(verbs::api::ResourcesArgs),
    /// List the API versions that the server serves.
    ApiVersions,
    /// Show where the control plane runs.
    ClusterInfo,
    /// Show the versions of client and server.
    Version(verbs::api::VersionArgs),
    /// Look at the kubeconfig and choose a context.
    Config(verbs::config::ConfigArgs),
}

/// Reads the command line of this process; help and mistakes are printed here.
pub fn parse(args: Vec<String>) -> Result<Cli, ExitCode> {
    Cli::parse_with_booleans(args).map_err(|error| {
        if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
            print!("{error}");
            return ExitCode::SUCCESS;
        }
        eprintln!("{}", refusal(&error));
        ExitCode::FAILURE
    })
}

impl Cli {
    /// kubectl's flags take `--flag`, `--flag=true` and `--flag=false`.
    fn parse_with_booleans(args: Vec<String>) -> Result<Self, clap::Error> {
        let matches = booleans(Self::command()).try_get_matches_from(args)?;
        Self::from_arg_matches(&matches)
    }

    /// As [`parse`], for tests and callers that print themselves.
    pub fn try_parse_from(args: Vec<String>) -> Result<Self, clap::Error> {
        Self::parse_with_booleans(args)
    }
}

fn booleans(command: Command) -> Command {
    let takes_value = |arg: Arg| {
        if !matches!(arg.get_action(), ArgAction::SetTrue) {
            return arg;
        }
        arg.action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .default_value("false")
            .hide_default_value(true)
            .hide_possible_values(true)
            .value_parser(ValueParser::bool())
    };
    let names: Vec<String> = command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
    let mut command = command.mut_args(takes_value);
    for name in names {
        command = command.mut_subcommand(name, booleans);
    }
    command
}

/// A mistake on the command line in kubectl's words, where it has some.
pub fn refusal(error: &clap::Error) -> String {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    match error.kind() {
        ErrorKind::UnknownArgument => {
            let flag = context(ContextKind::InvalidArg).unwrap_or_default();
            let what = if flag.starts_with("--") {
                format!("unknown flag: {flag}")
            } else if flag.starts_with('-') {
                format!("unknown shorthand flag: {:?} in {flag}", flag.trim_start_matches('-'))
            } else {
                format!("unexpected argument {flag:?}")
            };
            format!("error: {what}\nSee 'kubectl --help' for usage.")
        }
        ErrorKind::InvalidSubcommand => {
            let verb = context(ContextKind::InvalidSubcommand).unwrap_or_default();
            format!(
                "error: unknown command {verb:?} for \"kubectl\"\nSee 'kubectl --help' for the commands there are."
            )
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => error.to_string(),
        _ => error.to_string().trim_end().to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        booleans(Cli::command()).debug_assert();
    }

    #[test]
    fn flags_stand_anywhere_and_booleans_take_values() {
        let cli = read("kubectl get pods -n kube-system --no-headers=true -A -owide").unwrap();
        assert_eq!(cli.globals.namespace.as_deref(), Some("kube-system"));
        let Verb::Get(get) = cli.verb else { panic!("get") };
        assert!(get.no_headers && get.all_namespaces && !get.watch);
        let cli = read("kubectl -n x exec -it web -- sh -c ls").unwrap();
        let Verb::Exec(exec) = cli.verb else { panic!("exec") };
        assert!(exec.stdin && exec.tty);
        assert_eq!((exec.pod.as_deref(), exec.command.len()), (Some("web"), 3));
        let Verb::Delete(delete) = read("kubectl delete pod a --wait=false").unwrap().verb else {
            panic!("delete")
        };
        assert!(!delete.wait);
        let Verb::Delete(delete) = read("kubectl delete pod a").unwrap().verb else { panic!("delete") };
        assert!(delete.wait);
    }

    #[test]
    fn mistakes_read_as_upstreams() {
        assert!(
            refusal(&read("kubectl get --bogus").unwrap_err()).starts_with("error: unknown flag: --bogus")
        );
        assert!(refusal(&read("kubectl frob").unwrap_err()).starts_with("error: unknown command \"frob\""));
    }
}
