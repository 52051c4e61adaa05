//! From text to commands: a parser that reads characters itself, because where words end depends on the grammar.

use std::rc::Rc;

use super::ast::{AndOr, Command, Compound, List, Part, Pipeline, Redirect, Simple, Target, Word};
use super::words::{is_name, literal};

/// Why a text is no script.
#[derive(Debug, PartialEq)]
pub enum Problem {
    /// It could go on: this is missing.
    Incomplete(String),
    /// It is wrong whatever follows.
    Wrong(String),
}

/// A result of parsing.
pub type Parsed<T> = Result<T, Problem>;

const RESERVED: &[&str] = &[
    "if", "then", "elif", "else", "fi", "for", "while", "until", "do", "done", "case", "esac", "{", "}", "!",
];

/// Nested commands are limited, so that no script exhausts the stack.
const MAX_DEPTH: usize = 200;

/// Reads commands from a text.
pub struct Parser<'a> {
    pub(super) text: &'a str,
    pub(super) at: usize,
    pub(super) depth: usize,
    /// Here-documents whose text begins after the next newline: number, delimiter, `<<-`, literal.
    pub(super) waiting: Vec<(usize, String, bool, bool)>,
    /// Texts of the here-documents.
    pub(super) texts: Vec<Word>,
}

impl<'a> Parser<'a> {
    /// A parser at the start of a text.
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0, depth: 0, waiting: Vec::new(), texts: Vec::new() }
    }

    /// The commands up to the end of a line, `None` at the end of the text.
    pub fn line(&mut self) -> Parsed<Option<List>> {
        self.newlines()?;
        if self.at == self.text.len() {
            return Ok(None);
        }
        let mut list = self.list(&[], false)?;
        if !self.eat("\n") && self.at < self.text.len() {
            return Err(self.unexpected());
        }
        self.documents()?;
        let texts = std::mem::take(&mut self.texts);
        list.iter_mut().for_each(|and_or| fill_and_or(and_or, &texts));
        Ok(Some(list))
    }

    /// The commands of `$(…)` up to its bracket.
    pub(super) fn substitution(&mut self) -> Parsed<List> {
        let (waiting, texts) = (std::mem::take(&mut self.waiting), std::mem::take(&mut self.texts));
        let mut list = self.block(&[])?;
        let own = std::mem::replace(&mut self.texts, texts);
        list.iter_mut().for_each(|and_or| fill_and_or(and_or, &own));
        self.waiting = waiting;
        self.expect(")")?;
        Ok(list)
    }

    pub(super) fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub(super) fn eat(&mut self, text: &str) -> bool {
        let found = self.rest().starts_with(text);
        self.at += if found { text.len() } else { 0 };
        found
    }

    pub(super) fn blanks(&mut self) {
        loop {
            match self.peek() {
                Some(' ' | '\t' | '\r') => self.at += 1,
                Some('\\') if self.rest().starts_with("\\\n") => self.at += 2,
                Some('#') => self.at += self.rest().find('\n').unwrap_or(self.rest().len()),
                _ => return,
            }
        }
    }

    fn newlines(&mut self) -> Parsed<()> {
        self.blanks();
        while self.eat("\n") {
            self.documents()?;
            self.blanks();
        }
        Ok(())
    }

    fn expect(&mut self, text: &str) -> Parsed<()> {
        self.blanks();
        if self.eat(text) {
            return Ok(());
        }
        if self.at == self.text.len() {
            return Err(Problem::Incomplete(format!("{text:?} is missing at the end")));
        }
        Err(self.unexpected())
    }

    fn unexpected(&self) -> Problem {
        let word: String = match self.peek() {
            Some('\n') | None => "end of line".to_owned(),
            Some(c) if !c.is_alphanumeric() => c.to_string(),
            _ => self.rest().chars().take_while(|c| !c.is_whitespace() && *c != ';').take(40).collect(),
        };
        let line = self.text[..self.at].matches('\n').count() + 1;
        Problem::Wrong(format!("syntax error in line {line}: unexpected {word:?}"))
    }

    /// The reserved word that comes next.
    fn reserved(&mut self) -> Option<&'static str> {
        self.blanks();
        let rest = self.rest();
        let end =
            rest.find(|c: char| c.is_whitespace() || ";&|()<>'\"$\\`".contains(c)).unwrap_or(rest.len());
        RESERVED.iter().find(|word| **word == &rest[..end]).copied()
    }

    fn keyword(&mut self, word: &'static str) -> Parsed<()> {
        if self.reserved() == Some(word) {
            self.at += word.len();
            return Ok(());
        }
        if self.at == self.text.len() {
            return Err(Problem::Incomplete(format!("{word:?} is missing at the end")));
        }
        Err(self.unexpected())
    }

    /// Commands over several lines, up to one of the reserved words or a bracket.
    fn block(&mut self, ends: &[&'static str]) -> Parsed<List> {
        self.newlines()?;
        let list = self.list(ends, true)?;
        self.newlines()?;
        Ok(list)
    }

    fn list(&mut self, ends: &[&'static str], lines: bool) -> Parsed<List> {
        let mut list = List::new();
        loop {
            self.blanks();
            let over = self.reserved().is_some_and(|word| ends.contains(&word));
            if over || matches!(self.peek(), None | Some('\n' | ')')) || self.rest().starts_with(";;") {
                return Ok(list);
            }
            let mut and_or = self.and_or()?;
            self.blanks();
            if self.rest().starts_with(";;") {
                list.push(and_or);
                return Ok(list);
            }
            and_or.background = self.peek() == Some('&');
            let more = self.eat("&") || self.eat(";");
            list.push(and_or);
            let newline = self.peek() == Some('\n');
            if lines {
                self.newlines()?;
            }
            let goes_on = more || (lines && newline);
            if !goes_on {
                return Ok(list);
            }
        }
    }

    fn and_or(&mut self) -> Parsed<AndOr> {
        let mut and_or = AndOr { first: self.pipeline()?, rest: Vec::new(), background: false };
        loop {
            self.blanks();
            let and = if self.eat("&&") {
                true
            } else if self.eat("||") {
                false
            } else {
                return Ok(and_or);
            };
            self.continued()?;
            and_or.rest.push((and, self.pipeline()?));
        }
    }

    /// After an operator a command has to follow, on a later line if need be.
    fn continued(&mut self) -> Parsed<()> {
        self.newlines()?;
        match self.at == self.text.len() {
            true => Err(Problem::Incomplete("a command is missing at the end".to_owned())),
            false => Ok(()),
        }
    }

    fn pipeline(&mut self) -> Parsed<Pipeline> {
        let mut not = false;
        while self.reserved() == Some("!") {
            self.at += 1;
            not = !not;
        }
        let mut commands = vec![self.command()?];
        loop {
            self.blanks();
            if self.rest().starts_with("||") || !self.eat("|") {
                return Ok(Pipeline { not, commands });
            }
            self.continued()?;
            commands.push(self.command()?);
        }
    }

    fn command(&mut self) -> Parsed<Command> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Problem::Wrong("commands are nested too deep".to_owned()));
        }
        let command = self.any_command();
        self.depth -= 1;
        command
    }

    fn any_command(&mut self) -> Parsed<Command> {
        let compound = match self.reserved() {
            Some("if") => self.condition()?,
            Some(word @ ("while" | "until")) => {
                self.at += word.len();
                let condition = self.block(&["do"])?;
                Compound::Loop(word == "until", condition, self.body()?)
            }
            Some("for") => self.for_loop()?,
            Some("case") => self.case()?,
            Some("{") => {
                self.at += 1;
                let list = self.block(&["}"])?;
                self.keyword("}")?;
                Compound::Group(list)
            }
            Some(_) => return Err(self.unexpected()),
            None if self.peek() == Some('(') => {
                self.at += 1;
                let list = self.block(&[])?;
                self.expect(")")?;
                Compound::Subshell(list)
            }
            None => return self.simple(),
        };
        let mut redirects = Vec::new();
        self.blanks();
        while let Some(redirect) = self.redirect()? {
            redirects.push(redirect);
            self.blanks();
        }
        Ok(Command::Compound(Box::new(compound), redirects))
    }

    fn condition(&mut self) -> Parsed<Compound> {
        let (mut branches, mut word) = (Vec::new(), "if");
        loop {
            self.keyword(word)?;
            let condition = self.block(&["then"])?;
            self.keyword("then")?;
            branches.push((condition, self.block(&["elif", "else", "fi"])?));
            match self.reserved() {
                Some("elif") => word = "elif",
                Some("else") => {
                    self.at += "else".len();
                    let otherwise = self.block(&["fi"])?;
                    self.keyword("fi")?;
                    return Ok(Compound::If(branches, Some(otherwise)));
                }
                _ => {
                    self.keyword("fi")?;
                    return Ok(Compound::If(branches, None));
                }
            }
        }
    }

    fn body(&mut self) -> Parsed<List> {
        self.keyword("do")?;
        let body = self.block(&["done"])?;
        self.keyword("done")?;
        Ok(body)
    }

    fn for_loop(&mut self) -> Parsed<Compound> {
        self.at += "for".len();
        self.blanks();
        let name = self.word()?.and_then(|word| literal(&word)).filter(|name| is_name(name));
        let name = name.ok_or_else(|| self.unexpected())?;
        self.newlines()?;
        let mut words = None;
        if self.rest().starts_with("in") && !self.rest()[2..].starts_with(|c: char| c.is_alphanumeric()) {
            self.at += 2;
            let words = words.insert(Vec::new());
            self.blanks();
            while let Some(word) = self.word()? {
                words.push(word);
                self.blanks();
            }
        }
        self.blanks();
        self.eat(";");
        self.newlines()?;
        Ok(Compound::For(name, words, self.body()?))
    }

    fn case(&mut self) -> Parsed<Compound> {
        self.at += "case".len();
        self.blanks();
        let word = self.word()?.ok_or_else(|| self.unexpected())?;
        self.newlines()?;
        self.expect("in")?;
        let mut arms = Vec::new();
        loop {
            self.newlines()?;
            if self.reserved() == Some("esac") {
                self.keyword("esac")?;
                return Ok(Compound::Case(word, arms));
            }
            self.eat("(");
            let mut patterns = Vec::new();
            loop {
                self.blanks();
                match self.word()? {
                    Some(pattern) => patterns.push(pattern),
                    None if self.at == self.text.len() => {
                        return Err(Problem::Incomplete("\"esac\" is missing at the end".to_owned()));
                    }
                    None => return Err(self.unexpected()),
                }
                self.blanks();
                if !self.eat("|") {
                    break;
                }
            }
            self.expect(")")?;
            let body = self.block(&["esac"])?;
            arms.push((patterns, body));
            if !self.eat(";;") && self.reserved() != Some("esac") {
                return self.keyword("esac").map(|()| Compound::Case(word, arms));
            }
        }
    }

    fn simple(&mut self) -> Parsed<Command> {
        let mut simple = Simple::default();
        loop {
            self.blanks();
            if let Some(redirect) = self.redirect()? {
                simple.redirects.push(redirect);
                continue;
            }
            let Some(word) = self.word()? else { break };
            if simple.words.is_empty() {
                if let Some((name, value)) = assignment(&word) {
                    simple.assignments.push((name, value));
                    continue;
                }
                if let Some(name) = self.function_name(&word) {
                    self.newlines()?;
                    return Ok(Command::Function(name, Rc::new(self.command()?)));
                }
            }
            simple.words.push(word);
        }
        if simple == Simple::default() {
            return Err(match self.at == self.text.len() {
                true => Problem::Incomplete("a command is missing at the end".to_owned()),
                false => self.unexpected(),
            });
        }
        Ok(Command::Simple(simple))
    }

    fn function_name(&mut self, word: &Word) -> Option<String> {
        let start = self.at;
        self.blanks();
        let brackets = self.eat("(") && {
            self.blanks();
            self.eat(")")
        };
        match literal(word) {
            Some(name) if brackets => Some(name),
            _ => {
                self.at = start;
                None
            }
        }
    }

    fn redirect(&mut self) -> Parsed<Option<Redirect>> {
        let start = self.at;
        let digit = self.peek().and_then(|c| c.to_digit(10)).and_then(|d| i32::try_from(d).ok());
        self.at += usize::from(digit.is_some());
        let operators = ["<<-", "<<", "<>", "<&", "<", ">>", ">&", ">|", ">"];
        let Some(operator) = operators.into_iter().find(|operator| self.eat(operator)) else {
            self.at = start;
            return Ok(None);
        };
        let default = i32::from(operator.starts_with('>'));
        let descriptor = digit.unwrap_or(default);
        self.blanks();
        let word = self.word()?.ok_or_else(|| self.unexpected())?;
        let target = match operator {
            "<" => Target::Read(word),
            "<>" => Target::Both(word),
            ">>" => Target::Append(word),
            "<&" | ">&" => Target::Copy(word),
            "<<" | "<<-" => {
                let plain = word.iter().all(|part| matches!(part, Part::Plain(_)));
                let delimiter = literal(&word).ok_or_else(|| self.unexpected())?;
                let number = self.texts.len() + self.waiting.len();
                self.waiting.push((number, delimiter, operator == "<<-", !plain));
                Target::Here(vec![Part::Plain(number.to_string())])
            }
            _ => Target::Write(word),
        };
        Ok(Some(Redirect { descriptor, target }))
    }

    /// The texts of the here-documents, which begin at a new line.
    fn documents(&mut self) -> Parsed<()> {
        for (_, delimiter, tabs, plain) in std::mem::take(&mut self.waiting) {
            let mut text = String::new();
            loop {
                if self.at == self.text.len() {
                    return Err(Problem::Incomplete(format!("{delimiter:?} is missing at the end")));
                }
                let end = self.rest().find('\n').map_or(self.rest().len(), |end| end + 1);
                let line = &self.rest()[..end];
                self.at += end;
                let line = if tabs { line.trim_start_matches('\t') } else { line };
                if line.trim_end_matches('\n') == delimiter {
                    break;
                }
                text.push_str(line);
            }
            let word = if plain { vec![Part::Quoted(text)] } else { super::words::document(&text)? };
            self.texts.push(word);
        }
        Ok(())
    }
}

/// `NAME=value`
fn assignment(word: &Word) -> Option<(String, Word)> {
    let Some(Part::Plain(first)) = word.first() else { return None };
    let (name, value) = first.split_once('=')?;
    let mut rest = word[1..].to_vec();
    if !value.is_empty() {
        rest.insert(0, Part::Plain(value.to_owned()));
    }
    is_name(name).then(|| (name.to_owned(), rest))
}

/// Puts the texts of here-documents where their numbers are.
fn fill_and_or(and_or: &mut AndOr, texts: &[Word]) {
    if texts.is_empty() {
        return;
    }
    let rest = and_or.rest.iter_mut().map(|(_, pipeline)| pipeline);
    for pipeline in std::iter::once(&mut and_or.first).chain(rest) {
        pipeline.commands.iter_mut().for_each(|command| fill(command, texts));
    }
}

fn fill(command: &mut Command, texts: &[Word]) {
    let each = |list: &mut List| list.iter_mut().for_each(|and_or| fill_and_or(and_or, texts));
    let redirects = match command {
        Command::Simple(simple) => &mut simple.redirects,
        Command::Compound(compound, redirects) => {
            match compound.as_mut() {
                Compound::Group(list) | Compound::Subshell(list) => each(list),
                Compound::Loop(_, condition, body) => {
                    each(condition);
                    each(body);
                }
                Compound::For(_, _, body) => each(body),
                Compound::Case(_, arms) => arms.iter_mut().for_each(|(_, body)| each(body)),
                Compound::If(branches, otherwise) => {
                    for (condition, body) in branches {
                        each(condition);
                        each(body);
                    }
                    otherwise.iter_mut().for_each(each);
                }
            }
            redirects
        }
        Command::Function(_, body) => {
            if let Some(body) = Rc::get_mut(body) {
                fill(body, texts);
            }
            return;
        }
    };
    for redirect in redirects {
        if let Target::Here(word) = &mut redirect.target
            && let Some(text) = literal(word).and_then(|number| texts.get(number.parse::<usize>().ok()?))
        {
            *word = text.clone();
        }
    }
}
