//! Sizes of files and lines, and where `unsafe` may stand. (The size of functions is clippy's business.)

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::Finding;

const FOLDERS: &[&str] = &["crates", "tests", "benches", "xtask"];

/// Files have fewer lines than this.
const FILE_LINES: usize = 800;

/// Lines have fewer characters than this.
const LINE_CHARS: usize = 120;

/// The crates that talk to the kernel in ways that need `unsafe`.
const MAY_BE_UNSAFE: &[&str] = &["crates/net/netlink/", "crates/node/runtime/"];

pub(super) fn check(root: &Path) -> Result<Vec<Finding>> {
    let mut files = Vec::new();
    for folder in FOLDERS {
        collect(&root.join(folder), &mut files)?;
    }
    let mut findings = Vec::new();
    for file in files {
        let text =
            std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let name = file.strip_prefix(root).unwrap_or(&file).display().to_string();
        check_file(&name, &text, &mut findings);
    }
    Ok(findings)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

fn check_file(name: &str, text: &str, findings: &mut Vec<Finding>) {
    let mut add = |rule, message| findings.push(Finding { rule, subject: name.to_owned(), message });
    let count = text.lines().count();
    if count >= FILE_LINES {
        add("files", format!("has {count} lines: keep it under {FILE_LINES}"));
    }
    let long = text.lines().enumerate().find(|(_, line)| line.chars().count() >= LINE_CHARS);
    if let Some((at, line)) = long {
        let length = line.chars().count();
        add("lines", format!("line {} has {length} characters: keep it under {LINE_CHARS}", at + 1));
    }
    if MAY_BE_UNSAFE.iter().any(|folder| name.starts_with(folder)) {
        return;
    }
    if let Some((at, _)) = text.lines().enumerate().find(|(_, line)| is_unsafe(line)) {
        add("unsafe", format!("line {} is unsafe: only netlink and runtime may be", at + 1));
    }
}

fn is_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or(line).trim();
    let keyword = concat!("un", "safe");
    let words = ["{", "fn ", "impl ", "extern ", "trait "];
    let allows = code.contains(&format!("allow({keyword}_code)"));
    allows || words.iter().any(|next| code.contains(&format!("{keyword} {next}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(name: &str, text: &str) -> Vec<&'static str> {
        let mut findings = Vec::new();
        check_file(name, text, &mut findings);
        findings.into_iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn sizes_and_unsafe() {
        let block = concat!("let x = un", "safe { 1 };");
        assert_eq!(rules("crates/api/x.rs", "fn f() {}\n// unsafe { in a comment }\n"), [""; 0]);
        assert_eq!(rules("crates/api/x.rs", &"\n".repeat(800)), ["files"]);
        assert_eq!(rules("crates/api/x.rs", &"é".repeat(120)), ["lines"]);
        assert_eq!(rules("crates/api/x.rs", &"é".repeat(119)), [""; 0]);
        assert_eq!(rules("crates/api/x.rs", block), ["unsafe"]);
        assert_eq!(rules("crates/net/netlink/src/x.rs", block), [""; 0]);
    }
}
