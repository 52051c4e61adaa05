//! Times as people write and read them.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

/// Reads `90s`, `2m`, `1h30m`, `500ms` or seconds; `0` is `None`.
pub fn parse(text: &str) -> Result<Option<Duration>, String> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok((seconds > 0).then(|| Duration::from_secs(seconds)));
    }
    let (mut rest, mut total) = (text, 0.0_f64);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().map_err(|_| format!("invalid duration {text:?}"))?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        total += number
            * match &rest[..letters] {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                unit => return Err(format!("unknown unit {unit:?} in duration {text:?}")),
            };
        rest = &rest[letters..];
    }
    let total = Duration::try_from_secs_f64(total).map_err(|_| format!("invalid duration {text:?}"))?;
    Ok((!total.is_zero()).then_some(total))
}

/// A span the short way: `45s`, `3m10s`, `2h`, `3d4h`, `400d`.
pub fn human(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let pair = |whole: i64, unit: char, part: i64, below: char| match part {
        0 => format!("{whole}{unit}"),
        part => format!("{whole}{unit}{part}{below}"),
    };
    match seconds {
        ..0 => "0s".into(),
        0..120 => format!("{seconds}s"),
        120..600 => pair(minutes, 'm', seconds % 60, 's'),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => pair(hours, 'h', minutes % 60, 'm'),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => pair(days, 'd', hours % 24, 'h'),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => pair(days / 365, 'y', days % 365, 'd'),
        _ => format!("{}y", days / 365),
    }
}

/// How long ago an RFC 3339 time was; `<unknown>` when there is none.
pub fn age(time: &Value) -> String {
    match parse_time(time) {
        Some(then) => human(Timestamp::now().as_second() - then.as_second()),
        None => "<unknown>".into(),
    }
}

/// An RFC 3339 time.
pub fn parse_time(time: &Value) -> Option<Timestamp> {
    time.as_str()?.parse().ok()
}

/// A time as `describe` prints it (RFC 1123 with the zone's offset).
pub fn rfc1123(time: &Value) -> String {
    match parse_time(time) {
        Some(time) => time.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string(),
        None => String::new(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(parse("1h30m").unwrap(), Some(Duration::from_secs(5400)));
        assert_eq!(parse("500ms").unwrap(), Some(Duration::from_millis(500)));
        assert_eq!(parse("0s").unwrap(), None);
        assert!(parse("5x").is_err() && parse("abc").is_err());
        for (seconds, want) in [
            (5, "5s"),
            (119, "119s"),
            (130, "2m10s"),
            (700, "11m"),
            (11_000, "3h3m"),
            (90_000, "25h"),
            (700_000, "8d"),
        ] {
            assert_eq!(human(seconds), want);
        }
    }
}
