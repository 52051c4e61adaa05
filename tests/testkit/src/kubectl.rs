//! Which kubectl speaks to the cluster.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result};

/// Where packages put a kubectl per version beside the one in the path.
const VERSIONED: &str = "/usr/lib/google-cloud-sdk/bin";
/// Where `scripts/packages` unpacks Debian's kubectl, which cannot be installed beside another.
const UNPACKED: &str = "/usr/local/lib/xebec-tests/usr/bin/kubectl";
/// Debian 12's kubectl: the oldest that a user may reasonably come with.
const OLD: u32 = 20;

/// A kubectl.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kubectl {
    /// Upstream's newest of this machine, or the one that `XEBEC_KUBECTL` names.
    Newest,
    /// Debian's, which speaks as upstream did in v1.20.
    Old,
    /// `xebec kubectl`.
    Own,
}

impl Kubectl {
    /// A command that runs it; `xebec` is the binary under test.
    ///
    /// # Errors
    /// If there is none on this machine.
    pub fn command(self, xebec: &Path) -> Result<tokio::process::Command> {
        Ok(match self {
            Self::Newest => tokio::process::Command::new(upstream()?),
            Self::Old => tokio::process::Command::new(old()?),
            Self::Own => {
                let mut command = tokio::process::Command::new(xebec);
                command.arg("kubectl");
                command
            }
        })
    }

    /// The minor version of [`Kubectl::Newest`]. A machine may have none but Debian's, and tests leave out what that
    /// one has not learned yet.
    ///
    /// # Errors
    /// If there is none on this machine.
    pub fn newest_minor() -> Result<u32> {
        let program = upstream()?;
        minor(&program).with_context(|| format!("{} tells no version", program.display()))
    }

    /// Its name in errors.
    pub fn name(self) -> &'static str {
        match self {
            Self::Newest => "kubectl",
            Self::Old => "kubectl 1.20",
            Self::Own => "xebec kubectl",
        }
    }
}

fn upstream() -> Result<PathBuf> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = FOUND.get_or_init(|| match std::env::var_os("XEBEC_KUBECTL") {
        Some(path) => Some(path.into()),
        None => newest(),
    });
    found.clone().context("no kubectl on this machine: run scripts/packages, or name one in XEBEC_KUBECTL")
}

fn old() -> Result<PathBuf> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let mut all = [UNPACKED, "/usr/bin/kubectl"].into_iter().map(PathBuf::from);
        all.find(|path| minor(path) == Some(OLD))
    });
    found.clone().context("no kubectl of Debian 12 on this machine: run scripts/packages")
}

fn newest() -> Option<PathBuf> {
    let versioned =
        (27..60).rev().map(|minor| (minor, Path::new(VERSIONED).join(format!("kubectl.1.{minor}"))));
    let versioned = versioned.into_iter().find(|(_, path)| path.is_file());
    let others = ["kubectl", UNPACKED].into_iter().map(PathBuf::from);
    let others = others.filter_map(|path| minor(&path).map(|minor| (minor, path)));
    versioned.into_iter().chain(others).max_by_key(|(minor, _)| *minor).map(|(_, path)| path)
}

fn minor(program: &Path) -> Option<u32> {
    let output = Command::new(program).args(["version", "--client", "-o", "json"]).output().ok()?;
    let version: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    let digits: String =
        version["clientVersion"]["minor"].as_str()?.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}
