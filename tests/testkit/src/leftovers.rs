//! What a cluster that was removed may have forgotten.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::command::run_blocking;

/// The control groups of the cluster with this data directory, in every hierarchy that is mounted.
///
/// The name is the binary's: its data directory hashed with 32 bits of FNV-1a. Tests check that it exists while the
/// cluster runs, so that a change there does not make this look in the wrong place.
pub fn cgroups(data_dir: &Path) -> Vec<PathBuf> {
    let hash = xebec_hash::fnv64(data_dir.as_os_str().as_encoded_bytes());
    let name = format!("xebec/{:08x}", hash & 0xffff_ffff);
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let hierarchies = fields.filter(|fields| matches!(fields.get(2), Some(&("cgroup" | "cgroup2"))));
    let mut found: Vec<PathBuf> = hierarchies.map(|fields| Path::new(fields[1]).join(&name)).collect();
    found.retain(|path| path.exists());
    found
}

/// Mount points at or below a directory.
pub fn mounts(directory: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    points.filter(|point| point.starts_with(directory)).collect()
}

/// Processes that have to do with a directory (by their arguments or open root) or live in a network namespace.
pub fn processes(directory: &Path, netns: &Path) -> Vec<String> {
    let namespace = fs::metadata(netns).map(|meta| meta.ino()).ok();
    let directory = directory.as_os_str().as_encoded_bytes();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if pid == std::process::id() {
            continue;
        }
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let named = command.windows(directory.len()).any(|part| part == directory);
        let inside = fs::metadata(entry.path().join("ns/net")).map(|meta| meta.ino()).ok();
        if named || (inside.is_some() && inside == namespace) {
            found.push(format!("{pid} {}", String::from_utf8_lossy(&command).replace('\0', " ").trim()));
        }
    }
    found
}

/// Links of a namespace beyond those that it had: the loopback and the end of the pair.
pub fn links(netns: &str) -> Vec<String> {
    let all =
        run_blocking(&["ip", "-n", netns, "-o", "link", "show"]).unwrap_or_else(|error| error.to_string());
    let name = |line: &str| line.split(": ").nth(1).unwrap_or(line).to_owned();
    all.lines().map(name).filter(|name| name != "lo" && !name.starts_with("eth0@")).collect()
}

/// Routes of a namespace beyond those that it had.
pub fn routes(netns: &str) -> Vec<String> {
    let all = run_blocking(&["ip", "-n", netns, "route", "show"]).unwrap_or_else(|error| error.to_string());
    all.lines().filter(|line| !line.contains("dev eth0")).map(ToOwned::to_owned).collect()
}

/// nftables tables of a namespace.
pub fn tables(netns: &Path) -> Vec<String> {
    let enter = format!("--net={}", netns.display());
    let all =
        run_blocking(&["nsenter", &enter, "nft", "list", "tables"]).unwrap_or_else(|error| error.to_string());
    all.lines().map(ToOwned::to_owned).collect()
}
