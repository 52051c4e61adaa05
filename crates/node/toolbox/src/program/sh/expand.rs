//! What words become: variables, output of commands, splitting, names of files.

use super::ast::{Change, Part, Quoting, Variable, Word};
use super::pattern::{self, Mark};
use super::{Shell, arithmetic};

/// A word that is being put together: its characters, and whether there is a word at all.
#[derive(Default)]
struct Fields {
    done: Vec<Vec<Mark>>,
    current: Option<Vec<Mark>>,
}

impl Fields {
    fn push(&mut self, text: &str, quoted: bool) {
        self.current.get_or_insert_default().extend(text.chars().map(|c| (c, quoted)));
    }

    fn end(&mut self) {
        self.done.extend(self.current.take());
    }

    /// Adds text that is split where there are separators.
    fn split(&mut self, text: &str, separators: &str) {
        let mut after_blank = true;
        for c in text.chars() {
            if !separators.contains(c) {
                self.current.get_or_insert_default().push((c, false));
                after_blank = false;
            } else if c.is_ascii_whitespace() {
                self.end();
            } else {
                // Separators that are no blanks separate empty words, too.
                if !after_blank || self.current.is_none() {
                    self.current.get_or_insert_default();
                }
                self.end();
                after_blank = true;
            }
        }
    }
}

impl Shell {
    /// The words that words become.
    pub(super) fn fields(&mut self, words: &[Word]) -> Result<Vec<String>, String> {
        let mut all = Vec::new();
        for word in words {
            let mut fields = Fields::default();
            self.expand(word, &mut fields)?;
            fields.end();
            for field in fields.done {
                if pattern::is_pattern(&field) && !self.options.noglob {
                    all.extend(pattern::files(&field));
                } else {
                    all.push(text(&field));
                }
            }
        }
        Ok(all)
    }

    /// The one text that a word becomes, where nothing is split: assignments, redirections, `case`.
    pub(super) fn one(&mut self, word: &Word) -> Result<String, String> {
        Ok(text(&self.marks(word)?))
    }

    /// The same with the knowledge of what stood in quotes, for patterns.
    pub(super) fn marks(&mut self, word: &Word) -> Result<Vec<Mark>, String> {
        let separators = self.variables.get("IFS").cloned();
        // Without separators nothing is split.
        self.set("IFS", "");
        let mut fields = Fields::default();
        let result = self.expand(word, &mut fields);
        match separators {
            Some(separators) => self.set("IFS", &separators),
            None => self.unset("IFS"),
        }
        result?;
        fields.end();
        Ok(fields.done.join(&(' ', true)))
    }

    fn expand(&mut self, word: &Word, fields: &mut Fields) -> Result<(), String> {
        for (number, part) in word.iter().enumerate() {
            match part {
                Part::Plain(plain) if number == 0 && plain.starts_with('~') => {
                    let rest = &plain[1..];
                    let home =
                        self.variables.get("HOME").filter(|_| rest.is_empty() || rest.starts_with('/'));
                    match home.cloned() {
                        Some(home) => {
                            fields.push(&home, true);
                            fields.push(rest, false);
                        }
                        None => fields.push(plain, false),
                    }
                }
                Part::Plain(plain) => fields.push(plain, false),
                // "$@" without arguments is no word, although it stands in quotes.
                Part::Quoted(text) if text.is_empty() && self.is_no_arguments(word.get(number + 1)) => {}
                Part::Quoted(text) => fields.push(text, true),
                Part::Variable(variable, quoting) => self.variable(variable, *quoting, fields)?,
                Part::Command(list, quoting) => {
                    let output = self.output(list)?;
                    self.put(output.trim_end_matches('\n'), *quoting, fields);
                }
                Part::Arithmetic(word) => {
                    let text = self.one(word)?;
                    fields.push(&arithmetic::evaluate(&text, self)?.to_string(), true);
                }
            }
        }
        Ok(())
    }

    fn is_no_arguments(&self, part: Option<&Part>) -> bool {
        let is = |part: &Part| match part {
            Part::Variable(variable, Quoting::Double) => {
                variable.name == "@" && variable.change == Change::None
            }
            _ => false,
        };
        part.is_some_and(is) && self.arguments.is_empty()
    }

    fn put(&mut self, text: &str, quoting: Quoting, fields: &mut Fields) {
        match quoting {
            Quoting::Double => fields.push(text, true),
            Quoting::Open => {
                let separators = self.variables.get("IFS").map_or(" \t\n", String::as_str);
                fields.split(text, separators);
            }
        }
    }

    fn variable(&mut self, variable: &Variable, quoting: Quoting, fields: &mut Fields) -> Result<(), String> {
        if variable.name == "@" && variable.change == Change::None {
            for (number, argument) in self.arguments.clone().iter().enumerate() {
                if number > 0 {
                    fields.end();
                }
                self.put(argument, quoting, fields);
            }
            return Ok(());
        }
        let value = self.value(&variable.name);
        let text = match &variable.change {
            Change::None => self.known(&variable.name, value)?,
            Change::Length => self.known(&variable.name, value)?.chars().count().to_string(),
            Change::Cut(side, longest, word) => {
                let pattern = self.marks(word)?;
                cut(&self.known(&variable.name, value)?, &pattern, *side, *longest)
            }
            Change::Test(test, colon, word) => {
                let present = value.filter(|value| !colon || !value.is_empty());
                match (test, present) {
                    ('-' | '=' | '?', Some(value)) => value,
                    ('+', None) => String::new(),
                    ('-', None) | ('+', Some(_)) if quoting == Quoting::Open => {
                        return self.expand(word, fields);
                    }
                    ('=', None) => {
                        let value = self.one(word)?;
                        self.set(&variable.name, &value);
                        value
                    }
                    ('?', None) => {
                        let message = self.one(word)?;
                        let message = if message.is_empty() { "parameter not set" } else { &message };
                        self.fatal = true;
                        return Err(format!("{}: {message}", variable.name));
                    }
                    _ => self.one(word)?,
                }
            }
        };
        self.put(&text, quoting, fields);
        Ok(())
    }

    fn known(&mut self, name: &str, value: Option<String>) -> Result<String, String> {
        if value.is_none() && self.options.unset_is_error && !matches!(name, "@" | "*") {
            self.fatal = true;
            return Err(format!("{name}: parameter not set"));
        }
        Ok(value.unwrap_or_default())
    }

    /// The value of a variable or special parameter.
    pub(super) fn value(&self, name: &str) -> Option<String> {
        Some(match name {
            "?" => self.status.to_string(),
            "$" => self.pid.to_string(),
            "#" => self.arguments.len().to_string(),
            "!" => self.last_background?.to_string(),
            "-" => self.options.letters(),
            "@" | "*" => {
                let separator = self.variables.get("IFS").map_or(" ", |ifs| {
                    ifs.char_indices().nth(1).map_or(ifs.as_str(), |(end, _)| &ifs[..end])
                });
                self.arguments.join(separator)
            }
            "0" => self.name.clone(),
            "PPID" if !self.variables.contains_key(name) => std::os::unix::process::parent_id().to_string(),
            _ => match name.parse::<usize>() {
                Ok(number) => self.arguments.get(number - 1)?.clone(),
                Err(_) => self.variables.get(name)?.clone(),
            },
        })
    }
}

impl arithmetic::Variables for Shell {
    fn number(&self, name: &str) -> i64 {
        self.value(name).and_then(|value| arithmetic::number(value.trim())).unwrap_or(0)
    }

    fn set_number(&mut self, name: &str, value: i64) {
        self.set(name, &value.to_string());
    }
}

fn text(marks: &[Mark]) -> String {
    marks.iter().map(|(c, _)| *c).collect()
}

/// Takes away what matches at the start (`#`) or end (`%`).
fn cut(value: &str, pattern: &[Mark], side: char, longest: bool) -> String {
    let value: Vec<char> = value.chars().collect();
    let len = value.len();
    // Lengths of what is taken away, the one that is wanted first.
    let lengths: Vec<usize> = if longest { (0..=len).rev().collect() } else { (0..=len).collect() };
    for taken in lengths {
        let (piece, rest) = match side {
            '#' => value.split_at(taken),
            _ => {
                let (rest, piece) = value.split_at(len - taken);
                (piece, rest)
            }
        };
        if pattern::matches(pattern, piece) {
            return rest.iter().collect();
        }
    }
    value.into_iter().collect()
}
