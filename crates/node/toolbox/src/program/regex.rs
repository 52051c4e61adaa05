//! Regular expressions, basic and extended (POSIX.1-2017, chapter 9), without back-references.

/// A pattern.
pub struct Regex {
    branches: Vec<Vec<Piece>>,
    fold: bool,
}

/// A part with how often it occurs.
struct Piece {
    part: Part,
    least: usize,
    most: usize,
}

enum Part {
    Any,
    Char(char),
    /// Negated, and ranges.
    Set(bool, Vec<(char, char)>),
    Start,
    End,
    Group(Vec<Vec<Piece>>),
}

const MAX_DEPTH: usize = 50;

impl Regex {
    /// Reads a pattern; `fixed` takes it as it stands, `fold` makes no difference between cases.
    pub fn new(pattern: &str, extended: bool, fixed: bool, fold: bool) -> Result<Self, String> {
        let pattern = if fold { pattern.to_lowercase() } else { pattern.to_owned() };
        let chars: Vec<char> = pattern.chars().collect();
        if fixed {
            let pieces = chars.into_iter().map(|c| Piece { part: Part::Char(c), least: 1, most: 1 });
            return Ok(Self { branches: vec![pieces.collect()], fold });
        }
        let mut reader = Reader { chars, at: 0, extended, depth: 0 };
        let branches = reader.branches()?;
        if reader.at < reader.chars.len() {
            return Err("unmatched )".to_owned());
        }
        Ok(Self { branches, fold })
    }

    /// Where the first match begins and ends, in characters.
    pub fn find(&self, text: &str) -> Option<(usize, usize)> {
        let text: Vec<char> = if self.fold { text.to_lowercase() } else { text.to_owned() }.chars().collect();
        (0..=text.len()).find_map(|start| {
            let mut end = None;
            for branch in &self.branches {
                run(branch, &text, start, &mut |at| {
                    end = end.max(Some(at));
                    false
                });
            }
            end.map(|end| (start, end))
        })
    }
}

/// Calls `go` with every end of a match of `pieces` from `at`, until it is content.
fn run(pieces: &[Piece], text: &[char], at: usize, go: &mut dyn FnMut(usize) -> bool) -> bool {
    let Some((piece, rest)) = pieces.split_first() else { return go(at) };
    repeat(piece, 0, text, at, &mut |next| run(rest, text, next, go))
}

fn repeat(piece: &Piece, count: usize, text: &[char], at: usize, go: &mut dyn FnMut(usize) -> bool) -> bool {
    // Single characters are counted rather than recursed into: lines may be long.
    if !matches!(piece.part, Part::Group(_) | Part::Start | Part::End) {
        let fits = |c: &char| match &piece.part {
            Part::Any => true,
            Part::Char(own) => own == c,
            Part::Set(not, ranges) => ranges.iter().any(|(first, last)| (first..=last).contains(&c)) != *not,
            _ => false,
        };
        let most = text[at..].iter().take(piece.most).take_while(|c| fits(c)).count();
        return most >= piece.least && (piece.least..=most).rev().any(|count| go(at + count));
    }
    if count < piece.most {
        let again =
            &mut |next: usize| (next > at || count < piece.least) && repeat(piece, count + 1, text, next, go);
        let found = match &piece.part {
            Part::Start => at == 0 && again(at),
            Part::End => at == text.len() && again(at),
            Part::Group(branches) => branches.iter().any(|branch| run(branch, text, at, again)),
            _ => false,
        };
        if found {
            return true;
        }
    }
    count >= piece.least && go(at)
}

struct Reader {
    chars: Vec<char>,
    at: usize,
    extended: bool,
    depth: usize,
}

impl Reader {
    /// Whether an operator comes next: itself in extended, after a backslash in basic expressions.
    fn operator(&mut self, c: char) -> bool {
        let found = match self.extended {
            true => self.chars.get(self.at) == Some(&c),
            false => self.chars.get(self.at..self.at + 2) == Some(&['\\', c]),
        };
        self.at += if found { 2 - usize::from(self.extended) } else { 0 };
        found
    }

    fn is_operator(&mut self, c: char) -> bool {
        let at = self.at;
        let found = self.operator(c);
        self.at = at;
        found
    }

    fn branches(&mut self) -> Result<Vec<Vec<Piece>>, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("groups are nested too deep".to_owned());
        }
        let mut branches = vec![self.branch()?];
        while self.operator('|') {
            branches.push(self.branch()?);
        }
        self.depth -= 1;
        Ok(branches)
    }

    fn branch(&mut self) -> Result<Vec<Piece>, String> {
        let mut pieces = Vec::new();
        while self.at < self.chars.len()
            && !self.is_operator('|')
            && !(self.depth > 1 && self.is_operator(')'))
        {
            let part = self.part(pieces.is_empty())?;
            let (mut least, mut most) = (1, 1);
            let can_repeat = !matches!(part, Part::Start);
            if can_repeat && self.chars.get(self.at) == Some(&'*') {
                self.at += 1;
                (least, most) = (0, usize::MAX);
            } else if can_repeat && self.operator('+') {
                most = usize::MAX;
            } else if can_repeat && self.operator('?') {
                least = 0;
            } else if can_repeat && self.operator('{') {
                (least, most) = self.interval()?;
            }
            pieces.push(Piece { part, least, most });
        }
        Ok(pieces)
    }

    fn interval(&mut self) -> Result<(usize, usize), String> {
        let start = self.at;
        while self.chars.get(self.at).is_some_and(|c| c.is_ascii_digit() || *c == ',') {
            self.at += 1;
        }
        let text: String = self.chars[start..self.at].iter().collect();
        let (least, most) = text.split_once(',').unwrap_or((&text, &text));
        let bad = || format!("bad interval {{{text}}}");
        let least = if least.is_empty() { 0 } else { least.parse().map_err(|_| bad())? };
        let most = if most.is_empty() { usize::MAX } else { most.parse().map_err(|_| bad())? };
        if self.operator('}') && least <= most { Ok((least, most)) } else { Err(bad()) }
    }

    fn part(&mut self, first: bool) -> Result<Part, String> {
        if self.operator('(') {
            let branches = self.branches()?;
            return if self.operator(')') {
                Ok(Part::Group(branches))
            } else {
                Err("( without )".to_owned())
            };
        }
        let c = self.chars[self.at];
        self.at += 1;
        let last = self.at == self.chars.len() || self.is_operator(')') || self.is_operator('|');
        Ok(match c {
            '.' => Part::Any,
            '^' if first || self.extended => Part::Start,
            '$' if last || self.extended => Part::End,
            '[' => self.set()?,
            '\\' => {
                let c = *self.chars.get(self.at).ok_or("nothing after \\")?;
                self.at += 1;
                match c {
                    'w' => Part::Set(false, vec![('a', 'z'), ('A', 'Z'), ('0', '9'), ('_', '_')]),
                    's' => Part::Set(false, vec![(' ', ' '), ('\t', '\r')]),
                    c => Part::Char(c),
                }
            }
            c => Part::Char(c),
        })
    }

    fn set(&mut self) -> Result<Part, String> {
        let not = self.chars.get(self.at) == Some(&'^');
        self.at += usize::from(not);
        let (start, mut ranges) = (self.at, Vec::new());
        loop {
            let c = *self.chars.get(self.at).ok_or("[ without ]")?;
            if c == ']' && self.at > start {
                self.at += 1;
                return Ok(Part::Set(not, ranges));
            }
            if c == '[' && self.chars.get(self.at + 1) == Some(&':') {
                let rest = &self.chars[self.at + 2..];
                let len = rest.iter().position(|c| *c == ':').ok_or("[: without :]")?;
                let name: String = rest[..len].iter().collect();
                let class = super::sh::class(&name).ok_or_else(|| format!("unknown class {name:?}"))?;
                ranges.extend_from_slice(class);
                self.at += len + 4;
                continue;
            }
            let end = self.chars.get(self.at + 2).filter(|end| **end != ']');
            match end.filter(|_| self.chars.get(self.at + 1) == Some(&'-')) {
                Some(end) => {
                    ranges.push((c, *end));
                    self.at += 3;
                }
                None => {
                    ranges.push((c, c));
                    self.at += 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_find_what_they_should() {
        let cases = [
            ("a.c", true, "xabcx", Some((1, 4))),
            ("^a*$", true, "aaa", Some((0, 3))),
            ("^$", false, "", Some((0, 0))),
            ("a+b?", true, "caab", Some((1, 4))),
            ("a+b", false, "a+b", Some((0, 3))),
            ("x|yy", true, "ayy", Some((1, 3))),
            ("(ab)+c", true, "ababc", Some((0, 5))),
            ("\\(ab\\)*c", false, "ababc", Some((0, 5))),
            ("[^0-9]", false, "12a", Some((2, 3))),
            ("[[:digit:]]{2,3}", true, "a1234", Some((1, 4))),
            ("(a*)*b", true, "aaaa", None),
            ("\\.", true, "a.b", Some((1, 2))),
            ("a$", false, "ab", None),
        ];
        for (pattern, extended, text, expected) in cases {
            let regex = Regex::new(pattern, extended, false, false).unwrap();
            assert_eq!(regex.find(text), expected, "{pattern} {text}");
        }
        assert!(Regex::new("(", true, false, false).is_err());
        assert!(Regex::new("[", false, false, false).is_err());
        assert!(Regex::new("aB", false, true, true).unwrap().find("xAb").is_some());
    }
}
