//! Processes: `kill`, `ps`.

use std::fmt::Write;
use std::fs;

use super::Answer;
use super::signals;
use super::small::write_out;

/// `kill [-SIGNAL | -s SIGNAL] PID …`, or `kill -l`.
pub fn kill(arguments: &[String]) -> Answer {
    let (mut number, mut rest) = (15, arguments);
    let signal = |name: &str| signals::number_of(name).ok_or_else(|| format!("{name:?} is no signal"));
    match arguments {
        [option, ..] if option == "-l" => {
            let names: Vec<&str> = signals::NAMES[1..].iter().map(|(name, _)| *name).collect();
            return write_out(format!("{}\n", names.join(" ")).as_bytes());
        }
        [option, name, after @ ..] if option == "-s" => {
            number = signal(name)?;
            rest = after;
        }
        [option, after @ ..] if option.starts_with('-') && option != "--" => {
            number = signal(&option[1..])?;
            rest = after;
        }
        _ => {}
    }
    let rest = rest.strip_prefix(&["--".to_owned()]).unwrap_or(rest);
    if rest.is_empty() {
        return Err("usage: kill [-SIGNAL] PID …".to_owned());
    }
    let mut code = 0;
    for text in rest {
        let pid = text.parse().map_err(|_| format!("{text:?} is no number of a process"))?;
        if let Err(error) = signals::kill(pid, number) {
            eprintln!("kill: {pid}: {error}");
            code = 1;
        }
    }
    Ok(code)
}

/// `ps`: all processes that can be seen. Options are taken and change nothing.
pub fn ps(_: &[String]) -> Answer {
    let mut pids: Vec<u32> = fs::read_dir("/proc")
        .map_err(|e| format!("/proc: {e}"))?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    let mut text = String::from("  PID  PPID USER  STAT COMMAND\n");
    for pid in pids {
        // One that has just ended is left out.
        let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { continue };
        let field = |name: &str| -> String {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.split_whitespace().next().unwrap_or_default().to_owned()
        };
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).trim_end_matches('\0').replace('\0', " ");
        let line = if line.is_empty() { format!("[{}]", field("Name:")) } else { line };
        let (parent, user, state) = (field("PPid:"), field("Uid:"), field("State:"));
        let _ = writeln!(text, "{pid:>5} {parent:>5} {user:<5} {state:<4} {line}");
    }
    write_out(text.as_bytes())
}
