//! Only permissive licences come in.

use cargo_metadata::Metadata;

use super::Finding;

/// SPDX identifiers of the licences that are fine.
const PERMISSIVE: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Zlib",
];

pub(super) fn check(metadata: &Metadata) -> Vec<Finding> {
    let foreign = metadata.packages.iter().filter(|package| package.source.is_some());
    foreign
        .filter(|package| !package.license.as_deref().is_some_and(permissive))
        .map(|package| Finding {
            rule: "licences",
            subject: package.name.to_string(),
            message: format!("is licensed {}", package.license.as_deref().unwrap_or("in words of its own")),
        })
        .collect()
}

/// Whether an SPDX expression (or the older `A/B`) can be satisfied with permissive licences.
fn permissive(expression: &str) -> bool {
    let expression = expression.trim();
    if let Some((left, right)) = split(expression, &[" OR ", "/"]) {
        return permissive(left) || permissive(right);
    }
    if let Some((left, right)) = split(expression, &[" AND "]) {
        return permissive(left) && permissive(right);
    }
    match expression.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')) {
        Some(inner) => permissive(inner),
        None => PERMISSIVE.contains(&expression),
    }
}

/// Splits at the first of `operators` that stands outside of parentheses.
fn split<'e>(expression: &'e str, operators: &[&str]) -> Option<(&'e str, &'e str)> {
    let mut depth = 0;
    for (at, c) in expression.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ if depth > 0 => {}
            _ => {
                let rest = &expression[at..];
                if let Some(operator) = operators.iter().find(|operator| rest.starts_with(**operator)) {
                    return Some((&expression[..at], &rest[operator.len()..]));
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::permissive;

    #[test]
    fn expressions() {
        for (expression, fine) in [
            ("MIT", true),
            ("MIT/Apache-2.0", true),
            ("MPL-2.0", false),
            ("MPL-2.0 OR MIT", true),
            ("MIT AND MPL-2.0", false),
            ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
            ("(GPL-2.0 OR MPL-2.0) AND MIT", false),
            ("Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT", true),
        ] {
            assert_eq!(permissive(expression), fine, "{expression}");
        }
    }
}
