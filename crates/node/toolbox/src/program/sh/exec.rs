//! Carries commands out.

use std::fs::{File, OpenOptions};
use std::io::{PipeReader, Read, Write};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process;
use std::rc::Rc;

use super::super::{applet, signals};
use super::ast::{AndOr, Command, Compound, List, Pipeline, Redirect, Simple, Target, Word};
use super::{Flow, Shell, builtins, pattern};

/// Calls of functions within one another.
const MAX_CALLS: usize = 500;
/// A here-document that is certain to fit into a pipe.
const PIPE_SIZE: usize = 4096;

impl Shell {
    /// Runs commands one after the other.
    pub(super) fn list(&mut self, list: &List) -> Flow {
        for and_or in list {
            self.run_traps()?;
            if and_or.background {
                self.background(and_or);
            } else {
                self.and_or(and_or)?;
            }
        }
        self.run_traps()
    }

    fn and_or(&mut self, and_or: &AndOr) -> Flow {
        let last = and_or.rest.len();
        // Only the failure of the last one counts for `set -e`.
        self.pipeline(&and_or.first, last > 0)?;
        for (number, (and, pipeline)) in and_or.rest.iter().enumerate() {
            if (self.status == 0) == *and {
                self.pipeline(pipeline, number + 1 < last)?;
            }
        }
        Flow::Continue(())
    }

    fn pipeline(&mut self, pipeline: &Pipeline, tested: bool) -> Flow {
        self.tested += usize::from(tested || pipeline.not);
        let flow = match pipeline.commands.as_slice() {
            [command] => self.command(command),
            commands => {
                self.pipes(commands);
                Flow::Continue(())
            }
        };
        self.tested -= usize::from(tested || pipeline.not);
        flow?;
        if pipeline.not {
            self.status = u8::from(self.status == 0);
        } else if self.options.end_on_error && self.status != 0 && self.tested == 0 && !tested {
            return Flow::Break(super::Leave::Exit);
        }
        Flow::Continue(())
    }

    fn pipes(&mut self, commands: &[Command]) {
        let mut input: Option<PipeReader> = None;
        let mut children = Vec::new();
        for (number, command) in commands.iter().enumerate() {
            let pipe = if number + 1 < commands.len() { std::io::pipe().ok() } else { None };
            let (next, output) = pipe.map_or((None, None), |(reader, writer)| (Some(reader), Some(writer)));
            let child = self.child(|shell| {
                let put = |from: i32, to| signals::put(from, to).is_ok();
                let ready = input.as_ref().is_none_or(|pipe| put(pipe.as_raw_fd(), 0))
                    && output.as_ref().is_none_or(|pipe| put(pipe.as_raw_fd(), 1));
                if ready { shell.command_to_the_end(command) } else { 1 }
            });
            children.extend(child);
            input = next;
        }
        drop(input);
        let codes: Vec<u8> = children.into_iter().map(|pid| self.wait_for(pid)).collect();
        let failed = codes.iter().rev().find(|code| **code != 0).filter(|_| self.options.pipefail);
        self.status = failed.or(codes.last()).copied().unwrap_or(1);
    }

    fn background(&mut self, and_or: &AndOr) {
        let mut and_or = and_or.clone();
        and_or.background = false;
        let child = self.child(|shell| {
            if let Ok(nothing) = File::open("/dev/null")
                && !shell.interactive
            {
                let _ = signals::put(nothing.as_raw_fd(), 0);
            }
            // Ctrl-C is for what runs in the foreground.
            if !shell.interactive {
                signals::on(2, signals::Action::Ignore);
            }
            // `$!` is the program itself, so that a kill reaches it.
            match and_or.first.commands.as_slice() {
                [command] if and_or.rest.is_empty() && !and_or.first.not => shell.command_to_the_end(command),
                _ => shell.list_to_the_end(&vec![and_or]),
            }
        });
        if let Some(pid) = child {
            self.last_background = Some(pid);
            self.jobs.insert(pid, None);
            self.status = 0;
        }
    }

    /// Runs something in a child; `None` if there can be none.
    fn child(&mut self, run: impl FnOnce(&mut Self) -> u8) -> Option<i32> {
        // What is not written yet must not be written twice.
        let _ = std::io::stdout().flush();
        match signals::split() {
            Ok(0) => {
                self.in_child();
                let code = run(self);
                let _ = std::io::stdout().flush();
                signals::leave(code)
            }
            Ok(pid) => Some(pid),
            Err(error) => {
                self.complain(&format!("a process cannot be started: {error}"));
                self.status = 1;
                None
            }
        }
    }

    fn command_to_the_end(&mut self, command: &Command) -> u8 {
        self.exec_last = true;
        let _ = self.command(command);
        self.end()
    }

    fn list_to_the_end(&mut self, list: &List) -> u8 {
        let _ = self.list(list);
        self.end()
    }

    /// What commands print.
    pub(super) fn output(&mut self, list: &Rc<List>) -> Result<String, String> {
        let (mut reader, writer) = std::io::pipe().map_err(|error| error.to_string())?;
        let child = self.child(|shell| match signals::put(writer.as_raw_fd(), 1) {
            Ok(()) => shell.list_to_the_end(list),
            Err(_) => 1,
        });
        drop(writer);
        let mut bytes = Vec::new();
        while let Err(error) = reader.read_to_end(&mut bytes) {
            if error.kind() != std::io::ErrorKind::Interrupted {
                break;
            }
        }
        if let Some(pid) = child {
            self.status = self.wait_for(pid);
            self.substituted = true;
        }
        Ok(String::from_utf8_lossy(&bytes).replace('\0', ""))
    }

    pub(super) fn command(&mut self, command: &Command) -> Flow {
        match command {
            Command::Simple(simple) => self.simple(simple),
            Command::Function(name, body) => {
                self.functions.insert(name.clone(), Rc::clone(body));
                self.status = 0;
                Flow::Continue(())
            }
            Command::Compound(compound, redirects) => {
                let saved = match self.redirect(redirects) {
                    Ok(saved) => saved,
                    Err(error) => {
                        self.complain(&error);
                        self.status = 1;
                        return self.after_error();
                    }
                };
                let flow = self.compound(compound);
                restore(saved);
                flow
            }
        }
    }

    fn compound(&mut self, compound: &Compound) -> Flow {
        match compound {
            Compound::Group(list) => self.list(list)?,
            Compound::Subshell(list) => {
                if let Some(pid) = self.child(|shell| shell.list_to_the_end(list)) {
                    self.status = self.wait_for(pid);
                }
            }
            Compound::If(branches, otherwise) => {
                for (condition, body) in branches {
                    self.condition(condition)?;
                    if self.status == 0 {
                        return self.list(body);
                    }
                }
                self.status = 0;
                if let Some(body) = otherwise {
                    self.list(body)?;
                }
            }
            Compound::Loop(until, condition, body) => {
                let mut status = 0;
                loop {
                    self.condition(condition)?;
                    if (self.status == 0) == *until {
                        break;
                    }
                    if self.turn(body)? {
                        break;
                    }
                    status = self.status;
                }
                self.status = status;
            }
            Compound::For(name, words, body) => {
                let words = match words {
                    Some(words) => match self.fields(words) {
                        Ok(words) => words,
                        Err(error) => return self.fail(&error),
                    },
                    None => self.arguments.clone(),
                };
                self.status = 0;
                for word in words {
                    self.set(name, &word);
                    if self.turn(body)? {
                        break;
                    }
                }
            }
            Compound::Case(word, arms) => return self.case(word, arms),
        }
        Flow::Continue(())
    }

    fn condition(&mut self, list: &List) -> Flow {
        self.tested += 1;
        let flow = self.list(list);
        self.tested -= 1;
        flow
    }

    /// One turn of a loop; true if it was the last one.
    fn turn(&mut self, body: &List) -> Flow<bool> {
        self.loops += 1;
        let flow = self.list(body);
        self.loops -= 1;
        match flow {
            Flow::Break(super::Leave::Loop(1)) => Flow::Continue(true),
            Flow::Break(super::Leave::Turn(1)) | Flow::Continue(()) => Flow::Continue(false),
            Flow::Break(super::Leave::Loop(more)) => Flow::Break(super::Leave::Loop(more - 1)),
            Flow::Break(super::Leave::Turn(more)) => Flow::Break(super::Leave::Turn(more - 1)),
            Flow::Break(other) => Flow::Break(other),
        }
    }

    fn case(&mut self, word: &Word, arms: &[(Vec<Word>, List)]) -> Flow {
        let text = match self.one(word) {
            Ok(text) => text.chars().collect::<Vec<char>>(),
            Err(error) => return self.fail(&error),
        };
        self.status = 0;
        for (patterns, body) in arms {
            for word in patterns {
                match self.marks(word) {
                    Ok(marks) if pattern::matches(&marks, &text) => return self.list(body),
                    Ok(_) => {}
                    Err(error) => return self.fail(&error),
                }
            }
        }
        Flow::Continue(())
    }

    fn simple(&mut self, simple: &Simple) -> Flow {
        let exec_last = std::mem::take(&mut self.exec_last);
        self.substituted = false;
        let words = match self.fields(&simple.words) {
            Ok(words) => words,
            Err(error) => return self.fail(&error),
        };
        let mut assignments = Vec::new();
        for (name, word) in &simple.assignments {
            match self.one(word) {
                Ok(value) => assignments.push((name.clone(), value)),
                Err(error) => return self.fail(&error),
            }
        }
        if self.options.trace {
            let assigned = assignments.iter().map(|(name, value)| format!("{name}={value}"));
            let line: Vec<String> = assigned.chain(words.iter().cloned()).collect();
            eprintln!("+ {}", line.join(" "));
        }
        let Some(name) = words.first() else {
            // The status of `X=$(false)` is that of the command.
            let status = if self.substituted { self.status } else { 0 };
            assignments.iter().for_each(|(name, value)| self.set(name, value));
            let saved = self.redirect(&simple.redirects);
            self.status = if saved.is_ok() { status } else { 1 };
            match saved {
                Ok(saved) => restore(saved),
                Err(error) => self.complain(&error),
            }
            return Flow::Continue(());
        };
        if !builtins::is_builtin(name) && !self.functions.contains_key(name) {
            return self.program(&words, &assignments, &simple.redirects, exec_last);
        }
        let saved = match self.redirect(&simple.redirects) {
            Ok(saved) => saved,
            Err(error) => {
                self.complain(&error);
                self.status = 1;
                return self.after_error();
            }
        };
        // Without a command `exec` keeps the redirections.
        if name == "exec" && words.len() == 1 {
            saved.into_iter().for_each(|(_, kept)| signals::close(kept));
            self.status = 0;
            return Flow::Continue(());
        }
        let before: Vec<_> =
            assignments.iter().map(|(name, _)| (name.clone(), self.variables.get(name).cloned())).collect();
        assignments.iter().for_each(|(name, value)| self.set(name, value));
        let flow = match self.functions.get(name).cloned() {
            Some(body) => self.call(&body, &words[1..]),
            None => builtins::run(self, &words, &assignments),
        };
        if !builtins::is_special(name) {
            for (name, value) in before {
                match value {
                    Some(value) => self.set(&name, &value),
                    None => self.unset(&name),
                }
            }
        }
        let _ = std::io::stdout().flush();
        restore(saved);
        flow
    }

    fn call(&mut self, body: &Command, arguments: &[String]) -> Flow {
        if self.calls >= MAX_CALLS {
            return self.fail("functions call one another too deep");
        }
        self.calls += 1;
        let former = std::mem::replace(&mut self.arguments, arguments.to_vec());
        let locals = std::mem::take(&mut self.locals);
        let loops = std::mem::take(&mut self.loops);
        self.status = 0;
        let flow = self.command(body);
        self.loops = loops;
        for (name, value) in std::mem::replace(&mut self.locals, locals).into_iter().rev() {
            match value {
                Some(value) => self.set(&name, &value),
                None => self.unset(&name),
            }
        }
        self.arguments = former;
        self.calls -= 1;
        match flow {
            Flow::Break(super::Leave::Function) => Flow::Continue(()),
            other => other,
        }
    }

    /// Runs a program, or an applet of ours, which needs no file to be there.
    pub(super) fn program(
        &mut self,
        words: &[String],
        assignments: &[(String, String)],
        redirects: &[Redirect],
        here: bool,
    ) -> Flow {
        let run = |shell: &mut Self| match shell.redirect(redirects) {
            Ok(_) => shell.become_program(words, assignments),
            Err(error) => {
                shell.complain(&error);
                1
            }
        };
        if here && self.traps.is_empty() {
            let code = run(self);
            signals::leave(code);
        }
        if let Some(pid) = self.child(run) {
            self.status = self.wait_for(pid);
        }
        Flow::Continue(())
    }

    /// Replaces the process, and returns the exit code of a failure to do so.
    pub(super) fn become_program(&mut self, words: &[String], assignments: &[(String, String)]) -> u8 {
        let name = &words[0];
        let own = applet(name).is_some();
        let mut command = process::Command::new(if own { "/proc/self/exe" } else { name });
        let exported = self.variables.iter().filter(|(name, _)| self.exported.contains(*name));
        command.arg0(name).args(&words[1..]).env_clear().envs(exported).envs(assignments.iter().cloned());
        let error = command.exec();
        let (code, why) = match error.kind() {
            std::io::ErrorKind::NotFound => (127, "not found".to_owned()),
            std::io::ErrorKind::PermissionDenied if Path::new(name).is_dir() => {
                (126, "is a directory".to_owned())
            }
            _ => (126, error.to_string()),
        };
        self.complain(&format!("{name}: {why}"));
        code
    }

    /// Carries redirections out. Returns what the descriptors were: for each its number and a copy, or -1.
    pub(super) fn redirect(&mut self, redirects: &[Redirect]) -> Result<Vec<(i32, i32)>, String> {
        let mut saved = Vec::new();
        let _ = std::io::stdout().flush();
        for redirect in redirects {
            let result = self.open(&redirect.target);
            let descriptor = redirect.descriptor;
            saved.push((descriptor, signals::keep(descriptor).unwrap_or(-1)));
            let done = result.and_then(|open| match open {
                Open::Closed => {
                    signals::close(descriptor);
                    Ok(())
                }
                Open::Same(other) => {
                    signals::put(other, descriptor).map_err(|error| format!("{other}: {error}"))
                }
                Open::New(file) => {
                    let number = file.into_raw_fd();
                    let put = signals::put(number, descriptor).map_err(|error| error.to_string());
                    if number != descriptor {
                        signals::close(number);
                    }
                    put
                }
            });
            if let Err(error) = done {
                restore(saved);
                return Err(error);
            }
        }
        Ok(saved)
    }

    fn open(&mut self, target: &Target) -> Result<Open, String> {
        let mut options = OpenOptions::new();
        let word = match target {
            Target::Read(word) => {
                options.read(true);
                word
            }
            Target::Write(word) => {
                options.write(true).create(true).truncate(true);
                word
            }
            Target::Append(word) => {
                options.append(true).create(true);
                word
            }
            Target::Both(word) => {
                options.read(true).write(true).create(true);
                word
            }
            Target::Copy(word) => {
                let text = self.one(word)?;
                return match text.as_str() {
                    "-" => Ok(Open::Closed),
                    text => text.parse().map(Open::Same).map_err(|_| format!("{text:?} is no descriptor")),
                };
            }
            Target::Here(word) => {
                let text = self.one(word)?;
                return self.document(text.into_bytes()).map(Open::New);
            }
        };
        let name = self.one(word)?;
        options.open(&name).map(|file| Open::New(file.into())).map_err(|error| format!("{name}: {error}"))
    }

    /// A pipe with a text in it; a long one is written by a child.
    fn document(&mut self, text: Vec<u8>) -> Result<OwnedFd, String> {
        let (reader, mut writer) = std::io::pipe().map_err(|error| error.to_string())?;
        if text.len() <= PIPE_SIZE {
            writer.write_all(&text).map_err(|error| error.to_string())?;
        } else if let Some(pid) = self.child(|_| u8::from(writer.write_all(&text).is_err())) {
            self.forgotten.push(pid);
        }
        Ok(reader.into())
    }
}

enum Open {
    New(OwnedFd),
    Same(i32),
    Closed,
}

/// Makes descriptors what they were.
pub(super) fn restore(saved: Vec<(i32, i32)>) {
    for (descriptor, kept) in saved.into_iter().rev() {
        if kept < 0 {
            signals::close(descriptor);
        } else {
            // The copy is open, so that this cannot fail.
            let _ = signals::put(kept, descriptor);
            signals::close(kept);
        }
    }
}
