//! Layers point downward, and every crate says what it is.

use std::path::Path;

use anyhow::{Context as _, Result};
use cargo_metadata::{Metadata, Package};

use super::Finding;

/// The folder a crate stands in tells its layer; crates outside `crates/` are above all layers.
fn layer(root: &Path, package: &Package) -> Option<String> {
    let path = package.manifest_path.as_std_path().strip_prefix(root.join("crates")).ok()?;
    path.iter().next().map(|folder| folder.to_string_lossy().into_owned())
}

/// Higher layers may depend on lower ones. The four of equal height never meet but in API objects.
fn height(layer: Option<&str>) -> u8 {
    match layer {
        Some("base") => 0,
        Some("api") => 1,
        Some("store") => 2,
        Some("server" | "control" | "node" | "net") => 3,
        Some("cli") => 4,
        _ => 5,
    }
}

pub(super) fn check(metadata: &Metadata, root: &Path) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for package in metadata.workspace_packages() {
        let own = layer(root, package);
        for dependency in package.dependencies.iter().filter(|dependency| dependency.path.is_some()) {
            let target = metadata
                .workspace_packages()
                .into_iter()
                .find(|other| other.name.as_str() == dependency.name)
                .with_context(|| format!("{} is no crate of the workspace", dependency.name))?;
            let other = layer(root, target);
            if !may_depend(own.as_deref(), other.as_deref()) {
                findings.push(Finding {
                    rule: "layers",
                    subject: format!("{} -> {}", package.name, dependency.name),
                    message: format!(
                        "{} must not depend on {}",
                        own.as_deref().unwrap_or("the top"),
                        other.as_deref().unwrap_or("the top")
                    ),
                });
            }
        }
        findings.extend(undocumented(package)?);
    }
    Ok(findings)
}

fn may_depend(own: Option<&str>, other: Option<&str>) -> bool {
    own == other || height(other) < height(own)
}

fn undocumented(package: &Package) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut add = |message: String| {
        findings.push(Finding { rule: "crates", subject: package.name.to_string(), message });
    };
    if package.description.as_deref().is_none_or(str::is_empty) {
        add("has no description".to_owned());
    }
    for target in package.targets.iter().filter(|target| target.is_lib() || target.is_bin()) {
        let file = target.src_path.as_std_path();
        let text =
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        if !text.starts_with("//!") {
            add(format!("{} does not start with a crate comment", target.src_path));
        }
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::may_depend;

    #[test]
    fn dependencies_point_downward() {
        for (own, other, allowed) in [
            (Some("api"), Some("base"), true),
            (Some("base"), Some("api"), false),
            (Some("server"), Some("store"), true),
            (Some("server"), Some("server"), true),
            (Some("server"), Some("node"), false),
            (Some("control"), Some("server"), false),
            (Some("cli"), Some("net"), true),
            (Some("net"), None, false),
            (None, Some("cli"), true),
        ] {
            assert_eq!(may_depend(own, other), allowed, "{own:?} -> {other:?}");
        }
    }
}
