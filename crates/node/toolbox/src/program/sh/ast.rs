//! What a script consists of (POSIX.1-2017, Shell Command Language).

use std::rc::Rc;

/// Commands one after the other.
pub type List = Vec<AndOr>;

/// Pipelines that depend on one another's success.
#[derive(Debug, Clone, PartialEq)]
pub struct AndOr {
    /// The first one.
    pub first: Pipeline,
    /// The others: run if what was before succeeded (true) or failed.
    pub rest: Vec<(bool, Pipeline)>,
    /// Nobody waits for it.
    pub background: bool,
}

/// Commands that feed one another.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipeline {
    /// Success is failure.
    pub not: bool,
    /// At least one.
    pub commands: Vec<Command>,
}

/// One command.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// A program, builtin or function, or assignments alone.
    Simple(Simple),
    /// Words of the language.
    Compound(Box<Compound>, Vec<Redirect>),
    /// The definition of a function.
    Function(String, Rc<Command>),
}

/// A program with its arguments.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Simple {
    /// `NAME=value` before the command.
    pub assignments: Vec<(String, Word)>,
    /// The command and its arguments.
    pub words: Vec<Word>,
    /// Where input comes from and output goes.
    pub redirects: Vec<Redirect>,
}

/// Words of the language.
#[derive(Debug, Clone, PartialEq)]
pub enum Compound {
    /// `{ …; }`
    Group(List),
    /// `( … )`
    Subshell(List),
    /// `if`: conditions with what follows from them, and `else`.
    If(Vec<(List, List)>, Option<List>),
    /// `while`, or `until` if true: condition and body.
    Loop(bool, List, List),
    /// `for NAME in WORDS`; without words, the arguments.
    For(String, Option<Vec<Word>>, List),
    /// `case WORD in`: patterns with what follows from them.
    Case(Word, Vec<(Vec<Word>, List)>),
}

/// One redirection.
#[derive(Debug, Clone, PartialEq)]
pub struct Redirect {
    /// The descriptor it is about.
    pub descriptor: i32,
    /// What it becomes.
    pub target: Target,
}

/// What a descriptor becomes.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// `<`
    Read(Word),
    /// `>`
    Write(Word),
    /// `>>`
    Append(Word),
    /// `<>`
    Both(Word),
    /// `>&` or `<&`: the same as another descriptor, or closed for `-`.
    Copy(Word),
    /// `<<`
    Here(Word),
}

/// A word, of parts that touch one another.
pub type Word = Vec<Part>;

/// A part of a word.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// Text as it stands; patterns in it are patterns.
    Plain(String),
    /// Text in quotes.
    Quoted(String),
    /// A variable.
    Variable(Box<Variable>, Quoting),
    /// `$(…)`
    Command(Rc<List>, Quoting),
    /// `$((…))`
    Arithmetic(Word),
}

/// Whether what a part becomes is split into several words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quoting {
    /// It is, and patterns in it are patterns.
    Open,
    /// It is not: the part stands in double quotes.
    Double,
}

/// A variable with what is done to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Variable {
    /// A name, a number or one of `?$#@*!-`.
    pub name: String,
    /// What is done.
    pub change: Change,
}

/// What is done to a variable's value.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Nothing.
    None,
    /// `${#NAME}`
    Length,
    /// `-`, `=`, `?` or `+` with a word; true: an empty value counts as none.
    Test(char, bool, Word),
    /// `#` or `%` with a pattern; true: the longest match.
    Cut(char, bool, Word),
}
