//! Lines of the CRI log format: `<RFC 3339 time> <stream> <P|F> <text>`.

use jiff::Timestamp;

/// One line of a log file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line<'a> {
    /// Time as written.
    pub time: &'a str,
    /// `stdout` or `stderr`.
    pub stream: &'a str,
    /// The text goes on in the next line.
    pub partial: bool,
    /// Text without the final newline.
    pub text: &'a [u8],
}

impl Line<'_> {
    /// The time, parsed.
    pub fn at(&self) -> Option<Timestamp> {
        self.time.parse().ok()
    }
}

/// Parses a line (without its newline).
pub fn parse(raw: &[u8]) -> Option<Line<'_>> {
    let mut parts = raw.splitn(4, |b| *b == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = std::str::from_utf8(parts.next()?).ok()?;
    let tag = std::str::from_utf8(parts.next()?).ok()?;
    let text = parts.next().unwrap_or_default();
    Some(Line { time, stream, partial: tag.split(':').next() == Some("P"), text })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn lines_parse() {
        let line = parse(b"2026-01-01T00:00:00.5Z stdout P a b").unwrap();
        assert_eq!((line.stream, line.partial, line.text), ("stdout", true, b"a b".as_slice()));
        assert!(line.at().is_some());
        assert_eq!(parse(b"2026-01-01T00:00:00Z stderr F ").unwrap().text, b"");
        assert!(parse(b"garbage").is_none());
    }
}
