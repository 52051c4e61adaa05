//! Image references as people write them, and their full form (`distribution/reference`).

use std::fmt;
use std::str::FromStr;

/// A reference in full: registry, repository, and a tag or a digest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Registry's host and port; `docker.io` when none was written.
    pub registry: String,
    /// Repository; `library/` is added for Docker's own images.
    pub repository: String,
    /// Tag; `latest` when neither tag nor digest was written.
    pub tag: Option<String>,
    /// Digest; decides when there is a tag as well.
    pub digest: Option<String>,
}

/// A text that is no image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("couldn't parse image name {text:?}: {why}")]
pub struct ReferenceError {
    text: String,
    why: &'static str,
}

impl Reference {
    /// `registry/repository`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// `registry/repository@digest`.
    pub fn with_digest(&self, digest: &str) -> String {
        format!("{}/{}@{digest}", self.registry, self.repository)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let fail = |why| ReferenceError { text: text.to_owned(), why };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) if is_digest(digest) => (rest, Some(digest.to_owned())),
            Some(_) => return Err(fail("invalid digest format")),
            None => (text, None),
        };
        let after_slash = rest.rfind('/').map_or(0, |i| i + 1);
        let (name, tag) = match rest[after_slash..].split_once(':') {
            Some((_, tag)) if is_tag(tag) => (&rest[..rest.len() - tag.len() - 1], Some(tag.to_owned())),
            Some(_) => return Err(fail("invalid reference format")),
            None => (rest, None),
        };
        let (registry, path) = match name.split_once('/') {
            Some((host, path)) if is_host(host) => (host, path),
            _ => ("docker.io", name),
        };
        let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(fail("invalid reference format: repository name must be lowercase"));
        }
        if path.is_empty() || path.len() > 255 || !path.split('/').all(is_path_component) {
            return Err(fail("invalid reference format"));
        }
        let official = registry == "docker.io" && !path.contains('/');
        let repository = if official { format!("library/{path}") } else { path.to_owned() };
        let tag = if tag.is_none() && digest.is_none() { Some("latest".to_owned()) } else { tag };
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }
}

/// Whether the first component names a registry rather than a part of the repository.
fn is_host(text: &str) -> bool {
    let looks =
        text == "localhost" || text.contains(['.', ':']) || text.bytes().any(|b| b.is_ascii_uppercase());
    looks && text.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b))
}

/// Lower case letters and digits, with single separators (`.`, `_`, `__`, any number of `-`) between them.
fn is_path_component(text: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = text.as_bytes();
    edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(b))
        && !["..", "___", "._", "_.", "-.", ".-", "-_", "_-"].iter().any(|bad| text.contains(bad))
}

fn is_tag(text: &str) -> bool {
    let first = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    text.len() <= 128
        && text.as_bytes().first().is_some_and(first)
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

/// Only SHA-256 digests are used by registries.
pub(crate) fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(is_hex_digest)
}

pub(crate) fn is_hex_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn short_forms_are_completed() {
        let hex = "a".repeat(64);
        let cases = [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.25", "docker.io/library/nginx:1.25"),
            ("xebec/toolbox", "docker.io/xebec/toolbox:latest"),
            ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
            ("localhost/a", "localhost/a:latest"),
            ("127.0.0.1:5000/a/b:c", "127.0.0.1:5000/a/b:c"),
            ("registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.9"),
            ("quay.io/a_b/c--d", "quay.io/a_b/c--d:latest"),
        ];
        for (text, full) in cases {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), full);
        }
        let digested = format!("redis@sha256:{hex}").parse::<Reference>().unwrap();
        assert_eq!(digested.to_string(), format!("docker.io/library/redis@sha256:{hex}"));
        assert_eq!(digested.tag, None);
    }

    #[test]
    fn nonsense_is_refused() {
        for text in
            ["", "Nginx", "a b", "nginx:", "nginx:-x", "a//b", "/a", "a@sha256:12", "-a", "a..b", ":x"]
        {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
        let error = "UPPER/case".parse::<Reference>().map(|r| r.to_string());
        assert_eq!(error.unwrap(), "UPPER/case:latest", "an upper case first part is a host");
    }
}
