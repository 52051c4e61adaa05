//! Timestamps as the API writes them.

use jiff::Timestamp;

/// `metav1.Time`: RFC 3339 in UTC with whole seconds.
pub fn rfc3339(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `metav1.MicroTime`: RFC 3339 in UTC with six digits of fraction.
pub fn rfc3339_micro(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// The present as `metav1.Time`.
pub fn now() -> String {
    rfc3339(Timestamp::now())
}

/// Reads a `metav1.Time` or `MicroTime`.
pub fn parse(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// An age as kubectl's tables show it (`5s`, `3m20s`, `4h12m`, `2d3h`, `400d`, `3y20d`).
pub fn human_duration(seconds: i64) -> String {
    let s = seconds.max(0);
    let (m, h, d) = (s / 60, s / 3600, s / 86400);
    let with = |big: i64, unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{big}{unit}"),
        _ => format!("{big}{unit}{small}{small_unit}"),
    };
    match s {
        _ if seconds < -1 => "<invalid>".into(),
        0..120 => format!("{s}s"),
        _ if m < 10 => with(m, "m", s % 60, "s"),
        _ if m < 180 => format!("{m}m"),
        _ if h < 8 => with(h, "h", m % 60, "m"),
        _ if h < 48 => format!("{h}h"),
        _ if h < 192 => with(d, "d", h % 24, "h"),
        _ if d < 730 => format!("{d}d"),
        _ if d < 365 * 8 => with(d / 365, "y", d % 365, "d"),
        _ => format!("{}y", d / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_in_kubectl() {
        let cases = [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (200, "3m20s"),
            (660, "11m"),
            (3 * 3600 + 720, "3h12m"),
            (47 * 3600, "47h"),
            (51 * 3600, "2d3h"),
            (192 * 3600, "8d"),
            (750 * 86400, "2y20d"),
            (3650 * 86400, "10y"),
            (-5, "<invalid>"),
        ];
        for (seconds, text) in cases {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn timestamps_have_the_digits_of_their_type() {
        let at = parse("2024-03-01T10:20:30.123456789Z").unwrap_or_default();
        assert_eq!(rfc3339(at), "2024-03-01T10:20:30Z");
        assert_eq!(rfc3339_micro(at), "2024-03-01T10:20:30.123456Z");
    }
}
