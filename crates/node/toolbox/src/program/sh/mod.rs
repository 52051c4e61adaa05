//! A small POSIX shell: enough for `kubectl exec -it … -- sh` and for the scripts that people put into manifests.
//!
//! Everything of the Shell Command Language (POSIX.1-2017) but aliases, job control, `getopts` and `ulimit`; of later
//! shells `local` and `set -o pipefail`.

mod arithmetic;
mod ast;
mod builtins;
mod exec;
mod expand;
mod options;
mod parse;
mod pattern;
mod print;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::rc::Rc;

use super::Answer;
use super::signals::{self, Action};
use ast::Command;
pub use builtins::echo;
use options::Options;
use parse::{Parser, Problem};
pub use pattern::class;

const SIGTERM: i32 = 15;
/// Finished commands of the background whose status is remembered.
const MAX_JOBS: usize = 1000;

/// Goes on, or leaves something.
type Flow<T = ()> = ControlFlow<Leave, T>;

/// What is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leave {
    /// So many loops.
    Loop(usize),
    /// The turn of the loop that is so many further out.
    Turn(usize),
    /// A function or a script that was read with `.`.
    Function,
    /// The shell.
    Exit,
}

struct Shell {
    status: u8,
    variables: BTreeMap<String, String>,
    exported: BTreeSet<String>,
    readonly: BTreeSet<String>,
    functions: BTreeMap<String, Rc<Command>>,
    /// `$0`
    name: String,
    /// `$1` and what follows.
    arguments: Vec<String>,
    /// `$$`: also in its children the number of the shell itself.
    pid: u32,
    last_background: Option<i32>,
    /// Commands of the background, with their status when they have ended.
    jobs: BTreeMap<i32, Option<u8>>,
    /// Children whose end has been seen while another one was waited for.
    ended: BTreeMap<i32, u8>,
    /// Children that nobody will wait for.
    forgotten: Vec<i32>,
    traps: BTreeMap<i32, String>,
    options: Options,
    interactive: bool,
    /// The next simple command may replace the process.
    exec_last: bool,
    /// A command in a word gave the status.
    substituted: bool,
    /// An error that ends a shell that nobody talks to.
    fatal: bool,
    /// Conditions around the command: their failure is no error.
    tested: usize,
    loops: usize,
    calls: usize,
    /// Variables of the function in progress as they were before.
    locals: Vec<(String, Option<String>)>,
}

/// `sh [OPTIONS] [-c COMMAND [NAME [ARGUMENT…]] | FILE [ARGUMENT…]]`, or commands from standard input.
pub fn run(arguments: &[String]) -> Answer {
    let mut shell = Shell::new();
    if std::process::id() == 1 {
        signals::end_on_terminate();
    }
    let mut rest = arguments;
    let (mut command, mut forced) = (false, false);
    while let Some((option, after)) = rest.split_first().filter(|(option, _)| option.starts_with(['-', '+']))
    {
        rest = after;
        match option.as_str() {
            "--" => break,
            "-o" | "+o" => {
                let (name, after) = rest.split_first().ok_or("-o wants a name")?;
                shell.options.set_long(name, option == "-o")?;
                rest = after;
            }
            _ => {
                for letter in option.chars().skip(1) {
                    match letter {
                        'c' => command = true,
                        'i' => forced = true,
                        'l' | 's' => {}
                        letter => shell.options.set(letter, option.starts_with('-'))?,
                    }
                }
            }
        }
    }
    if command {
        let (text, rest) = rest.split_first().ok_or("-c wants a command")?;
        if let Some((name, arguments)) = rest.split_first() {
            shell.name.clone_from(name);
            shell.arguments = arguments.to_vec();
        }
        let _ = shell.source(text, true);
    } else if let Some((file, rest)) = rest.split_first() {
        let text = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
        shell.name.clone_from(file);
        shell.arguments = rest.to_vec();
        let _ = shell.source(&text, false);
    } else {
        shell.interactive = forced || std::io::stdin().is_terminal();
        shell.talk();
    }
    Ok(shell.end())
}

impl Shell {
    fn new() -> Self {
        let variables: BTreeMap<String, String> =
            std::env::vars().filter(|(name, _)| words::is_name(name) && name != "IFS").collect();
        Self {
            status: 0,
            exported: variables.keys().cloned().collect(),
            variables,
            readonly: BTreeSet::new(),
            functions: BTreeMap::new(),
            name: "sh".to_owned(),
            arguments: Vec::new(),
            pid: std::process::id(),
            last_background: None,
            jobs: BTreeMap::new(),
            ended: BTreeMap::new(),
            forgotten: Vec::new(),
            traps: BTreeMap::new(),
            options: Options::default(),
            interactive: false,
            exec_last: false,
            substituted: false,
            fatal: false,
            tested: 0,
            loops: 0,
            calls: 0,
            locals: Vec::new(),
        }
    }

    /// Runs a text, line by line. The last command of `-c` replaces the shell, so that signals reach it.
    fn source(&mut self, text: &str, to_the_end: bool) -> Flow {
        let mut parser = Parser::new(text);
        loop {
            match parser.line() {
                Ok(Some(list)) => {
                    let last = to_the_end && text[parser.at..].trim().is_empty();
                    let alone =
                        list.last().is_some_and(|and_or| and_or.rest.is_empty() && !and_or.background);
                    match list.split_last().filter(|_| last && alone && self.calls == 0) {
                        Some((end, before))
                            if matches!(end.first.commands.as_slice(), [Command::Simple(_)]) =>
                        {
                            self.list(&before.to_vec())?;
                            self.exec_last = !end.first.not;
                            self.list(&vec![end.clone()])?;
                            self.exec_last = false;
                        }
                        _ => self.list(&list)?,
                    }
                }
                Ok(None) => return Flow::Continue(()),
                Err(Problem::Incomplete(text) | Problem::Wrong(text)) => {
                    self.complain(&text);
                    self.status = 2;
                    return Flow::Break(Leave::Exit);
                }
            }
        }
    }

    /// Runs commands from standard input.
    fn talk(&mut self) {
        if self.interactive {
            signals::keep_on_interrupt();
        }
        let mut text = String::new();
        loop {
            if self.interactive {
                let directory = std::env::current_dir().unwrap_or_default();
                match text.is_empty() {
                    true => eprint!("{} # ", directory.display()),
                    false => eprint!("> "),
                }
            }
            let line = self.read_line();
            let over = line.is_none();
            text.push_str(&line.unwrap_or_default());
            let mut parser = Parser::new(&text);
            let mut lists = Vec::new();
            let problem = loop {
                match parser.line() {
                    Ok(Some(list)) => lists.push(list),
                    Ok(None) => break None,
                    Err(problem) => break Some(problem),
                }
            };
            match problem {
                Some(Problem::Incomplete(_)) if !over => continue,
                Some(Problem::Incomplete(text) | Problem::Wrong(text)) => {
                    self.complain(&text);
                    self.status = 2;
                    if !self.interactive {
                        return;
                    }
                }
                None => {
                    for list in &lists {
                        if self.list(list) == Flow::Break(Leave::Exit) {
                            return;
                        }
                        self.fatal = false;
                    }
                }
            }
            text.clear();
            if over {
                return;
            }
        }
    }

    /// A line of standard input, byte by byte: what follows is for the commands. `None` at the end.
    fn read_line(&mut self) -> Option<String> {
        let mut input = File::from(std::io::stdin().as_fd().try_clone_to_owned().ok()?);
        let (mut line, mut byte) = (Vec::new(), [0]);
        loop {
            match input.read(&mut byte) {
                Ok(1) => line.push(byte[0]),
                Ok(_) => break,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {
                    if signals::is_pending() {
                        let _ = self.run_traps();
                    } else if self.interactive {
                        // Ctrl-C throws the line away.
                        eprintln!();
                        return Some("\n".to_owned());
                    }
                }
                Err(_) => break,
            }
            if byte[0] == b'\n' {
                break;
            }
        }
        (!line.is_empty()).then(|| String::from_utf8_lossy(&line).into_owned())
    }

    /// What is left to do when the shell ends; the exit code.
    fn end(&mut self) -> u8 {
        let _ = self.run_traps();
        if let Some(text) = self.traps.remove(&0) {
            let status = self.status;
            if self.source(&text, false) != Flow::Break(Leave::Exit) {
                self.status = status;
            }
        }
        let _ = std::io::stdout().flush();
        self.status
    }

    /// Runs the traps of the signals that came.
    fn run_traps(&mut self) -> Flow {
        while let Some(number) = signals::pending() {
            let Some(text) = self.traps.get(&number).cloned() else { continue };
            let status = self.status;
            self.source(&text, false)?;
            self.status = status;
        }
        Flow::Continue(())
    }

    /// Sets what happens on a signal: nothing special, or a text.
    fn trap(&mut self, number: i32, text: Option<&str>) {
        match text {
            None => drop(self.traps.remove(&number)),
            Some(text) => drop(self.traps.insert(number, text.to_owned())),
        }
        match (number, text) {
            (0, _) => {}
            (SIGTERM, None) if self.pid == 1 => signals::end_on_terminate(),
            (_, None) => signals::on(number, Action::Default),
            (_, Some("")) => signals::on(number, Action::Ignore),
            (_, Some(_)) => signals::on(number, Action::Note),
        }
    }

    /// After a split: a child has no traps and no children.
    fn in_child(&mut self) {
        let traps = std::mem::take(&mut self.traps);
        for (number, text) in traps.into_iter().filter(|(number, _)| *number > 0) {
            if text.is_empty() {
                self.traps.insert(number, text);
            } else {
                signals::on(number, Action::Default);
            }
        }
        if self.interactive {
            signals::on(2, Action::Default);
        }
        self.interactive = false;
        self.exec_last = false;
        self.jobs.clear();
        self.ended.clear();
        self.loops = 0;
    }

    /// Waits for a child; as the first process of a container also for orphans that end meanwhile.
    fn wait_for(&mut self, pid: i32) -> u8 {
        loop {
            if let Some(code) = self.ended.remove(&pid) {
                return code;
            }
            match signals::reap(-1, true) {
                Ok(Some(ended)) => self.note_end(ended),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                _ => return 127,
            }
        }
    }

    fn note_end(&mut self, (pid, code): (i32, u8)) {
        if let Some(job) = self.jobs.get_mut(&pid) {
            *job = Some(code);
            while self.jobs.len() > MAX_JOBS {
                let Some(oldest) = self.jobs.iter().find(|(_, code)| code.is_some()).map(|(pid, _)| *pid)
                else {
                    break;
                };
                self.jobs.remove(&oldest);
            }
        } else if let Some(at) = self.forgotten.iter().position(|forgotten| *forgotten == pid) {
            self.forgotten.swap_remove(at);
        } else {
            self.ended.insert(pid, code);
            // Orphans are nobody's: what has not been asked for by now will not be.
            while self.ended.len() > MAX_JOBS {
                self.ended.pop_first();
            }
        }
    }

    fn set(&mut self, name: &str, value: &str) {
        if self.readonly.contains(name) {
            self.complain(&format!("{name}: is read only"));
            return;
        }
        self.variables.insert(name.to_owned(), value.to_owned());
        if self.options.export_all {
            self.exported.insert(name.to_owned());
        }
    }

    fn unset(&mut self, name: &str) {
        if self.readonly.contains(name) {
            self.complain(&format!("{name}: is read only"));
            return;
        }
        self.variables.remove(name);
        self.exported.remove(name);
    }

    /// Says what is wrong on standard error, wherever that leads.
    fn complain(&self, text: &str) {
        let _ = writeln!(std::io::stderr(), "{}: {text}", self.name);
    }

    fn fail(&mut self, text: &str) -> Flow {
        self.complain(text);
        self.status = if self.fatal { 2 } else { 1 };
        self.after_error()
    }

    /// Errors in words end a shell that nobody talks to, and otherwise the command.
    fn after_error(&mut self) -> Flow {
        let over = self.fatal || (self.options.end_on_error && self.tested == 0);
        match over && !self.interactive {
            true => Flow::Break(Leave::Exit),
            false => Flow::Continue(()),
        }
    }
}
