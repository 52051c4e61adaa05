//! Where a redirect leads.

use http::{HeaderValue, Uri};

/// The address that a `Location` means for an answer from `base` (RFC 3986, section 5.2), and whether it was relative.
pub(super) fn resolve(base: &Uri, location: &HeaderValue) -> Option<(Uri, bool)> {
    let text = location.to_str().ok()?;
    let text = text.split_once('#').map_or(text, |(before, _)| before);
    let begins_with_scheme = text.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    });
    if begins_with_scheme {
        return Some((text.parse().ok()?, false));
    }
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    let full = if text.starts_with("//") {
        format!("{scheme}:{text}")
    } else if text.starts_with('/') {
        format!("{scheme}://{authority}{text}")
    } else if text.is_empty() || text.starts_with('?') {
        let query = base.query().filter(|_| text.is_empty()).map(|q| format!("?{q}")).unwrap_or_default();
        format!("{scheme}://{authority}{}{query}{text}", base.path())
    } else {
        let (path, query) = match text.split_once('?') {
            Some((path, query)) => (path, format!("?{query}")),
            None => (text, String::new()),
        };
        let directory = base.path().rsplit_once('/').map_or("", |(directory, _)| directory);
        format!("{scheme}://{authority}{}{query}", without_dots(&format!("{directory}/{path}")))
    };
    Some((full.parse().ok()?, true))
}

/// A path without its `.` and `..`.
fn without_dots(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let mut all = path.split('/').skip(1).peekable();
    while let Some(part) = all.next() {
        let last = all.peek().is_none();
        match part {
            "." | ".." => {
                if part == ".." {
                    parts.pop();
                }
                // What is left is a directory.
                parts.extend(last.then_some(""));
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_resolved() {
        let base: Uri = "https://10.0.0.1:8443/a/b?q=1".parse().unwrap();
        let of = |location: &str| {
            let found = resolve(&base, &HeaderValue::from_str(location).unwrap());
            found.map(|(uri, relative)| (uri.to_string(), relative))
        };
        let relative = [
            ("/c", "https://10.0.0.1:8443/c"),
            ("c?d#e", "https://10.0.0.1:8443/a/c?d"),
            ("../c", "https://10.0.0.1:8443/c"),
            ("./c/./d/../", "https://10.0.0.1:8443/a/c/"),
            ("../../../c", "https://10.0.0.1:8443/c"),
            ("?r=2", "https://10.0.0.1:8443/a/b?r=2"),
            ("#there", "https://10.0.0.1:8443/a/b?q=1"),
            ("//other:1/x", "https://other:1/x"),
        ];
        for (location, wanted) in relative {
            assert_eq!(of(location), Some((wanted.to_owned(), true)), "{location}");
        }
        assert_eq!(of("http://other/x"), Some(("http://other/x".to_owned(), false)));
        assert_eq!(of("https://[::1/x"), None);
    }
}
