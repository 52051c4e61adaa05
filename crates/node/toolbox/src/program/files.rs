//! Files and directories: `mkdir`, `rm`, `touch`, `cp`, `mv`, `ln`.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::Answer;

/// The letters of the options, and the names after them.
fn options<'a>(arguments: &'a [String], known: &str) -> Result<(String, Vec<&'a str>), String> {
    let (mut letters, mut names, mut over) = (String::new(), Vec::new(), false);
    for argument in arguments {
        match argument.strip_prefix('-').filter(|rest| !over && !rest.is_empty()) {
            Some("-") => over = true,
            Some(rest) => {
                if let Some(unknown) = rest.chars().find(|c| !known.contains(*c)) {
                    return Err(format!("unknown option -{unknown}"));
                }
                letters.push_str(rest);
            }
            None => names.push(argument.as_str()),
        }
    }
    if names.is_empty() { Err("a name is missing".to_owned()) } else { Ok((letters, names)) }
}

/// Does something with every name, and says what went wrong.
fn each(applet: &str, names: &[&str], act: impl Fn(&str) -> io::Result<()>) -> Answer {
    let mut code = 0;
    for name in names {
        if let Err(error) = act(name) {
            eprintln!("{applet}: {name}: {error}");
            code = 1;
        }
    }
    Ok(code)
}

/// `mkdir [-p] NAME …`
pub fn mkdir(arguments: &[String]) -> Answer {
    let (letters, names) = options(arguments, "p")?;
    each(
        "mkdir",
        &names,
        |name| if letters.contains('p') { fs::create_dir_all(name) } else { fs::create_dir(name) },
    )
}

/// `rm [-rf] NAME …`
pub fn rm(arguments: &[String]) -> Answer {
    let force = arguments.iter().any(|option| option.starts_with('-') && option.contains('f'));
    let (letters, names) = match options(arguments, "rRf") {
        Err(_) if force && arguments.iter().all(|option| option.starts_with('-')) => return Ok(0),
        other => other?,
    };
    each("rm", &names, |name| {
        let result = match fs::symlink_metadata(name) {
            Ok(meta) if meta.is_dir() && letters.contains(['r', 'R']) => fs::remove_dir_all(name),
            Ok(meta) if meta.is_dir() => Err(io::Error::other("is a directory")),
            Ok(_) => fs::remove_file(name),
            Err(error) => Err(error),
        };
        result.or_else(|error| match error.kind() {
            io::ErrorKind::NotFound if force => Ok(()),
            _ => Err(error),
        })
    })
}

/// `rmdir NAME …`
pub fn rmdir(arguments: &[String]) -> Answer {
    let (_, names) = options(arguments, "")?;
    each("rmdir", &names, |name| fs::remove_dir(name))
}

/// `touch NAME …`
pub fn touch(arguments: &[String]) -> Answer {
    let (_, names) = options(arguments, "")?;
    each("touch", &names, |name| {
        let file = OpenOptions::new().append(true).create(true).open(name)?;
        file.set_modified(SystemTime::now())
    })
}

/// Where a file goes: into the directory, or to the name itself.
fn destination(from: &str, to: &str) -> PathBuf {
    match Path::new(from).file_name().filter(|_| Path::new(to).is_dir()) {
        Some(name) => Path::new(to).join(name),
        None => PathBuf::from(to),
    }
}

fn pairs<'a>(names: &[&'a str]) -> Result<(Vec<&'a str>, &'a str), String> {
    match names.split_last() {
        Some((to, from)) if !from.is_empty() && (from.len() == 1 || Path::new(to).is_dir()) => {
            Ok((from.to_vec(), to))
        }
        Some((to, from)) if !from.is_empty() => Err(format!("{to} is no directory")),
        _ => Err("wants names from and to".to_owned()),
    }
}

/// `cp [-rapf] FROM … TO`
pub fn cp(arguments: &[String]) -> Answer {
    let (letters, names) = options(arguments, "rRapf")?;
    let (from, to) = pairs(&names)?;
    let deep = letters.contains(['r', 'R', 'a']);
    each("cp", &from, |name| copy(Path::new(name), &destination(name, to), deep))
}

fn copy(from: &Path, to: &Path, deep: bool) -> io::Result<()> {
    let meta = if deep { fs::symlink_metadata(from)? } else { fs::metadata(from)? };
    if meta.is_symlink() {
        return std::os::unix::fs::symlink(fs::read_link(from)?, to);
    }
    if !meta.is_dir() {
        return fs::copy(from, to).map(drop);
    }
    if !deep {
        return Err(io::Error::other("is a directory: -r copies it"));
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()), true)?;
    }
    fs::set_permissions(to, meta.permissions())
}

/// `mv [-f] FROM … TO`
pub fn mv(arguments: &[String]) -> Answer {
    let (_, names) = options(arguments, "f")?;
    let (from, to) = pairs(&names)?;
    each("mv", &from, |name| {
        let to = destination(name, to);
        match fs::rename(name, &to) {
            // Another file system.
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                copy(Path::new(name), &to, true)?;
                if Path::new(name).is_dir() { fs::remove_dir_all(name) } else { fs::remove_file(name) }
            }
            other => other,
        }
    })
}

/// `ln -s [-f] TARGET NAME`
pub fn ln(arguments: &[String]) -> Answer {
    let (letters, names) = options(arguments, "sfn")?;
    let (from, to) = pairs(&names)?;
    each("ln", &from, |name| {
        let to = destination(name, to);
        if letters.contains('f') && fs::symlink_metadata(&to).is_ok() {
            fs::remove_file(&to)?;
        }
        if letters.contains('s') { std::os::unix::fs::symlink(name, &to) } else { fs::hard_link(name, &to) }
    })
}
