//! Directories of control groups and the processes in them.

use std::io;
use std::path::{Path, PathBuf};

use super::{CgroupError, Hierarchy, io_error};
use crate::sys::process;

/// Writes a control file.
pub fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    // Not fs::write: O_CREAT on a missing control file answers EACCES, which misleads.
    std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()))
        .map_err(io_error(path))
}

/// How often a group is begun anew whose parent another instance removes at the same moment.
const ATTEMPTS: usize = 100;

/// Makes a group and its parents. Other instances may make or remove the parents that they share with us meanwhile.
pub fn make(hierarchy: &Hierarchy, path: &Path) -> Result<(), CgroupError> {
    let cpuset = !hierarchy.v2 && hierarchy.controllers.iter().any(|c| c == "cpuset");
    for _ in 1..ATTEMPTS {
        match make_once(hierarchy, path, cpuset) {
            Err(CgroupError::Io { source, .. }) if vanished(&source) => {}
            other => return other,
        }
    }
    make_once(hierarchy, path, cpuset)
}

/// Whether a group was removed under our hands: its files are gone, or their group is.
fn vanished(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

fn make_once(hierarchy: &Hierarchy, path: &Path, cpuset: bool) -> Result<(), CgroupError> {
    // A v1 cpuset that someone else has made a moment ago may still be empty: then it is ours to fill, from the top.
    if path == hierarchy.mount || path.is_dir() && !(cpuset && cpuset_is_empty(path)) {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|p| p.starts_with(&hierarchy.mount)) {
        make_once(hierarchy, parent, cpuset)?;
        if hierarchy.v2 {
            delegate(hierarchy, parent)?;
        }
    }
    match std::fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(io_error(path)(error)),
        _ => {}
    }
    if cpuset { inherit_cpuset(path) } else { Ok(()) }
}

/// Turns the controllers on for the children of a v2 group.
fn delegate(hierarchy: &Hierarchy, parent: &Path) -> Result<(), CgroupError> {
    let file = parent.join("cgroup.subtree_control");
    let on = std::fs::read_to_string(&file).map_err(io_error(&file))?;
    for controller in &hierarchy.controllers {
        let used = super::USED.contains(&controller.as_str());
        if used && !on.split_whitespace().any(|c| c == controller) {
            write(&file, &format!("+{controller}"))?;
        }
    }
    Ok(())
}

const CPUSET: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];

fn is_empty(file: &Path) -> bool {
    std::fs::read_to_string(file).unwrap_or_default().trim().is_empty()
}

fn cpuset_is_empty(path: &Path) -> bool {
    CPUSET.iter().any(|file| is_empty(&path.join(file)))
}

/// A new v1 cpuset is empty and takes no process before it has CPUs and memory nodes.
fn inherit_cpuset(path: &Path) -> Result<(), CgroupError> {
    let Some(parent) = path.parent() else { return Ok(()) };
    for file in CPUSET.iter().filter(|file| is_empty(&path.join(file))) {
        let from = parent.join(file);
        let value = std::fs::read_to_string(&from).map_err(io_error(&from))?;
        write(&path.join(file), value.trim())?;
    }
    Ok(())
}

/// Processes in a group and below.
pub fn all_processes(path: &Path) -> Vec<i32> {
    let mut found = processes(path);
    found.extend(children(path).iter().flat_map(|child| all_processes(child)));
    found
}

/// The v2 group below `group` that a process is in, if it is below.
pub fn unified_group_of(pid: i32, group: &Path) -> Option<PathBuf> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    below(group, text.lines().find_map(|line| line.strip_prefix("0::"))?)
}

/// Where `group` is mounted and how `/proc` calls it differ in what comes first; its own name, an id, is in both.
fn below(group: &Path, shown: &str) -> Option<PathBuf> {
    let name = group.file_name()?.to_str()?;
    let (_, rest) = shown.split_once(&format!("/{name}/"))?;
    Some(group.join(rest))
}

/// Processes in a group, not below it.
fn processes(path: &Path) -> Vec<i32> {
    let text = std::fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Kills everything in the group at `path` and below.
pub fn kill(path: &Path) {
    if std::fs::write(path.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    for child in children(path) {
        kill(&child);
    }
    // Without cgroup.kill a fork may slip through between reading and killing: look again until none is left that
    // was not sent the signal.
    let mut killed = std::collections::HashSet::new();
    loop {
        let new: Vec<i32> = processes(path).into_iter().filter(|pid| killed.insert(*pid)).collect();
        if new.is_empty() {
            return;
        }
        for pid in new {
            if let Err(error) = process::kill(pid, libc::SIGKILL) {
                tracing::debug!(pid, %error, "process was gone before it was killed");
            }
        }
    }
}

/// How often the kernel killed in this group for want of memory.
pub fn oom_kills(groups: &[(String, PathBuf)]) -> u64 {
    groups
        .iter()
        .filter_map(|(_, path)| {
            let events = std::fs::read_to_string(path.join("memory.events"))
                .or_else(|_| std::fs::read_to_string(path.join("memory.oom_control")))
                .ok()?;
            events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse::<u64>().ok())
        })
        .max()
        .unwrap_or(0)
}

/// Kills and removes a group with all below.
pub fn remove(path: &Path) -> Result<(), CgroupError> {
    if !path.is_dir() {
        return Ok(());
    }
    for child in children(path) {
        remove(&child)?;
    }
    if !processes(path).is_empty() {
        kill(path);
    }
    match std::fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(io_error(path)),
    }
}

fn children(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(path) else { return vec![] };
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_below_by_the_name_of_the_group() {
        let group = Path::new("/sys/fs/cgroup/xebec/pods/uid/c0ffee");
        let below = |shown| super::below(group, shown);
        assert_eq!(below("/xebec/pods/uid/c0ffee/a/b"), Some(group.join("a/b")));
        assert_eq!(below("/../uid/c0ffee/init.scope"), Some(group.join("init.scope")));
        assert_eq!((below("/xebec/pods/uid/c0ffee"), below("/user.slice")), (None, None));
    }
}
