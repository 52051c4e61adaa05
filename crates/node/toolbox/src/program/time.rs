//! `date` and `sleep`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Answer;
use super::small::write_out;

const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// `sleep SECONDS …`, with `s`, `m`, `h` or `d`, or `infinity`.
pub fn sleep(arguments: &[String]) -> Answer {
    let mut total = Duration::ZERO;
    for text in arguments {
        if matches!(text.as_str(), "infinity" | "inf") {
            loop {
                std::thread::park();
            }
        }
        let (number, unit) = match text.char_indices().last() {
            Some((i, 's')) => (&text[..i], 1.0),
            Some((i, 'm')) => (&text[..i], 60.0),
            Some((i, 'h')) => (&text[..i], 3600.0),
            Some((i, 'd')) => (&text[..i], 86400.0),
            _ => (text.as_str(), 1.0),
        };
        let seconds = number.parse::<f64>().ok().and_then(|n| Duration::try_from_secs_f64(n * unit).ok());
        total = total.saturating_add(seconds.ok_or_else(|| format!("{text:?} is no time"))?);
    }
    std::thread::sleep(total);
    Ok(0)
}

/// `date [-u] [-Iseconds] [-d @SECONDS] [+FORMAT]`. There is no time zone but UTC.
pub fn date(arguments: &[String]) -> Answer {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (mut seconds, mut nanoseconds) = (i64::try_from(now.as_secs()).unwrap_or(0), now.subsec_nanos());
    let mut format = "%a %b %e %H:%M:%S UTC %Y";
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "-u" | "--utc" => {}
            "-I" => format = "%F",
            "-Is" | "-Iseconds" => format = "%FT%T+00:00",
            "-R" => format = "%a, %d %b %Y %H:%M:%S +0000",
            "-d" | "--date" => {
                let text = rest.next().ok_or("-d wants a time")?;
                let given = text.strip_prefix('@').and_then(|text| text.parse().ok());
                seconds = given.ok_or_else(|| format!("{text:?} is no time: @SECONDS is known"))?;
                nanoseconds = 0;
            }
            text => match text.strip_prefix('+') {
                Some(own) => format = own,
                None => return Err(format!("unknown option {text:?}")),
            },
        }
    }
    write_out((written(format, seconds, nanoseconds) + "\n").as_bytes())
}

/// A time as strftime(3) writes it.
fn written(format: &str, seconds: i64, nanoseconds: u32) -> String {
    let (days, of_day) = (seconds.div_euclid(86400), seconds.rem_euclid(86400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let weekday = DAYS[usize::try_from(days.rem_euclid(7)).unwrap_or(0)];
    let month_name = MONTHS[usize::try_from(month - 1).unwrap_or(0)];
    let first = civil_days(year, 1, 1);
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let again = |format: &str| written(format, seconds, nanoseconds);
        let c = chars.next().unwrap_or('%');
        out += &match c {
            'Y' => year.to_string(),
            'm' => format!("{month:02}"),
            'd' => format!("{day:02}"),
            'e' => format!("{day:2}"),
            'H' => format!("{hour:02}"),
            'I' => format!("{:02}", (hour + 11) % 12 + 1),
            'M' => format!("{minute:02}"),
            'S' => format!("{second:02}"),
            'N' => format!("{nanoseconds:09}"),
            's' => seconds.to_string(),
            'j' => format!("{:03}", days - first + 1),
            'y' => format!("{:02}", year.rem_euclid(100)),
            'u' => (if weekday == "Sunday" { 7 } else { (days + 3).rem_euclid(7) + 1 }).to_string(),
            'a' => weekday[..3].to_owned(),
            'A' => weekday.to_owned(),
            'b' | 'h' => month_name[..3].to_owned(),
            'B' => month_name.to_owned(),
            'p' => if hour < 12 { "AM" } else { "PM" }.to_owned(),
            'F' => again("%Y-%m-%d"),
            'T' => again("%H:%M:%S"),
            'R' => again("%H:%M"),
            'D' => again("%m/%d/%y"),
            'c' => again("%a %b %e %H:%M:%S %Y"),
            'z' => "+0000".to_owned(),
            'Z' => "UTC".to_owned(),
            'n' => "\n".to_owned(),
            't' => "\t".to_owned(),
            '%' => "%".to_owned(),
            other => format!("%{other}"),
        };
    }
    out
}

/// Year, month and day of a number of days since 1970, in the Gregorian calendar.
fn civil(days: i64) -> (i64, i64, i64) {
    // Years begin in March here, so that the day that some years lack is their last one.
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

/// The opposite of [`civil`].
fn civil_days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written() {
        let cases = [
            (0, "%F %T %a %j", "1970-01-01 00:00:00 Thu 001"),
            (951_782_400, "%F %u", "2000-02-29 2"),
            (1_735_689_599, "%c", "Tue Dec 31 23:59:59 2024"),
            (1_735_689_599, "%j %I %p %%", "366 11 PM %"),
        ];
        for (seconds, format, expected) in cases {
            assert_eq!(written(format, seconds, 0), expected);
        }
        for days in (-200_000..200_000).step_by(97) {
            let (year, month, day) = civil(days);
            assert_eq!(civil_days(year, month, day), days);
        }
    }
}
