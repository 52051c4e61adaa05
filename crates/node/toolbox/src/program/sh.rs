//! A very small shell: enough for `kubectl exec -it … -- sh` and one-liners.
//!
//! Words with quotes, `$NAME`, `${NAME}`, `$?`, `$$`; `;`, newline, `&&`, `||`, `|`, `!`; `<`, `>`, `>>`, `2>`,
//! `2>&1`; `NAME=value`; the builtins cd, exit, export, unset, exec and `:`. Everything else that a real shell has
//! (loops, `if`, functions, `$(…)`, patterns, background) is refused with a message rather than misunderstood.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, IsTerminal, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};

use super::signals::keep_on_interrupt;
use super::{Answer, applet};

const KEYWORDS: &[&str] = &[
    "if", "then", "else", "fi", "for", "while", "until", "do", "done", "case", "esac", "{", "}", "function",
];

/// `sh [-c COMMAND [NAME [ARGUMENT…]]]`, or commands from standard input.
pub fn run(arguments: &[String]) -> Answer {
    let variables = std::env::vars().collect();
    let mut shell = Shell { status: 0, variables, arguments: Vec::new() };
    match arguments.first().map(String::as_str) {
        Some("-c") => {
            let text = arguments.get(1).ok_or("-c wants a command")?;
            shell.arguments = arguments.get(2..).unwrap_or_default().to_vec();
            shell.source(text);
            Ok(shell.status)
        }
        None | Some("-i" | "-l") => {
            interactive(&mut shell);
            Ok(shell.status)
        }
        Some(option) if option.starts_with('-') => {
            Err(format!("unknown option {option:?}: -c COMMAND is known"))
        }
        Some(file) => {
            let text = std::fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))?;
            shell.arguments = arguments.to_vec();
            shell.source(&text);
            Ok(shell.status)
        }
    }
}

fn interactive(shell: &mut Shell) {
    let terminal = std::io::stdin().is_terminal();
    if terminal {
        keep_on_interrupt();
    }
    let mut lines = std::io::stdin().lock();
    loop {
        if terminal {
            let directory = std::env::current_dir().unwrap_or_default();
            print!("{} # ", directory.display());
            // A terminal that has gone ends the shell at the next read.
            let _ = std::io::stdout().flush();
        }
        let mut line = String::new();
        match lines.read_line(&mut line) {
            Ok(0) => break,
            Err(e) if e.kind() != std::io::ErrorKind::Interrupted => break,
            _ => shell.source(&line),
        }
    }
}

struct Shell {
    status: u8,
    /// The environment of commands. All variables are exported.
    variables: BTreeMap<String, String>,
    /// `$0` and what follows.
    arguments: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Operator(&'static str),
}

#[derive(Debug, Default)]
struct Simple {
    assignments: Vec<(String, String)>,
    words: Vec<String>,
    /// Descriptor, operator, file.
    redirections: Vec<(u8, &'static str, String)>,
}

const OPERATORS: &[&str] =
    &["2>&1", "2>>", "2>", "&&", "||", ">>", ">&2", "1>&2", ";", "|", ">", "<", "&", "(", ")"];

impl Shell {
    /// Runs a text, line by line so that `$?` is the last one's.
    fn source(&mut self, text: &str) {
        let mut rest = text;
        while !rest.is_empty() {
            match self.list(rest) {
                Ok(after) => rest = after,
                Err(error) => {
                    eprintln!("sh: {error}");
                    self.status = 2;
                    return;
                }
            }
        }
    }

    /// Runs pipelines up to the end of a line. Words are expanded when their pipeline is about to run.
    fn list<'a>(&mut self, text: &'a str) -> Result<&'a str, String> {
        let mut rest = text;
        let mut run = true;
        loop {
            let (tokens, end, after) = self.pipeline_tokens(rest)?;
            if run {
                self.pipeline(tokens)?;
            }
            rest = after;
            match end {
                "&&" => run = self.status == 0,
                "||" => run = self.status != 0,
                ";" => run = true,
                _ => return Ok(rest),
            }
        }
    }

    /// The tokens of one pipeline, what ends it, and what comes after.
    fn pipeline_tokens<'a>(&self, text: &'a str) -> Result<(Vec<Token>, &'static str, &'a str), String> {
        let mut tokens = Vec::new();
        let mut rest = text;
        loop {
            rest = rest.trim_start_matches([' ', '\t']);
            if rest.starts_with('#') {
                rest = rest.find('\n').map_or("", |i| &rest[i..]);
            }
            let Some(first) = rest.chars().next() else { return Ok((tokens, "\n", "")) };
            if first == '\n' {
                return Ok((tokens, "\n", &rest[1..]));
            }
            let operator = OPERATORS.iter().find(|o| rest.starts_with(**o));
            match operator {
                Some(&end @ ("&&" | "||" | ";")) => return Ok((tokens, end, &rest[end.len()..])),
                Some(&"&") => return Err("commands in the background (&) are not supported".to_owned()),
                Some(&("(" | ")")) => return Err("subshells and functions are not supported".to_owned()),
                Some(operator) => {
                    tokens.push(Token::Operator(operator));
                    rest = &rest[operator.len()..];
                }
                None => {
                    let (words, after) = self.word(rest)?;
                    tokens.extend(words.into_iter().map(Token::Word));
                    rest = after;
                }
            }
        }
    }

    /// Reads and expands a word. Unquoted variables may become several words or none.
    fn word<'a>(&self, text: &'a str) -> Result<(Vec<String>, &'a str), String> {
        let mut words: Vec<String> = Vec::new();
        let mut current: Option<String> = None;
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            match first {
                ' ' | '\t' | '\n' | ';' | '|' | '&' | '<' | '>' | '(' | ')' => break,
                '\'' => {
                    let end = rest[1..].find('\'').ok_or("unterminated quote '")?;
                    current.get_or_insert_default().push_str(&rest[1..=end]);
                    rest = &rest[end + 2..];
                }
                '"' => {
                    let (text, after) = self.double_quoted(&rest[1..])?;
                    current.get_or_insert_default().push_str(&text);
                    rest = after;
                }
                '\\' => {
                    let escaped = rest[1..].chars().next().ok_or("nothing after \\")?;
                    if escaped != '\n' {
                        current.get_or_insert_default().push(escaped);
                    }
                    rest = &rest[1 + escaped.len_utf8()..];
                }
                '$' => {
                    let (value, after) = self.variable(rest)?;
                    rest = after;
                    let mut pieces = value.split_whitespace();
                    if value.starts_with(char::is_whitespace) {
                        words.extend(current.take());
                    }
                    if let Some(piece) = pieces.next() {
                        current.get_or_insert_default().push_str(piece);
                    }
                    for piece in pieces {
                        words.extend(current.replace(piece.to_owned()));
                    }
                }
                '`' => return Err("command substitution is not supported".to_owned()),
                other => {
                    current.get_or_insert_default().push(other);
                    rest = &rest[other.len_utf8()..];
                }
            }
        }
        words.extend(current);
        Ok((words, rest))
    }

    fn double_quoted<'a>(&self, text: &'a str) -> Result<(String, &'a str), String> {
        let mut out = String::new();
        let mut rest = text;
        loop {
            let first = rest.chars().next().ok_or("unterminated quote \"")?;
            match first {
                '"' => return Ok((out, &rest[1..])),
                '`' => return Err("command substitution is not supported".to_owned()),
                '$' => {
                    let (value, after) = self.variable(rest)?;
                    out.push_str(&value);
                    rest = after;
                }
                '\\' if rest[1..].starts_with(['"', '\\', '$', '`']) => {
                    out.push_str(&rest[1..2]);
                    rest = &rest[2..];
                }
                other => {
                    out.push(other);
                    rest = &rest[other.len_utf8()..];
                }
            }
        }
    }

    /// Expands what begins with `$`.
    fn variable<'a>(&self, text: &'a str) -> Result<(String, &'a str), String> {
        let rest = &text[1..];
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        match rest.chars().next() {
            Some('?') => Ok((self.status.to_string(), &rest[1..])),
            Some('$') => Ok((std::process::id().to_string(), &rest[1..])),
            Some('#') => Ok((self.arguments.len().saturating_sub(1).to_string(), &rest[1..])),
            Some('@' | '*') => Ok((self.arguments.get(1..).unwrap_or_default().join(" "), &rest[1..])),
            Some('(') => Err("command substitution and arithmetic are not supported".to_owned()),
            Some('{') => {
                let end = rest.find('}').ok_or("unterminated ${")?;
                let inside = &rest[1..end];
                let (name, default) = inside.split_once(":-").unwrap_or((inside, ""));
                if !name.chars().all(is_name) {
                    return Err(format!(
                        "${{{inside}}} is not supported: ${{NAME}} and ${{NAME:-default}} are"
                    ));
                }
                let value = self.value(name);
                Ok((if value.is_empty() { default.to_owned() } else { value }, &rest[end + 1..]))
            }
            Some(c) if c.is_ascii_digit() => Ok((self.value(&rest[..1]), &rest[1..])),
            Some(c) if is_name(c) => {
                let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
                Ok((self.value(&rest[..end]), &rest[end..]))
            }
            _ => Ok(("$".to_owned(), rest)),
        }
    }

    fn value(&self, name: &str) -> String {
        match name.parse::<usize>() {
            Ok(number) => self.arguments.get(number).cloned().unwrap_or_default(),
            Err(_) => self.variables.get(name).cloned().unwrap_or_default(),
        }
    }

    fn pipeline(&mut self, tokens: Vec<Token>) -> Result<(), String> {
        let mut tokens = VecDeque::from(tokens);
        let negate = tokens.front() == Some(&Token::Word("!".to_owned()));
        if negate {
            tokens.pop_front();
        }
        if tokens.is_empty() {
            return Ok(());
        }
        let mut commands = vec![Simple::default()];
        while let Some(token) = tokens.pop_front() {
            let command = commands.last_mut().expect("invariant: there is one from the start");
            match token {
                Token::Operator("|") => commands.push(Simple::default()),
                Token::Operator(operator @ ("2>&1" | ">&2" | "1>&2")) => {
                    command.redirections.push((u8::from(operator == "2>&1") + 1, "&", String::new()));
                }
                Token::Operator(operator) => {
                    let Some(Token::Word(file)) = tokens.pop_front() else {
                        return Err(format!("{operator} wants a file"));
                    };
                    let descriptor =
                        if operator == "<" { 0 } else { 1 + u8::from(operator.starts_with('2')) };
                    command.redirections.push((descriptor, operator.trim_start_matches('2'), file));
                }
                Token::Word(word) => match word.split_once('=') {
                    Some((name, value)) if command.words.is_empty() && is_variable(name) => {
                        command.assignments.push((name.to_owned(), value.to_owned()));
                    }
                    _ => command.words.push(word),
                },
            }
        }
        for command in &commands {
            if let Some(keyword) = command.words.first().filter(|w| KEYWORDS.contains(&w.as_str())) {
                return Err(format!("{keyword:?} is not supported by this small shell"));
            }
        }
        let single = commands.len() == 1;
        if !(single && self.builtin(&commands[0])?) {
            self.spawn_all(commands);
        }
        if negate {
            self.status = u8::from(self.status == 0);
        }
        Ok(())
    }

    /// What must happen in the shell itself. False when it is an ordinary command.
    fn builtin(&mut self, command: &Simple) -> Result<bool, String> {
        let argument = command.words.get(1).map(String::as_str);
        self.status = match command.words.first().map(String::as_str) {
            None => {
                self.variables.extend(command.assignments.iter().cloned());
                0
            }
            Some(":") => 0,
            Some("cd") => {
                let to = argument.or(self.variables.get("HOME").map(String::as_str)).unwrap_or("/");
                match std::env::set_current_dir(to) {
                    Ok(()) => 0,
                    Err(error) => {
                        eprintln!("sh: cd: {to}: {error}");
                        1
                    }
                }
            }
            Some("exit") => {
                let code = argument.map_or(Ok(self.status.into()), str::parse::<i32>);
                std::process::exit(code.map_err(|_| "exit wants a number")?);
            }
            Some("export") => {
                for word in &command.words[1..] {
                    if let Some((name, value)) = word.split_once('=') {
                        self.variables.insert(name.to_owned(), value.to_owned());
                    }
                }
                0
            }
            Some("unset") => {
                self.variables.retain(|name, _| !command.words[1..].contains(name));
                0
            }
            Some("exec") if command.words.len() > 1 => {
                let inner = Simple { words: command.words[1..].to_vec(), ..Simple::default() };
                let error = self.program(&inner).exec();
                eprintln!("sh: {}: {error}", inner.words[0]);
                std::process::exit(127);
            }
            Some(_) => return Ok(false),
        };
        Ok(true)
    }

    fn spawn_all(&mut self, commands: Vec<Simple>) {
        let last = commands.len() - 1;
        let mut children: Vec<Child> = Vec::new();
        let mut input: Option<Stdio> = None;
        let mut failed = None;
        for (number, command) in commands.iter().enumerate() {
            let pipe = if number == last { None } else { std::io::pipe().ok() };
            let (next, output) = match pipe {
                Some((reader, writer)) => (Some(Stdio::from(reader)), Some(writer)),
                None => (None, None),
            };
            match self.start(command, input.take(), output) {
                Ok(child) => {
                    children.push(child);
                    failed = None;
                }
                Err((code, error)) => {
                    if !error.is_empty() {
                        eprintln!("sh: {error}");
                    }
                    failed = Some(code);
                }
            }
            input = next;
        }
        for child in &mut children {
            self.status = match child.wait() {
                Ok(status) => {
                    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
                    u8::try_from(code).unwrap_or(255)
                }
                Err(_) => 1,
            };
        }
        self.status = failed.unwrap_or(self.status);
    }
}

impl Shell {
    /// Starts one command of a pipeline. The error has the exit code it stands for.
    fn start(
        &self,
        command: &Simple,
        input: Option<Stdio>,
        output: Option<std::io::PipeWriter>,
    ) -> Result<Child, (u8, String)> {
        if command.words.is_empty() {
            return Err((2, "a pipeline wants commands".to_owned()));
        }
        let io = |e: std::io::Error| (1, e.to_string());
        let mut process = self.program(command);
        if let Some(input) = input {
            process.stdin(input);
        }
        // Where descriptors 1 and 2 point so far, for `2>&1` and `>&2`.
        let clone = |fd: std::io::Result<std::os::fd::OwnedFd>| fd.map_err(io);
        let mut targets = [
            match output {
                Some(pipe) => pipe.into(),
                None => clone(std::os::fd::AsFd::as_fd(&std::io::stdout()).try_clone_to_owned())?,
            },
            clone(std::os::fd::AsFd::as_fd(&std::io::stderr()).try_clone_to_owned())?,
        ];
        for (descriptor, operator, file) in &command.redirections {
            let named = |e: std::io::Error| (1, format!("{file}: {e}"));
            let open = match *operator {
                "<" => {
                    process.stdin(File::open(file).map_err(named)?);
                    continue;
                }
                // `(2, "&")` is 2>&1, `(1, "&")` is >&2.
                "&" => clone(targets[usize::from(*descriptor == 1)].try_clone())?,
                ">>" => OpenOptions::new().append(true).create(true).open(file).map_err(named)?.into(),
                _ => File::create(file).map_err(named)?.into(),
            };
            targets[usize::from(*descriptor) - 1] = open;
        }
        let [out, error] = targets;
        let mut report = File::from(clone(error.try_clone())?);
        process.stdout(out).stderr(error);
        process.spawn().map_err(|e| {
            let (code, why) = match e.kind() {
                std::io::ErrorKind::NotFound => (127, "not found".to_owned()),
                _ => (126, e.to_string()),
            };
            // Goes where the command's own messages would have gone; if that is nowhere, the code still tells.
            let _ = writeln!(report, "sh: {}: {why}", command.words[0]);
            (code, String::new())
        })
    }

    /// A program of the image, or one of our applets, which need no file to be there.
    fn program(&self, command: &Simple) -> Command {
        let name = &command.words[0];
        let mut process = if applet(name).is_some() {
            let mut own = Command::new("/proc/self/exe");
            own.arg0(name);
            own
        } else {
            Command::new(name)
        };
        process
            .args(&command.words[1..])
            .env_clear()
            .envs(&self.variables)
            .envs(command.assignments.iter().cloned());
        process
    }
}

fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Result<Vec<Token>, String> {
        let shell =
            Shell { status: 7, variables: BTreeMap::new(), arguments: vec!["sh".into(), "one two".into()] };
        shell.pipeline_tokens(text).map(|t| t.0)
    }

    #[test]
    fn words_are_read_as_in_other_shells() {
        let cases: &[(&str, &[&str])] = &[
            ("echo 'a b' \"c d\" e\\ f", &["echo", "a b", "c d", "e f"]),
            ("x\"$?\"y $? '$?'", &["x7y", "7", "$?"]),
            ("$1 \"$1\"", &["one", "two", "one two"]),
            ("\"\" ${NOT_SET_HERE:-default} $", &["", "default", "$"]),
            ("a # b", &["a"]),
        ];
        for (text, expected) in cases {
            let expected: Vec<Token> = expected.iter().map(|w| Token::Word((*w).to_owned())).collect();
            assert_eq!(words(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_missing_is_refused() {
        for text in
            ["echo $(date)", "echo `date`", "sleep 1 &", "(true)", "echo 'x", "echo \"x", "f() { :; }"]
        {
            assert!(words(text).is_err(), "{text}");
        }
    }
}
