//! Commands that are part of the shell.

use super::super::{applet, conditions, signals};
use super::{Flow, Leave, Shell, print, words};

const SPECIAL: &[&str] = &[
    ":", ".", "break", "continue", "eval", "exec", "exit", "export", "readonly", "return", "set", "shift",
    "trap", "unset", "source", "local",
];
const OTHERS: &[&str] = &[
    "[", "cd", "command", "echo", "false", "kill", "printf", "pwd", "read", "test", "true", "type", "umask",
    "wait",
];

/// Whether the shell itself has this command.
pub fn is_builtin(name: &str) -> bool {
    is_special(name) || OTHERS.contains(&name)
}

/// Whether assignments before the command stay.
pub fn is_special(name: &str) -> bool {
    SPECIAL.contains(&name)
}

/// Runs one.
pub(super) fn run(shell: &mut Shell, words: &[String], assignments: &[(String, String)]) -> Flow {
    let (name, arguments) = words.split_first().map_or(("", words), |(name, rest)| (name.as_str(), rest));
    let first = arguments.first().map(String::as_str);
    let number = |default: usize| match first {
        Some(text) => text.parse::<usize>().map_err(|_| format!("{name}: {text:?} is no number")),
        None => Ok(default),
    };
    let status = match name {
        "break" | "continue" if shell.loops == 0 => Ok(0),
        "break" | "continue" => match number(1) {
            Ok(levels) => {
                shell.status = 0;
                let levels = levels.clamp(1, shell.loops);
                return Flow::Break(if name == "break" { Leave::Loop(levels) } else { Leave::Turn(levels) });
            }
            Err(error) => Err(error),
        },
        "return" | "exit" => match number(shell.status.into()) {
            Ok(code) => {
                shell.status = u8::try_from(code & 0xff).unwrap_or(255);
                return Flow::Break(if name == "exit" { Leave::Exit } else { Leave::Function });
            }
            Err(error) => Err(error),
        },
        "eval" => {
            shell.status = 0;
            return shell.source(&arguments.join(" "), false);
        }
        "." | "source" => return source(shell, first),
        "exec" => {
            shell.status = shell.become_program(arguments, assignments);
            return Flow::Break(Leave::Exit);
        }
        "command" => return command(shell, arguments, assignments),
        "shift" => number(1).and_then(|count| shift(shell, count)),
        _ => plain(shell, name, arguments),
    };
    match status {
        Ok(code) => shell.status = code,
        Err(error) => {
            shell.complain(&error);
            shell.status = 2;
        }
    }
    Flow::Continue(())
}

/// Those that only have a status.
fn plain(shell: &mut Shell, name: &str, arguments: &[String]) -> Result<u8, String> {
    let first = arguments.first().map(String::as_str);
    match name {
        ":" | "true" => Ok(0),
        "false" => Ok(1),
        "type" => Ok(arguments.iter().fold(0, |code, name| code | describe(shell, name, true))),
        "cd" => cd(shell, first),
        "pwd" => print(&(current() + "\n")),
        "echo" => echo(arguments),
        "printf" => match arguments.split_first() {
            Some((format, rest)) => {
                let result = print::printf(format, rest);
                result.and_then(|(text, fine)| print(&text).map(|code| code | u8::from(!fine)))
            }
            None => Err("printf: a format is missing".to_owned()),
        },
        "test" => conditions::test(arguments),
        "[" => conditions::bracket(arguments),
        "export" | "readonly" => export(shell, name, arguments),
        "local" => local(shell, arguments),
        "unset" => unset(shell, arguments),
        "set" => set(shell, arguments),
        "read" => read(shell, arguments),
        "trap" => trap(shell, arguments),
        "umask" => umask(first),
        "wait" => wait(shell, arguments),
        _ => kill(shell, arguments),
    }
}

fn shift(shell: &mut Shell, count: usize) -> Result<u8, String> {
    if count > shell.arguments.len() {
        return Err("shift: there are not so many arguments".to_owned());
    }
    shell.arguments.drain(..count);
    Ok(0)
}

fn print(text: &str) -> Result<u8, String> {
    super::super::small::write_out(text.as_bytes())
}

fn current() -> String {
    std::env::current_dir().unwrap_or_default().to_string_lossy().into_owned()
}

/// `echo [-neE] …`
pub fn echo(arguments: &[String]) -> Result<u8, String> {
    let (mut newline, mut escapes, mut rest) = (true, false, arguments);
    while let Some((option, after)) = rest.split_first() {
        let letters = option.strip_prefix('-').filter(|letters| !letters.is_empty());
        let Some(letters) = letters.filter(|letters| letters.chars().all(|c| "neE".contains(c))) else {
            break;
        };
        newline &= !letters.contains('n');
        escapes = letters.rfind('e') > letters.rfind('E') || (escapes && !letters.contains('E'));
        rest = after;
    }
    let text = rest.join(" ");
    let (text, over) = if escapes { print::escapes(&text) } else { (text, false) };
    print(&(text + if newline && !over { "\n" } else { "" }))
}

fn source(shell: &mut Shell, file: Option<&str>) -> Flow {
    let Some(file) = file else { return shell.fail(".: a file is missing") };
    match std::fs::read_to_string(file) {
        Ok(text) => {
            shell.status = 0;
            match shell.source(&text, false) {
                Flow::Break(Leave::Function) => Flow::Continue(()),
                other => other,
            }
        }
        Err(error) => {
            shell.fatal = true;
            shell.fail(&format!("{file}: {error}"))
        }
    }
}

/// `command [-v|-V] NAME …`: without functions.
fn command(shell: &mut Shell, arguments: &[String], assignments: &[(String, String)]) -> Flow {
    match arguments.first().map(String::as_str) {
        Some(option @ ("-v" | "-V")) => {
            let names = &arguments[1..];
            shell.status = names.iter().fold(0, |code, name| code | describe(shell, name, option == "-V"));
            Flow::Continue(())
        }
        Some(name) if is_builtin(name) => run(shell, arguments, assignments),
        Some(_) => {
            let functions = std::mem::take(&mut shell.functions);
            let flow = shell.program(arguments, assignments, &[], false);
            shell.functions = functions;
            flow
        }
        None => Flow::Continue(()),
    }
}

fn describe(shell: &Shell, name: &str, long: bool) -> u8 {
    let path = || {
        let directories = shell.variables.get("PATH").cloned().unwrap_or_default();
        let files = directories.split(':').map(|directory| format!("{directory}/{name}")).collect::<Vec<_>>();
        let is_file = |file: &String| std::fs::metadata(file).is_ok_and(|meta| meta.is_file());
        files.into_iter().chain([name.to_owned()].into_iter().filter(|name| name.contains('/'))).find(is_file)
    };
    let (short, kind) = if shell.functions.contains_key(name) {
        (name.to_owned(), "a function".to_owned())
    } else if is_builtin(name) {
        (name.to_owned(), "a shell builtin".to_owned())
    } else if let Some(path) = path() {
        (path.clone(), path)
    } else if applet(name).is_some() {
        (name.to_owned(), "an applet".to_owned())
    } else {
        if long {
            eprintln!("{name}: not found");
        }
        return 127;
    };
    // Nobody may be listening.
    let _ = print(&if long { format!("{name} is {kind}\n") } else { short + "\n" });
    0
}

fn cd(shell: &mut Shell, target: Option<&str>) -> Result<u8, String> {
    let before = current();
    let to = match target {
        None => shell.variables.get("HOME").cloned().unwrap_or_else(|| "/".to_owned()),
        Some("-") => shell.variables.get("OLDPWD").cloned().ok_or("cd: there is no directory before")?,
        Some(to) => to.to_owned(),
    };
    if let Err(error) = std::env::set_current_dir(&to) {
        shell.complain(&format!("cd: {to}: {error}"));
        return Ok(1);
    }
    shell.set("OLDPWD", &before);
    shell.set("PWD", &current());
    if target == Some("-") { print(&(current() + "\n")) } else { Ok(0) }
}

fn export(shell: &mut Shell, command: &str, arguments: &[String]) -> Result<u8, String> {
    let names: Vec<&String> = arguments.iter().filter(|argument| *argument != "-p").collect();
    if names.is_empty() {
        let listed = if command == "export" { &shell.exported } else { &shell.readonly };
        let quoted = |value: &String| value.replace('\'', "'\\''");
        let lines = listed.iter().filter_map(|name| Some((name, shell.variables.get(name)?)));
        let text: String =
            lines.map(|(name, value)| format!("{command} {name}='{}'\n", quoted(value))).collect();
        return print(&text);
    }
    for argument in names {
        let (name, value) = argument.split_once('=').map_or((argument.as_str(), None), |(n, v)| (n, Some(v)));
        if !words::is_name(name) {
            return Err(format!("{command}: {name:?} is no name"));
        }
        if let Some(value) = value {
            shell.set(name, value);
        }
        if command == "export" { &mut shell.exported } else { &mut shell.readonly }.insert(name.to_owned());
    }
    Ok(0)
}

fn local(shell: &mut Shell, arguments: &[String]) -> Result<u8, String> {
    if shell.calls == 0 {
        return Err("local: only in functions".to_owned());
    }
    for argument in arguments {
        let (name, value) = argument.split_once('=').map_or((argument.as_str(), None), |(n, v)| (n, Some(v)));
        if !words::is_name(name) {
            return Err(format!("local: {name:?} is no name"));
        }
        shell.locals.push((name.to_owned(), shell.variables.get(name).cloned()));
        match value {
            Some(value) => shell.set(name, value),
            None => shell.unset(name),
        }
    }
    Ok(0)
}

fn unset(shell: &mut Shell, arguments: &[String]) -> Result<u8, String> {
    let mut functions = false;
    for argument in arguments {
        match argument.as_str() {
            "-f" => functions = true,
            "-v" => functions = false,
            name if functions => drop(shell.functions.remove(name)),
            name => shell.unset(name),
        }
    }
    Ok(0)
}

fn set(shell: &mut Shell, arguments: &[String]) -> Result<u8, String> {
    if arguments.is_empty() {
        let lines = shell
            .variables
            .iter()
            .map(|(name, value)| format!("{name}='{}'\n", value.replace('\'', "'\\''")));
        return print(&lines.collect::<String>());
    }
    let mut rest = arguments;
    while let Some((option, after)) = rest.split_first() {
        let on = option.starts_with('-');
        match option.as_str() {
            "--" => {
                shell.arguments = after.to_vec();
                return Ok(0);
            }
            "-o" | "+o" => {
                let (name, after) = after.split_first().ok_or("set: -o wants a name")?;
                shell.options.set_long(name, on)?;
                rest = after;
            }
            option if option.len() > 1 && option.starts_with(['-', '+']) => {
                let mut after = after;
                for letter in option.chars().skip(1) {
                    if letter == 'o' {
                        let (name, others) = after.split_first().ok_or("set: -o wants a name")?;
                        shell.options.set_long(name, on)?;
                        after = others;
                    } else {
                        shell.options.set(letter, on)?;
                    }
                }
                rest = after;
            }
            _ => {
                shell.arguments = rest.to_vec();
                return Ok(0);
            }
        }
    }
    Ok(0)
}

/// `read [-r] NAME …`: 1 at the end of the input.
fn read(shell: &mut Shell, arguments: &[String]) -> Result<u8, String> {
    let raw = arguments.iter().any(|argument| argument == "-r");
    let mut names: Vec<&str> =
        arguments.iter().map(String::as_str).filter(|name| !name.starts_with('-')).collect();
    if names.is_empty() {
        names.push("REPLY");
    }
    let mut line = String::new();
    let complete = loop {
        let Some(next) = shell.read_line() else { break false };
        let text = next.strip_suffix('\n');
        line.push_str(text.unwrap_or(&next));
        match line.strip_suffix('\\').filter(|_| !raw && text.is_some()) {
            Some(start) => line = start.to_owned(),
            None => break text.is_some(),
        }
    };
    let separators = shell.variables.get("IFS").cloned().unwrap_or_else(|| " \t\n".to_owned());
    let blank = |c: char| c.is_ascii_whitespace() && separators.contains(c);
    let mut rest = line.trim_matches(blank);
    for (number, name) in names.iter().enumerate() {
        let end = rest.find(|c| separators.contains(c)).filter(|_| number + 1 < names.len());
        let (value, after) = match end {
            Some(end) => {
                let after = rest[end..].trim_start_matches(blank);
                (&rest[..end], after.strip_prefix(|c| separators.contains(c) && !blank(c)).unwrap_or(after))
            }
            None => (rest, ""),
        };
        shell.set(name, value);
        rest = after.trim_start_matches(blank);
    }
    Ok(u8::from(!complete))
}

/// `trap [ACTION] SIGNAL …`: runs the text on a signal, `''` ignores it, `-` makes it what it was.
fn trap(shell: &mut Shell, arguments: &[String]) -> Result<u8, String> {
    let mut rest = arguments.strip_prefix(&["--".to_owned()]).unwrap_or(arguments);
    if rest.is_empty() {
        let name = |number: &i32| {
            let known = signals::NAMES.iter().find(|(_, known)| known == number);
            known.map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned())
        };
        let lines = shell
            .traps
            .iter()
            .map(|(n, text)| format!("trap -- '{}' {}\n", text.replace('\'', "'\\''"), name(n)));
        return print(&lines.collect::<String>());
    }
    let mut text = None;
    if rest.len() > 1 || signals::number_of(&rest[0]).is_none() {
        text = Some(rest[0].as_str()).filter(|text| *text != "-");
        rest = &rest[1..];
    }
    for name in rest {
        let number = signals::number_of(name).ok_or_else(|| format!("trap: {name:?} is no signal"))?;
        shell.trap(number, text);
    }
    Ok(0)
}

fn umask(mask: Option<&str>) -> Result<u8, String> {
    match mask {
        Some(text) => {
            let mask = u32::from_str_radix(text, 8).map_err(|_| format!("umask: {text:?} is no mask"))?;
            signals::umask(mask & 0o777);
            Ok(0)
        }
        None => {
            let mask = signals::umask(0o77);
            signals::umask(mask);
            print(&format!("{mask:04o}\n"))
        }
    }
}

/// `wait [PID …]`: for all children without one. A signal with a trap ends it.
fn wait(shell: &mut Shell, arguments: &[String]) -> Result<u8, String> {
    let wanted = arguments.iter().map(|text| text.trim_start_matches('%').parse::<i32>());
    let wanted = wanted.collect::<Result<Vec<_>, _>>().map_err(|_| "wait: wants numbers of processes")?;
    let mut code = 0;
    loop {
        let waiting = |pid: &i32| shell.jobs.get(pid).is_some_and(Option::is_none);
        let over = match wanted.is_empty() {
            true => !shell.jobs.values().any(Option::is_none),
            false => !wanted.iter().any(waiting),
        };
        if over {
            break;
        }
        match signals::reap(-1, true) {
            Ok(Some(ended)) => shell.note_end(ended),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {
                if signals::is_pending() {
                    return Ok(128 + 15);
                }
            }
            _ => break,
        }
    }
    for pid in &wanted {
        code = shell.jobs.remove(pid).flatten().unwrap_or(127);
    }
    if wanted.is_empty() {
        shell.jobs.clear();
    }
    Ok(code)
}

fn kill(shell: &Shell, arguments: &[String]) -> Result<u8, String> {
    // `%1` is the oldest of the background.
    let job = |text: &String| match text.strip_prefix('%').and_then(|n| n.parse::<usize>().ok()) {
        Some(number) => shell.jobs.keys().nth(number.max(1) - 1).map_or(text.clone(), ToString::to_string),
        None => text.clone(),
    };
    super::super::processes::kill(&arguments.iter().map(job).collect::<Vec<_>>()).or_else(|error| {
        shell.complain(&error);
        Ok(1)
    })
}
