//! `printf` and `echo -e`.

use super::arithmetic::number;

/// A format with its arguments; it is used again as long as there are more. False: an argument was no number.
pub fn printf(format: &str, arguments: &[String]) -> Result<(String, bool), String> {
    let (mut out, mut fine, mut rest) = (String::new(), true, arguments);
    loop {
        let before = rest.len();
        if !once(format, &mut rest, &mut out, &mut fine)? || rest.is_empty() || rest.len() == before {
            return Ok((out, fine));
        }
    }
}

/// Uses the format once; false if `\c` ended it.
fn once(format: &str, arguments: &mut &[String], out: &mut String, fine: &mut bool) -> Result<bool, String> {
    let mut rest = format;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\\' => match escape(rest, false) {
                (Some(c), after) => {
                    out.push(c);
                    rest = after;
                }
                (None, _) => return Ok(false),
            },
            '%' if rest.starts_with('%') => {
                out.push('%');
                rest = &rest[1..];
            }
            '%' => {
                let mut next = || match arguments.split_first() {
                    Some((first, after)) => {
                        *arguments = after;
                        first.clone()
                    }
                    None => String::new(),
                };
                let flags_end = rest.find(|c| !"-+ 0#".contains(c)).unwrap_or(rest.len());
                let (flags, after) = rest.split_at(flags_end);
                rest = after;
                let mut count = |rest: &mut &str| -> Option<usize> {
                    if let Some(after) = rest.strip_prefix('*') {
                        *rest = after;
                        return next().parse().ok();
                    }
                    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
                    let (digits, after) = rest.split_at(end);
                    *rest = after;
                    digits.parse().ok()
                };
                let width = count(&mut rest).unwrap_or(0).min(4096);
                let precision = match rest.strip_prefix('.') {
                    Some(after) => {
                        rest = after;
                        Some(count(&mut rest).unwrap_or(0))
                    }
                    None => None,
                };
                let kind = rest.chars().next().ok_or("printf: % without a letter")?;
                rest = &rest[kind.len_utf8()..];
                let argument = next();
                let mut over = false;
                let mut text = value(kind, &argument, precision, fine, &mut over)?;
                if flags.contains('+') && "di".contains(kind) && !text.starts_with('-') {
                    text.insert(0, '+');
                }
                pad(out, &text, flags, width, kind);
                if over {
                    return Ok(false);
                }
            }
            c => out.push(c),
        }
    }
    Ok(true)
}

/// Adds a text with the blanks or zeros that make it as wide as asked for.
fn pad(out: &mut String, text: &str, flags: &str, width: usize, kind: char) {
    let missing = width.saturating_sub(text.chars().count());
    if flags.contains('-') {
        out.push_str(text);
        out.extend(std::iter::repeat_n(' ', missing));
    } else if flags.contains('0') && !"sbc".contains(kind) {
        let (sign, digits) = text.split_at(usize::from(text.starts_with(['-', '+'])));
        out.push_str(sign);
        out.extend(std::iter::repeat_n('0', missing));
        out.push_str(digits);
    } else {
        out.extend(std::iter::repeat_n(' ', missing));
        out.push_str(text);
    }
}

fn value(
    kind: char,
    argument: &str,
    precision: Option<usize>,
    fine: &mut bool,
    over: &mut bool,
) -> Result<String, String> {
    let mut whole = || match argument.strip_prefix(['\'', '"']) {
        Some(text) => text.chars().next().map_or(0, |c| i64::from(u32::from(c))),
        None if argument.is_empty() => 0,
        None => number(argument).unwrap_or_else(|| {
            *fine = false;
            0
        }),
    };
    let cut = |text: &str| text.chars().take(precision.unwrap_or(usize::MAX)).collect();
    Ok(match kind {
        's' => cut(argument),
        'b' => {
            let (text, ended) = escapes(argument);
            *over = ended;
            cut(&text)
        }
        'c' => argument.chars().take(1).collect(),
        'd' | 'i' => whole().to_string(),
        'u' => whole().cast_unsigned().to_string(),
        'x' => format!("{:x}", whole()),
        'X' => format!("{:X}", whole()),
        'o' => format!("{:o}", whole()),
        'f' | 'F' | 'e' | 'g' => {
            let number: f64 = argument.parse().unwrap_or_else(|_| {
                *fine = argument.is_empty();
                0.0
            });
            match kind {
                'g' => number.to_string(),
                'e' => format!("{number:.*e}", precision.unwrap_or(6)),
                _ => format!("{number:.*}", precision.unwrap_or(6)),
            }
        }
        other => return Err(format!("printf: unknown format %{other}")),
    })
}

/// A text with its escapes replaced; true if `\c` ended it.
pub fn escapes(text: &str) -> (String, bool) {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        match escape(&rest[at + 1..], true) {
            (Some(c), after) => {
                out.push(c);
                rest = after;
            }
            (None, _) => return (out, true),
        }
    }
    out.push_str(rest);
    (out, false)
}

/// The character after a backslash, and what follows. `zero`: octal numbers begin with one.
fn escape(text: &str, zero: bool) -> (Option<char>, &str) {
    let Some(c) = text.chars().next() else { return (Some('\\'), text) };
    let after = &text[c.len_utf8()..];
    let coded = |digits: &str, base: u32, after| {
        let code = u32::from_str_radix(digits, base).ok().and_then(char::from_u32);
        (code.or(Some('\0')), after)
    };
    match c {
        'n' => (Some('\n'), after),
        't' => (Some('\t'), after),
        'r' => (Some('\r'), after),
        'a' => (Some('\u{7}'), after),
        'b' => (Some('\u{8}'), after),
        'e' => (Some('\u{1b}'), after),
        'f' => (Some('\u{c}'), after),
        'v' => (Some('\u{b}'), after),
        '\\' => (Some('\\'), after),
        '"' if !zero => (Some('"'), after),
        'c' => (None, after),
        'x' => {
            let end = after.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(after.len()).min(2);
            if end == 0 { (Some('\\'), text) } else { coded(&after[..end], 16, &after[end..]) }
        }
        '0'..='7' => {
            let digits = if zero && c == '0' { after } else { text };
            let end = digits.find(|c: char| !c.is_digit(8)).unwrap_or(digits.len()).min(3);
            coded(&digits[..end], 8, &digits[end..])
        }
        _ => (Some('\\'), text),
    }
}
