//! Patterns: `*`, `?`, `[…]`, for `case`, for `${NAME%pattern}` and for names of files.

/// A character, and whether it stood in quotes and so means itself.
pub type Mark = (char, bool);

/// Whether a pattern could match more than itself.
pub fn is_pattern(pattern: &[Mark]) -> bool {
    pattern.iter().any(|(c, quoted)| !quoted && matches!(c, '*' | '?' | '['))
}

/// Whether all of `text` matches.
pub fn matches(pattern: &[Mark], text: &[char]) -> bool {
    // Where to go on when what follows the last star does not match.
    let (mut p, mut t, mut star) = (0, 0, None);
    loop {
        match pattern.get(p) {
            Some(('*', false)) => {
                star = Some((p, t));
                p += 1;
                continue;
            }
            Some(_) if t < text.len() => {
                if let Some(next) = one(pattern, p, text[t]) {
                    (p, t) = (next, t + 1);
                    continue;
                }
            }
            None if t == text.len() => return true,
            _ => {}
        }
        match star {
            Some((at, from)) if from < text.len() => {
                star = Some((at, from + 1));
                (p, t) = (at + 1, from + 1);
            }
            _ => return false,
        }
    }
}

/// Matches one character, and returns where the pattern goes on.
fn one(pattern: &[Mark], at: usize, c: char) -> Option<usize> {
    match pattern[at] {
        ('?', false) => Some(at + 1),
        ('[', false) => match set(pattern, at + 1) {
            Some((end, not, ranges)) => {
                let found = ranges.iter().any(|(first, last)| (*first..=*last).contains(&c));
                (found != not).then_some(end)
            }
            None => (c == '[').then_some(at + 1),
        },
        (other, _) => (other == c).then_some(at + 1),
    }
}

type Set = (usize, bool, Vec<(char, char)>);

/// A set after its bracket: where it ends, whether it is meant the other way round, and what is in it.
fn set(pattern: &[Mark], mut at: usize) -> Option<Set> {
    let not = matches!(pattern.get(at), Some(('!' | '^', false)));
    at += usize::from(not);
    let (start, mut ranges) = (at, Vec::new());
    loop {
        let (c, quoted) = *pattern.get(at)?;
        if c == ']' && !quoted && at > start {
            return Some((at + 1, not, ranges));
        }
        if c == '[' && !quoted && pattern.get(at + 1) == Some(&(':', false)) {
            let rest = &pattern[at + 2..];
            let len = rest.windows(2).position(|w| w[0].0 == ':' && w[1].0 == ']')?;
            let name: String = rest[..len].iter().map(|(c, _)| *c).collect();
            ranges.extend_from_slice(class(&name)?);
            at += len + 4;
            continue;
        }
        let dash = pattern.get(at + 1) == Some(&('-', false));
        match pattern.get(at + 2).filter(|(last, quoted)| dash && (*last != ']' || *quoted)) {
            Some((last, _)) => {
                ranges.push((c, *last));
                at += 3;
            }
            None => {
                ranges.push((c, c));
                at += 1;
            }
        }
    }
}

/// The characters of a class such as `digit`.
pub fn class(name: &str) -> Option<&'static [(char, char)]> {
    Some(match name {
        "alpha" => &[('a', 'z'), ('A', 'Z')],
        "digit" => &[('0', '9')],
        "alnum" => &[('a', 'z'), ('A', 'Z'), ('0', '9')],
        "upper" => &[('A', 'Z')],
        "lower" => &[('a', 'z')],
        "space" => &[('\t', '\r'), (' ', ' ')],
        "blank" => &[('\t', '\t'), (' ', ' ')],
        "xdigit" => &[('0', '9'), ('a', 'f'), ('A', 'F')],
        "punct" => &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')],
        _ => return None,
    })
}

/// The names of files that match, sorted; a pattern that matches none stands for itself.
pub fn files(pattern: &[Mark]) -> Vec<String> {
    let plain = |marks: &[Mark]| marks.iter().map(|(c, _)| *c).collect::<String>();
    let mut found = vec![String::new()];
    for (number, piece) in pattern.split(|(c, _)| *c == '/').enumerate() {
        let join =
            |base: &str, name: &str| if number == 0 { name.to_owned() } else { format!("{base}/{name}") };
        if !is_pattern(piece) {
            found = found.iter().map(|base| join(base, &plain(piece))).collect();
            continue;
        }
        let hidden = piece.first().is_some_and(|(c, _)| *c == '.');
        let mut next = Vec::new();
        for base in &found {
            let directory = match (number, base.as_str()) {
                (0, _) => ".",
                (_, "") => "/",
                (_, base) => base,
            };
            let names = std::fs::read_dir(directory).into_iter().flatten().flatten();
            let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
            let fits = |name: &String| {
                (hidden || !name.starts_with('.')) && matches(piece, &name.chars().collect::<Vec<_>>())
            };
            next.extend(names.filter(fits).map(|name| join(base, &name)));
        }
        found = next;
    }
    found.retain(|name| std::fs::symlink_metadata(name).is_ok());
    found.sort();
    if found.is_empty() { vec![plain(pattern)] } else { found }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match() {
        let cases = [
            ("a*c", "abc", true),
            ("a*c", "ab", false),
            ("*", "", true),
            ("a?c", "abc", true),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[]x]", "]", true),
            ("[a-]", "-", true),
            ("*.t*t", "a.b.txt", true),
            ("[[:digit:]]*", "7up", true),
            ("[", "[", true),
            ("a**b", "ab", true),
        ];
        for (pattern, text, expected) in cases {
            let marks: Vec<Mark> = pattern.chars().map(|c| (c, false)).collect();
            assert_eq!(matches(&marks, &text.chars().collect::<Vec<_>>()), expected, "{pattern} {text}");
        }
        assert!(!matches(&[('*', true)], &['x']));
    }
}
