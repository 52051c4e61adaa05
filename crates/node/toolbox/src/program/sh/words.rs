//! Words: quotes, `$NAME`, `${…}`, `$(…)`, `$((…))`.

use std::rc::Rc;

use super::ast::{Change, Part, Quoting, Variable, Word};
use super::parse::{Parsed, Parser, Problem};

/// Where a word ends that is not in quotes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// At a blank or an operator.
    Word,
    /// At the brace of `${NAME:-word}`.
    Brace,
    /// At the closing quote.
    Quote,
    /// At the end of the text: a here-document.
    Text,
}

/// Whether a text could be a variable's name.
pub fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The text of a word in which nothing is to be expanded.
pub fn literal(word: &Word) -> Option<String> {
    let text = |part: &Part| match part {
        Part::Plain(text) | Part::Quoted(text) => Some(text.clone()),
        _ => None,
    };
    word.iter().map(text).collect()
}

/// The text of a here-document, in which variables and commands are expanded.
pub fn document(text: &str) -> Parsed<Word> {
    Parser::new(text).parts(End::Text)
}

impl Parser<'_> {
    /// The next word, if there is one.
    pub(super) fn word(&mut self) -> Parsed<Option<Word>> {
        let word = self.parts(End::Word)?;
        Ok((!word.is_empty()).then_some(word))
    }

    fn parts(&mut self, end: End) -> Parsed<Word> {
        let quoted = matches!(end, End::Quote | End::Text);
        let mut word = Word::new();
        while let Some(c) = self.peek() {
            match (end, c) {
                (End::Word, ' ' | '\t' | '\r' | '\n' | ';' | '&' | '|' | '<' | '>' | '(' | ')') => break,
                (End::Brace, '}') | (End::Quote, '"') => break,
                (_, '\\') => self.escaped(end, &mut word)?,
                (End::Word | End::Brace, '\'') => {
                    self.at += 1;
                    let len = self.rest().find('\'').ok_or_else(|| missing("'"))?;
                    word.push(Part::Quoted(self.rest()[..len].to_owned()));
                    self.at += len + 1;
                }
                (End::Word | End::Brace, '"') => {
                    self.at += 1;
                    let inside = self.parts(End::Quote)?;
                    if !self.eat("\"") {
                        return Err(missing("\""));
                    }
                    // Quotes around nothing make a word, too.
                    word.push(Part::Quoted(String::new()));
                    word.extend(inside);
                }
                (_, '$') => self.dollar(if quoted { Quoting::Double } else { Quoting::Open }, &mut word)?,
                (_, '`') => {
                    self.backquoted(if quoted { Quoting::Double } else { Quoting::Open }, &mut word)?
                }
                (_, c) => {
                    self.at += c.len_utf8();
                    push(&mut word, c, quoted);
                }
            }
        }
        Ok(word)
    }

    fn escaped(&mut self, end: End, word: &mut Word) -> Parsed<()> {
        self.at += 1;
        let Some(c) = self.peek() else { return Err(Problem::Incomplete("nothing after \\".to_owned())) };
        self.at += c.len_utf8();
        let quoted = matches!(end, End::Quote | End::Text);
        match c {
            '\n' => {}
            '$' | '`' | '\\' => push(word, c, true),
            '"' if end != End::Text => push(word, c, true),
            c if quoted => {
                push(word, '\\', true);
                push(word, c, true);
            }
            c => push(word, c, true),
        }
        Ok(())
    }

    fn dollar(&mut self, quoting: Quoting, word: &mut Word) -> Parsed<()> {
        self.at += 1;
        let rest = self.rest();
        if rest.starts_with("((")
            && let Some(part) = self.arithmetic()?
        {
            word.push(part);
            return Ok(());
        }
        if self.eat("(") {
            self.depth += 1;
            if self.depth > 100 {
                return Err(Problem::Wrong("commands are nested too deep".to_owned()));
            }
            word.push(Part::Command(Rc::new(self.substitution()?), quoting));
            self.depth -= 1;
            return Ok(());
        }
        if self.eat("{") {
            let variable = self.braces()?;
            if !self.eat("}") {
                return Err(match self.peek() {
                    None => missing("}"),
                    Some(c) => Problem::Wrong(format!("bad substitution: unexpected {c:?} in ${{}}")),
                });
            }
            word.push(Part::Variable(Box::new(variable), quoting));
            return Ok(());
        }
        let name = self.name();
        if name.is_empty() {
            push(word, '$', quoting == Quoting::Double);
        } else {
            word.push(Part::Variable(Box::new(Variable { name, change: Change::None }), quoting));
        }
        Ok(())
    }

    /// A variable's name, one digit, or one of the special characters.
    fn name(&mut self) -> String {
        let rest = self.rest();
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let len = match rest.chars().next() {
            Some(c) if c.is_ascii_digit() || "?$#@*!-".contains(c) => 1,
            Some(c) if is_part(c) => rest.find(|c| !is_part(c)).unwrap_or(rest.len()),
            _ => 0,
        };
        self.at += len;
        rest[..len].to_owned()
    }

    fn braces(&mut self) -> Parsed<Variable> {
        let bad = || Problem::Wrong("bad substitution: a name is missing in ${}".to_owned());
        if self.rest().starts_with('#') && !self.rest().starts_with("#}") {
            self.at += 1;
            return Ok(Variable { name: self.name(), change: Change::Length });
        }
        let mut name = self.name();
        while name.starts_with(|c: char| c.is_ascii_digit())
            && self.peek().is_some_and(|c| c.is_ascii_digit())
        {
            name.push_str(&self.name());
        }
        if name.is_empty() {
            return Err(if self.peek().is_none() { missing("}") } else { bad() });
        }
        let colon = self.eat(":");
        let change = match self.peek() {
            Some(c @ ('-' | '=' | '?' | '+')) => {
                self.at += 1;
                Change::Test(c, colon, self.parts(End::Brace)?)
            }
            Some(c @ ('#' | '%')) if !colon => {
                self.at += 1;
                let longest = self.eat(if c == '#' { "#" } else { "%" });
                Change::Cut(c, longest, self.parts(End::Brace)?)
            }
            _ if colon => return Err(bad()),
            _ => Change::None,
        };
        Ok(Variable { name, change })
    }

    /// `((…))` after the dollar; `None` if it is a subshell in a substitution after all.
    fn arithmetic(&mut self) -> Parsed<Option<Part>> {
        let (mut depth, mut end) = (0_usize, None);
        for (at, c) in self.rest().char_indices() {
            match c {
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => continue,
            }
            if depth == 0 {
                end = Some(at);
                break;
            }
        }
        let end = end.ok_or_else(|| missing("))"))?;
        let Some(inside) = self.rest()[..end].strip_prefix("((").and_then(|text| text.strip_suffix(')'))
        else {
            return Ok(None);
        };
        let word = Parser { depth: self.depth, ..Parser::new(inside) }.parts(End::Text)?;
        self.at += end + 1;
        Ok(Some(Part::Arithmetic(word)))
    }

    fn backquoted(&mut self, quoting: Quoting, word: &mut Word) -> Parsed<()> {
        self.at += 1;
        let mut inside = String::new();
        loop {
            let c = self.peek().ok_or_else(|| missing("`"))?;
            self.at += c.len_utf8();
            match c {
                '`' => break,
                '\\' if self.rest().starts_with(['`', '\\', '$']) => {
                    inside.extend(self.peek());
                    self.at += 1;
                }
                c => inside.push(c),
            }
        }
        let mut list = Vec::new();
        let mut parser = Parser { depth: self.depth + 1, ..Parser::new(&inside) };
        while let Some(line) = parser.line()? {
            list.extend(line);
        }
        word.push(Part::Command(Rc::new(list), quoting));
        Ok(())
    }
}

fn missing(text: &str) -> Problem {
    Problem::Incomplete(format!("{text:?} is missing at the end"))
}

fn push(word: &mut Word, c: char, quoted: bool) {
    match word.last_mut() {
        Some(Part::Plain(text)) if !quoted => text.push(c),
        Some(Part::Quoted(text)) if quoted => text.push(c),
        _ if quoted => word.push(Part::Quoted(c.to_string())),
        _ => word.push(Part::Plain(c.to_string())),
    }
}
