//! Applets of a few lines.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use super::Answer;
use super::signals::{Stop, reap_orphans};

pub fn pause(_: &[String]) -> Answer {
    reap_orphans();
    Stop::listen()?.wait();
    Ok(0)
}

/// Ends at once on SIGTERM, also as the first process of a container.
pub fn sleep(arguments: &[String]) -> Answer {
    let stop = Stop::listen()?;
    std::thread::spawn(|| {
        stop.wait();
        std::process::exit(143);
    });
    let mut total = Duration::ZERO;
    for text in arguments {
        if matches!(text.as_str(), "infinity" | "inf") {
            loop {
                std::thread::park();
            }
        }
        let (number, unit) = match text.char_indices().last() {
            Some((i, 's')) => (&text[..i], 1.0),
            Some((i, 'm')) => (&text[..i], 60.0),
            Some((i, 'h')) => (&text[..i], 3600.0),
            Some((i, 'd')) => (&text[..i], 86400.0),
            _ => (text.as_str(), 1.0),
        };
        let seconds = number.parse::<f64>().ok().and_then(|n| Duration::try_from_secs_f64(n * unit).ok());
        total = total.saturating_add(seconds.ok_or_else(|| format!("{text:?} is no time"))?);
    }
    std::thread::sleep(total);
    Ok(0)
}

pub fn echo(arguments: &[String]) -> Answer {
    let (newline, words) = match arguments.split_first() {
        Some((first, rest)) if first == "-n" => (false, rest),
        _ => (true, arguments),
    };
    let text = words.join(" ") + if newline { "\n" } else { "" };
    write_out(text.as_bytes())
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

pub fn env(_: &[String]) -> Answer {
    let lines: String = std::env::vars().map(|(name, value)| format!("{name}={value}\n")).collect();
    write_out(lines.as_bytes())
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

pub fn id(_: &[String]) -> Answer {
    let status = fs::read_to_string("/proc/self/status").map_err(|e| format!("/proc/self/status: {e}"))?;
    // Real, effective, saved and file system id; the second counts.
    let field = |name: &str, at: usize| -> Vec<u32> {
        let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().skip(at).filter_map(|n| n.parse().ok()).collect()
    };
    let first = |ids: Vec<u32>| ids.first().copied().unwrap_or_default();
    let (uid, gid) = (first(field("Uid:", 1)), first(field("Gid:", 1)));
    let named = |file: &str, id: u32| match name_of(file, id) {
        Some(name) => format!("{id}({name})"),
        None => id.to_string(),
    };
    let mut groups = field("Groups:", 0);
    if !groups.contains(&gid) {
        groups.insert(0, gid);
    }
    let groups: Vec<String> = groups.into_iter().map(|g| named("/etc/group", g)).collect();
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
