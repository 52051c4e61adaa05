//! Applets of a few lines.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::Answer;
use super::signals::{Stop, reap_orphans};

pub fn pause(_: &[String]) -> Answer {
    reap_orphans();
    Stop::listen()?.wait();
    Ok(0)
}

pub fn cat(arguments: &[String]) -> Answer {
    let mut out = io::stdout().lock();
    let files = if arguments.is_empty() { &["-".to_owned()][..] } else { arguments };
    let mut code = 0;
    for name in files {
        let result = match name.as_str() {
            "-" => io::copy(&mut io::stdin().lock(), &mut out),
            name => File::open(name).and_then(|mut f| io::copy(&mut f, &mut out)),
        };
        match result {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(code),
            Err(e) => {
                eprintln!("cat: {name}: {e}");
                code = 1;
            }
            Ok(_) => {}
        }
    }
    Ok(code)
}

/// `env [-i] [-u NAME] [NAME=VALUE …] [COMMAND …]`
pub fn env(arguments: &[String]) -> Answer {
    let mut variables: std::collections::BTreeMap<String, String> = std::env::vars().collect();
    let mut rest = arguments;
    while let Some((first, after)) = rest.split_first() {
        match (first.as_str(), first.split_once('=')) {
            ("-i" | "-", _) => variables.clear(),
            ("-u", _) => {
                variables.remove(after.first().ok_or("-u wants a name")?);
                rest = &after[1..];
                continue;
            }
            (_, Some((name, value))) => drop(variables.insert(name.to_owned(), value.to_owned())),
            (option, None) if option.starts_with('-') => return Err(format!("unknown option {option:?}")),
            _ => break,
        }
        rest = after;
    }
    let Some((name, arguments)) = rest.split_first() else {
        let lines: String = variables.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        return write_out(lines.as_bytes());
    };
    let own = super::applet(name).is_some();
    let mut command = Command::new(if own { "/proc/self/exe" } else { name });
    let error = command.arg0(name).args(arguments).env_clear().envs(variables).exec();
    eprintln!("env: {name}: {error}");
    Ok(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 })
}

/// `printenv [NAME …]`: 1 if one is not set.
pub fn printenv(arguments: &[String]) -> Answer {
    if arguments.is_empty() {
        return env(arguments);
    }
    let mut code = 0;
    for name in arguments {
        match std::env::var(name) {
            Ok(value) => drop(write_out(format!("{value}\n").as_bytes())?),
            Err(_) => code = 1,
        }
    }
    Ok(code)
}

pub fn pwd(_: &[String]) -> Answer {
    let directory = std::env::current_dir().map_err(|e| e.to_string())?;
    write_out(format!("{}\n", directory.display()).as_bytes())
}

/// `basename PATH [SUFFIX]`
pub fn basename(arguments: &[String]) -> Answer {
    let path = arguments.first().ok_or("usage: basename PATH [SUFFIX]")?.trim_end_matches('/');
    let name = path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("/");
    let suffix = arguments.get(1).map_or("", String::as_str);
    let short = name.strip_suffix(suffix).filter(|short| !short.is_empty()).unwrap_or(name);
    write_out(format!("{short}\n").as_bytes())
}

/// `dirname PATH`
pub fn dirname(arguments: &[String]) -> Answer {
    let path = arguments.first().ok_or("usage: dirname PATH")?;
    let name = match path.trim_end_matches('/').rsplit_once('/') {
        Some((directory, _)) => {
            directory.trim_end_matches('/').to_owned() + if directory.is_empty() { "/" } else { "" }
        }
        None if path.starts_with('/') => "/".to_owned(),
        None => ".".to_owned(),
    };
    write_out(format!("{name}\n").as_bytes())
}

/// `uname [-snrvma]`
pub fn uname(arguments: &[String]) -> Answer {
    let kernel = |file: &str| fs::read_to_string(format!("/proc/sys/kernel/{file}")).unwrap_or_default();
    let letters: String = arguments.iter().flat_map(|option| option.chars().skip(1)).collect();
    let letters = if letters.is_empty() { "s" } else { &letters };
    let all = [
        ('s', kernel("ostype")),
        ('n', hostname_text()),
        ('r', kernel("osrelease")),
        ('v', kernel("version")),
        ('m', std::env::consts::ARCH.to_owned()),
    ];
    let wanted = all.iter().filter(|(letter, _)| letters.contains(['a', *letter]));
    let text: Vec<&str> = wanted.map(|(_, value)| value.trim()).collect();
    write_out(format!("{}\n", text.join(" ")).as_bytes())
}

pub fn whoami(_: &[String]) -> Answer {
    let (uid, _) = identity();
    write_out(format!("{}\n", name_of("/etc/passwd", uid).unwrap_or_else(|| uid.to_string())).as_bytes())
}

/// The effective user, and all groups.
pub fn identity() -> (u32, Vec<u32>) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str, at: usize| -> Vec<u32> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().skip(at).filter_map(|number| number.parse().ok()).collect()
    };
    let groups = [field("Gid:", 1).into_iter().take(1).collect(), field("Groups:", 0)].concat();
    (field("Uid:", 1).first().copied().unwrap_or(u32::MAX), groups)
}

pub fn hostname_text() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

pub fn hostname(_: &[String]) -> Answer {
    write_out(format!("{}\n", hostname_text()).as_bytes())
}

pub fn write_out(bytes: &[u8]) -> Answer {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(format!("standard output: {e}")),
        _ => Ok(0),
    }
}

pub fn ls(arguments: &[String]) -> Answer {
    let (mut long, mut all, mut paths) = (false, false, Vec::new());
    for argument in arguments {
        match argument.strip_prefix('-') {
            Some(flags) if !flags.is_empty() => {
                for flag in flags.chars() {
                    match flag {
                        'l' => long = true,
                        'a' => all = true,
                        '1' => {}
                        other => return Err(format!("unknown option -{other}: -l, -a and -1 are known")),
                    }
                }
            }
            _ => paths.push(argument.as_str()),
        }
    }
    if paths.is_empty() {
        paths.push(".");
    }
    let mut text = String::new();
    for path in &paths {
        let failed = |e: io::Error| format!("{path}: {e}");
        let meta = fs::symlink_metadata(path).map_err(failed)?;
        if !meta.is_dir() {
            text += &line(Path::new(path), path, long);
            continue;
        }
        if paths.len() > 1 {
            text += &format!("{path}:\n");
        }
        let mut names: Vec<String> = fs::read_dir(path)
            .map_err(failed)?
            .flatten()
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .filter(|n| all || !n.starts_with('.'))
            .collect();
        names.sort();
        for name in names {
            text += &line(&Path::new(path).join(&name), &name, long);
        }
    }
    write_out(text.as_bytes())
}

fn line(path: &Path, name: &str, long: bool) -> String {
    let Ok(meta) = fs::symlink_metadata(path) else { return format!("{name}\n") };
    if !long {
        return format!("{name}\n");
    }
    let kind = match meta.file_type() {
        t if t.is_dir() => 'd',
        t if t.is_symlink() => 'l',
        t if t.is_char_device() => 'c',
        t if t.is_block_device() => 'b',
        t if t.is_fifo() => 'p',
        t if t.is_socket() => 's',
        _ => '-',
    };
    let target = fs::read_link(path).map(|t| format!(" -> {}", t.display())).unwrap_or_default();
    let (mode, links) = (permissions(meta.mode()), meta.nlink());
    format!("{kind}{mode} {links:>3} {:>5} {:>5} {:>9} {name}{target}\n", meta.uid(), meta.gid(), meta.size())
}

fn permissions(mode: u32) -> String {
    let mut text: Vec<u8> =
        (0..9).map(|i| if mode & (0o400 >> i) == 0 { b'-' } else { b"rwx"[i % 3] }).collect();
    for (bit, place, set, unset) in
        [(0o4000, 2, b's', b'S'), (0o2000, 5, b's', b'S'), (0o1000, 8, b't', b'T')]
    {
        if mode & bit != 0 {
            text[place] = if text[place] == b'x' { set } else { unset };
        }
    }
    text.into_iter().map(char::from).collect()
}

/// `id [-u | -g] [-n]`
pub fn id(arguments: &[String]) -> Answer {
    let (uid, mut groups) = identity();
    let gid = groups.first().copied().unwrap_or_default();
    let letters: String = arguments.iter().flat_map(|option| option.chars().skip(1)).collect();
    let name = |file: &str, id: u32| name_of(file, id).filter(|_| letters.contains('n'));
    if letters.contains('u') {
        let text = name("/etc/passwd", uid).unwrap_or_else(|| uid.to_string());
        return write_out(format!("{text}\n").as_bytes());
    }
    if letters.contains('g') {
        let text = name("/etc/group", gid).unwrap_or_else(|| gid.to_string());
        return write_out(format!("{text}\n").as_bytes());
    }
    let named = |file: &str, id: u32| match name_of(file, id) {
        Some(name) => format!("{id}({name})"),
        None => id.to_string(),
    };
    let mut seen = std::collections::BTreeSet::new();
    groups.retain(|group| seen.insert(*group));
    let groups: Vec<String> = groups.into_iter().map(|group| named("/etc/group", group)).collect();
    let (user, group) = (named("/etc/passwd", uid), named("/etc/group", gid));
    write_out(format!("uid={user} gid={group} groups={}\n", groups.join(",")).as_bytes())
}

fn name_of(file: &str, id: u32) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse::<u32>().ok()? == id).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_read_as_ls_writes_them() {
        assert_eq!(permissions(0o755), "rwxr-xr-x");
        assert_eq!(permissions(0o4755), "rwsr-xr-x");
        assert_eq!(permissions(0o1777), "rwxrwxrwt");
        assert_eq!(permissions(0o2640), "rw-r-S---");
    }
}
