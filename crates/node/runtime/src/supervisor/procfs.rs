//! What `/proc` says about processes.

/// Fields of `/proc/<pid>/stat` behind the name, beginning with the state.
fn stat(pid: i32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

/// Start time in clock ticks since boot.
pub fn start_ticks(pid: i32) -> Option<u64> {
    stat(pid)?.get(19)?.parse().ok()
}

/// Parent process and session.
pub fn parent_and_session(pid: i32) -> Option<(i32, i32)> {
    let fields = stat(pid)?;
    Some((fields.get(1)?.parse().ok()?, fields.get(3)?.parse().ok()?))
}

/// Identity of this boot.
pub fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

/// Whether something is mounted at exactly this path.
pub fn is_mount_point(path: &std::path::Path) -> bool {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let Ok(path) = path.canonicalize() else { return false };
    let wanted = path.to_string_lossy();
    text.lines().any(|line| line.split(' ').nth(4) == Some(&*wanted))
}
