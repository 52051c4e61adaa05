//! `tidy`: the rules of the house that no compiler checks. Also run as a test of this crate.
//!
//! What must break a rule stands in `xtask/exceptions.txt`, one line each with its reason; an exception that nothing
//! needs any more is itself a finding, so the list only shrinks.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use cargo_metadata::{Metadata, MetadataCommand};

mod crates;
mod licences;
mod source;

/// One broken rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The name of the rule.
    pub rule: &'static str,
    /// What breaks it: a file, a crate, an edge between crates.
    pub subject: String,
    /// How.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.rule, self.subject, self.message)
    }
}

/// Runs the chore: prints findings, fails when there are any.
pub fn run() -> Result<()> {
    let findings = check()?;
    for finding in &findings {
        println!("{finding}");
    }
    if findings.is_empty() {
        return Ok(());
    }
    bail!("{} rules broken; what must stay goes into xtask/exceptions.txt with its reason", findings.len())
}

/// All findings that no exception covers, and all exceptions that cover none.
pub fn check() -> Result<Vec<Finding>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask stands in the workspace")?;
    let metadata = metadata(root)?;
    let mut findings = crates::check(&metadata, root)?;
    findings.extend(licences::check(&metadata));
    findings.extend(source::check(root)?);
    findings.sort();
    let file = root.join("xtask/exceptions.txt");
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    apply_exceptions(findings, &text)
}

fn metadata(root: &Path) -> Result<Metadata> {
    let mut command = MetadataCommand::new();
    command.manifest_path(root.join("Cargo.toml")).other_options(vec!["--locked".to_owned()]);
    command.exec().context("cargo metadata failed")
}

/// Lines are `RULE SUBJECT: REASON`; `#` starts a comment.
fn apply_exceptions(findings: Vec<Finding>, text: &str) -> Result<Vec<Finding>> {
    let mut unused = BTreeSet::new();
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        let (key, reason) =
            line.split_once(": ").with_context(|| format!("exception without reason: {line}"))?;
        if reason.trim().is_empty() {
            bail!("exception without reason: {line}");
        }
        unused.insert(key.to_owned());
    }
    let known = unused.clone();
    let mut left: Vec<Finding> = findings
        .into_iter()
        .filter(|finding| {
            let key = format!("{} {}", finding.rule, finding.subject);
            unused.remove(&key);
            !known.contains(&key)
        })
        .collect();
    left.extend(unused.into_iter().map(|key| Finding {
        rule: "exceptions",
        subject: key,
        message: "no longer needed: remove it from xtask/exceptions.txt".to_owned(),
    }));
    Ok(left)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn finding(subject: &str) -> Finding {
        Finding { rule: "lines", subject: subject.to_owned(), message: "long".to_owned() }
    }

    #[test]
    fn the_house_is_tidy() {
        let findings: Vec<String> = check().unwrap().iter().map(ToString::to_string).collect();
        assert!(findings.is_empty(), "\n{}", findings.join("\n"));
    }

    #[test]
    fn exceptions_cover_and_expire() {
        let left =
            apply_exceptions(vec![finding("a"), finding("b")], "# why\nlines a: generated\nlines c: x\n");
        let left: Vec<String> = left.unwrap().iter().map(ToString::to_string).collect();
        let expired = "exceptions lines c: no longer needed: remove it from xtask/exceptions.txt";
        assert_eq!(left, ["lines b: long", expired]);
        assert!(apply_exceptions(vec![], "lines a:").is_err());
    }
}
