//! The tag of an image reference, which decides the default pull policy.

/// What an image reference says of its tag.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Tag<'a> {
    /// Named, or `latest` because neither tag nor digest is given.
    Named(&'a str),
    /// Only a digest.
    None,
}

/// The tag of `[registry[:port]/]path[:tag][@digest]`.
pub(crate) fn tag(image: &str) -> Tag<'_> {
    let (name, digest) = image.split_once('@').map_or((image, None), |(n, d)| (n, Some(d)));
    let last = name.rsplit('/').next().unwrap_or(name);
    match (last.split_once(':'), digest) {
        (Some((_, tag)), _) => Tag::Named(tag),
        (None, None) => Tag::Named("latest"),
        (None, Some(_)) => Tag::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_found_behind_registry_ports() {
        for (image, expected) in [
            ("nginx", Tag::Named("latest")),
            ("nginx:1.27", Tag::Named("1.27")),
            ("localhost:5000/a/b", Tag::Named("latest")),
            ("localhost:5000/a/b:v1", Tag::Named("v1")),
            ("a@sha256:00", Tag::None),
            ("a:latest@sha256:00", Tag::Named("latest")),
        ] {
            assert_eq!(tag(image), expected, "{image}");
        }
    }
}
