//! Applets that read text: `head`, `tail`, `wc`, `grep`, `seq`.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::time::Duration;

use super::Answer;
use super::regex::Regex;
use super::small::write_out;

/// How often a file that is followed is looked at.
const FOLLOW: Duration = Duration::from_millis(250);

fn open(name: &str) -> Result<Box<dyn BufRead>, String> {
    match name {
        "-" => Ok(Box::new(BufReader::new(io::stdin()))),
        name => Ok(Box::new(BufReader::new(File::open(name).map_err(|e| format!("{name}: {e}"))?))),
    }
}

/// Options that `head` and `tail` share: a count (and whether it is bytes, and whether it counts from the start), `-f`
/// and the names.
struct Part {
    count: u64,
    bytes: bool,
    from_start: bool,
    follow: bool,
    names: Vec<String>,
}

fn part(arguments: &[String]) -> Result<Part, String> {
    let mut part = Part { count: 10, bytes: false, from_start: false, follow: false, names: Vec::new() };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let (bytes, count) = match argument.as_str() {
            "-f" | "-F" => {
                part.follow = true;
                continue;
            }
            "-q" => continue,
            text if text.starts_with("-n") || text.starts_with("-c") => match &text[2..] {
                "" => (text.starts_with("-c"), rest.next().ok_or("a number is missing")?.as_str()),
                count => (text.starts_with("-c"), count),
            },
            text if text.len() > 1 && text.starts_with('-') => match text.strip_suffix('f') {
                Some(text) if text.len() > 1 => {
                    part.follow = true;
                    (false, &text[1..])
                }
                _ => (false, &text[1..]),
            },
            name => {
                part.names.push(name.to_owned());
                continue;
            }
        };
        (part.bytes, part.from_start) = (bytes, count.starts_with('+'));
        let digits = count.trim_start_matches(['+', '-']);
        part.count = digits.parse().map_err(|_| format!("{count:?} is no number"))?;
    }
    if part.names.is_empty() {
        part.names.push("-".to_owned());
    }
    Ok(part)
}

/// `head [-n LINES | -c BYTES] [FILE …]`
pub fn head(arguments: &[String]) -> Answer {
    let part = part(arguments)?;
    let mut code = 0;
    for name in &part.names {
        let mut input = match open(name) {
            Ok(input) => input,
            Err(error) => {
                eprintln!("head: {error}");
                code = 1;
                continue;
            }
        };
        title(&part.names, name)?;
        let mut out = Vec::new();
        if part.bytes {
            input.take(part.count).read_to_end(&mut out).map_err(|e| format!("{name}: {e}"))?;
        } else {
            for _ in 0..part.count {
                if input.read_until(b'\n', &mut out).map_err(|e| format!("{name}: {e}"))? == 0 {
                    break;
                }
            }
        }
        write_out(&out)?;
    }
    Ok(code)
}

fn title(names: &[String], name: &str) -> Answer {
    if names.len() < 2 { Ok(0) } else { write_out(format!("==> {name} <==\n").as_bytes()) }
}

/// `tail [-f] [-n LINES | -n +LINE | -c BYTES] [FILE …]`
pub fn tail(arguments: &[String]) -> Answer {
    let part = part(arguments)?;
    for name in &part.names {
        let mut bytes = Vec::new();
        // A device without an end has no last lines.
        if name != "/dev/null" {
            open(name)?.read_to_end(&mut bytes).map_err(|e| format!("{name}: {e}"))?;
        }
        title(&part.names, name)?;
        write_out(&bytes[start_of(&bytes, &part)..])?;
    }
    match part.names.first().filter(|name| part.follow && *name != "-") {
        Some(name) => follow(name),
        None => Ok(0),
    }
}

fn start_of(bytes: &[u8], part: &Part) -> usize {
    let count = usize::try_from(part.count).unwrap_or(usize::MAX);
    let newlines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
    match (part.bytes, part.from_start) {
        (true, true) => count.saturating_sub(1).min(bytes.len()),
        (true, false) => bytes.len().saturating_sub(count),
        (false, from_start) => {
            let lines = newlines(bytes) + usize::from(!bytes.is_empty() && !bytes.ends_with(b"\n"));
            let skipped = if from_start { count.saturating_sub(1) } else { lines.saturating_sub(count) };
            let mut ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
            if skipped == 0 { 0 } else { ends.nth(skipped - 1).unwrap_or(bytes.len()) }
        }
    }
}

fn follow(name: &str) -> Answer {
    let failed = |e: io::Error| format!("{name}: {e}");
    let mut file = File::open(name).map_err(failed)?;
    let mut at = file.seek(SeekFrom::End(0)).map_err(failed)?;
    loop {
        std::thread::sleep(FOLLOW);
        // A file that became shorter begins anew; one that was replaced is opened anew.
        let len = std::fs::metadata(name).map(|meta| meta.len()).unwrap_or(at);
        if len < at {
            file = File::open(name).map_err(failed)?;
            at = 0;
        }
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(at)).map_err(failed)?;
        at += file.read_to_end(&mut bytes).map_err(failed)? as u64;
        write_out(&bytes)?;
    }
}

/// `wc [-lwc] [FILE …]`
pub fn wc(arguments: &[String]) -> Answer {
    let (options, mut names): (Vec<_>, Vec<_>) =
        arguments.iter().cloned().partition(|argument| argument.starts_with('-') && argument.len() > 1);
    let letters: String = options.iter().flat_map(|option| option.chars().skip(1)).collect();
    let is_wanted = |letter: char| letters.is_empty() || letters.contains(letter);
    if names.is_empty() {
        names.push("-".to_owned());
    }
    let line = |counts: [u64; 3], name: &str| {
        let wanted = counts.iter().zip("lwc".chars()).filter(|(_, letter)| is_wanted(*letter));
        let text: Vec<String> = wanted.map(|(count, _)| count.to_string()).collect();
        format!("{} {}\n", text.join(" "), if name == "-" { "" } else { name }).replace(" \n", "\n")
    };
    let (mut out, mut total) = (String::new(), [0; 3]);
    for name in &names {
        let mut bytes = Vec::new();
        open(name)?.read_to_end(&mut bytes).map_err(|e| format!("{name}: {e}"))?;
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
        let words = bytes.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).count();
        let counts = [lines, words, bytes.len()].map(|count| count as u64);
        (0..3).for_each(|i| total[i] += counts[i]);
        out += &line(counts, name);
    }
    if names.len() > 1 {
        out += &line(total, "total");
    }
    write_out(out.as_bytes())
}

/// `grep [-Eivcqnlor] [-F] PATTERN [FILE …]`: 0 if a line matched, 1 if none did.
pub fn grep(arguments: &[String]) -> Answer {
    let (letters, patterns, mut names) = grep_arguments(arguments)?;
    let has = |letter: char| letters.contains(letter);
    let compile = |pattern: &String| Regex::new(pattern, has('E'), has('F'), has('i'));
    let patterns = patterns.iter().flat_map(|p| p.split('\n')).map(|p| compile(&p.to_owned()));
    let patterns: Vec<Regex> = patterns.collect::<Result<_, _>>()?;
    if names.is_empty() {
        names.push("-".to_owned());
    }
    let mut found = false;
    let mut failed = false;
    let titled = names.len() > 1 && !has('h');
    for name in &names {
        let mut input = match open(name) {
            Ok(input) => input,
            Err(error) => {
                if !has('s') {
                    eprintln!("grep: {error}");
                }
                failed = true;
                continue;
            }
        };
        let (mut count, mut number, mut line) = (0_u64, 0_u64, Vec::new());
        while input.read_until(b'\n', &mut line).map_err(|e| format!("{name}: {e}"))? > 0 {
            let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
            line.clear();
            number += 1;
            if patterns.iter().any(|pattern| pattern.find(&text).is_some()) == has('v') {
                continue;
            }
            (found, count) = (true, count + 1);
            if has('q') {
                return Ok(0);
            }
            if has('l') {
                write_out(format!("{name}\n").as_bytes())?;
                break;
            }
            if !has('c') {
                let title = if titled { format!("{name}:") } else { String::new() };
                let at = if has('n') { format!("{number}:") } else { String::new() };
                let shown = match patterns.iter().find_map(|p| p.find(&text)).filter(|_| has('o')) {
                    Some((start, end)) => text.chars().skip(start).take(end - start).collect(),
                    None => text,
                };
                write_out(format!("{title}{at}{shown}\n").as_bytes())?;
            }
        }
        if has('c') {
            let title = if titled { format!("{name}:") } else { String::new() };
            write_out(format!("{title}{count}\n").as_bytes())?;
        }
    }
    Ok(if failed { 2 } else { u8::from(!found) })
}

/// Letters of the options, patterns and names.
fn grep_arguments(arguments: &[String]) -> Result<(String, Vec<String>, Vec<String>), String> {
    let (mut letters, mut patterns, mut names) = (String::new(), Vec::new(), Vec::new());
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.strip_prefix('-').filter(|rest| !rest.is_empty()) {
            Some("e") => patterns.push(rest.next().ok_or("-e wants a pattern")?.clone()),
            Some("-") => {
                names.extend(rest.by_ref().cloned());
            }
            Some(option) => {
                if let Some(unknown) = option.chars().find(|c| !"EFivcqnlohs".contains(*c)) {
                    return Err(format!("unknown option -{unknown}"));
                }
                letters.push_str(option);
            }
            None => names.push(argument.clone()),
        }
    }
    if patterns.is_empty() {
        if names.is_empty() {
            return Err("usage: grep [OPTIONS] PATTERN [FILE …]".to_owned());
        }
        patterns.push(names.remove(0));
    }
    Ok((letters, patterns, names))
}

/// `seq [FIRST [STEP]] LAST`
pub fn seq(arguments: &[String]) -> Answer {
    let number = |text: &String| text.parse::<i64>().map_err(|_| format!("{text:?} is no number"));
    let (first, step, last) = match arguments {
        [last] => (1, 1, number(last)?),
        [first, last] => (number(first)?, 1, number(last)?),
        [first, step, last] => (number(first)?, number(step)?, number(last)?),
        _ => return Err("usage: seq [FIRST [STEP]] LAST".to_owned()),
    };
    if step == 0 {
        return Err("the step is 0".to_owned());
    }
    let mut out = io::stdout().lock();
    let mut at = Some(first);
    while let Some(value) = at.filter(|at| if step > 0 { *at <= last } else { *at >= last }) {
        // A reader that has enough ends it.
        if writeln!(out, "{value}").is_err() {
            break;
        }
        at = value.checked_add(step);
    }
    Ok(0)
}
