//! The command line.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Kubernetes, whole, in one binary.
#[derive(Debug, Parser)]
#[command(name = "xebec", version, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a one-node cluster in the foreground; Ctrl-C stops the control plane and leaves pods running.
    Up(UpArgs),
    /// Stop the pods of a cluster, and its control plane if it runs.
    Down(DataArgs),
    /// Remove every trace of a cluster: pods, links, rules, mounts, cgroups and files.
    Uninstall(UninstallArgs),
    /// The images of the node.
    Images(ImagesArgs),
    /// The Kubernetes client.
    #[command(disable_help_flag = true)]
    Kubectl {
        /// As kubectl takes them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// What the node starts to hold its containers; not for people.
    #[command(hide = true)]
    Supervisor {
        /// See the runtime.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

/// Options of `up`. What is not given here is taken from the config file, else from the defaults.
#[derive(Debug, Default, Args)]
pub struct UpArgs {
    /// YAML file with the same options by their names here; the default one may be missing.
    #[arg(long, default_value = crate::options::CONFIG_FILE)]
    pub config: PathBuf,
    /// Directory of everything that the cluster keeps [default: /var/lib/xebec].
    #[arg(long)]
    pub data_dir: Option<PathBuf>,
    /// Address the API server listens on [default: 0.0.0.0].
    #[arg(long)]
    pub bind_address: Option<IpAddr>,
    /// Port the API server listens on [default: 6443].
    #[arg(long)]
    pub secure_port: Option<u16>,
    /// Pod address range, one per family, separated by a comma [default: 10.244.0.0/16].
    #[arg(long)]
    pub cluster_cidr: Option<String>,
    /// Service address range, one per family, separated by a comma [default: 10.96.0.0/16].
    #[arg(long)]
    pub service_cidr: Option<String>,
    /// Name of the node [default: the host name].
    #[arg(long)]
    pub node_name: Option<String>,
    /// Address of the node, one per family, separated by a comma [default: that of the default route's link].
    #[arg(long)]
    pub node_ip: Option<String>,
    /// Port the node's agent listens on [default: 10250].
    #[arg(long)]
    pub kubelet_port: Option<u16>,
    /// Where to write the administrator's kubeconfig [default: kubeconfig in the data directory].
    #[arg(long)]
    pub kubeconfig_out: Option<PathBuf>,
}

/// Which cluster.
#[derive(Debug, Args)]
pub struct DataArgs {
    /// Directory of everything that the cluster keeps.
    #[arg(long, default_value = crate::options::DATA_DIR)]
    pub data_dir: PathBuf,
}

/// Options of `uninstall`.
#[derive(Debug, Args)]
pub struct UninstallArgs {
    /// Which cluster.
    #[command(flatten)]
    pub data: DataArgs,
    /// Do not ask; needed where there is no terminal to answer at.
    #[arg(long, short)]
    pub yes: bool,
}

/// Options of `images`.
#[derive(Debug, Args)]
pub struct ImagesArgs {
    /// Directory of everything that the cluster keeps.
    // Not `DataArgs`: here the option may stand before and after the subcommand.
    #[arg(long, global = true, default_value = crate::options::DATA_DIR)]
    pub data_dir: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: ImagesCommand,
}

/// The subcommands of `images`.
#[derive(Debug, Subcommand)]
pub enum ImagesCommand {
    /// List the images.
    Ls,
    /// Import OCI or docker archives (tar, also compressed).
    Import {
        /// Archives.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Give the imported image this name (archives with one image only).
        #[arg(long)]
        name: Option<String>,
    },
    /// Pull images from their registries.
    Pull {
        /// References, all of one registry if there is a user name.
        #[arg(required = true)]
        references: Vec<String>,
        /// The registry's user, whose password is read from standard input.
        #[arg(long, requires = "password_stdin")]
        username: Option<String>,
        /// Read the password of --username from standard input, so that no list of processes shows it.
        #[arg(long, requires = "username")]
        password_stdin: bool,
    },
    /// Remove images that no container uses; of an image with several tags only the one that is given.
    Rm {
        /// References, or ids or the beginnings of them.
        #[arg(required = true)]
        references: Vec<String>,
    },
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn images_take_the_data_directory_anywhere() {
        let read = |line: &str| match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Command::Images(args) => args.data_dir,
            other => panic!("{other:?}"),
        };
        assert_eq!(read("xebec images ls --data-dir /x"), PathBuf::from("/x"));
        assert_eq!(read("xebec images --data-dir /x ls"), PathBuf::from("/x"));
        assert_eq!(read("xebec images import a.tar b.tar --data-dir /x"), PathBuf::from("/x"));
        assert_eq!(read("xebec images ls"), PathBuf::from(crate::options::DATA_DIR));
    }
}
