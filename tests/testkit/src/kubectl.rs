//! Which kubectl speaks to the cluster.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result};

/// Where packages put a kubectl per version beside the one in the path.
const VERSIONED: &str = "/usr/lib/google-cloud-sdk/bin";

/// The newest upstream kubectl of this machine, or the one that `XEBEC_KUBECTL` names.
///
/// # Errors
/// If there is none.
pub fn upstream() -> Result<PathBuf> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = FOUND.get_or_init(|| match std::env::var_os("XEBEC_KUBECTL") {
        Some(path) => Some(path.into()),
        None => newest(),
    });
    found.clone().context(
        "no kubectl on this machine: install Debian's kubernetes-client, or name one in XEBEC_KUBECTL",
    )
}

fn newest() -> Option<PathBuf> {
    let versioned =
        (27..60).rev().map(|minor| (minor, Path::new(VERSIONED).join(format!("kubectl.1.{minor}"))));
    let versioned = versioned.into_iter().find(|(_, path)| path.is_file());
    let in_path = minor(Path::new("kubectl")).map(|minor| (minor, PathBuf::from("kubectl")));
    versioned.into_iter().chain(in_path).max_by_key(|(minor, _)| *minor).map(|(_, path)| path)
}

fn minor(program: &Path) -> Option<u32> {
    let output = Command::new(program).args(["version", "--client", "-o", "json"]).output().ok()?;
    let version: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    let digits: String =
        version["clientVersion"]["minor"].as_str()?.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}
