//! Rotation: `0.log` becomes `0.log.<time>`; the oldest beyond the limit are removed.

use std::fs;
use std::path::{Path, PathBuf};

use xebec_cri::{ContainerState, RuntimeService};

/// Rotated files of a log, the oldest first.
pub fn rotated(log: &Path) -> Vec<PathBuf> {
    let Some((parent, name)) = log.parent().zip(log.file_name().and_then(|n| n.to_str())) else {
        return Vec::new();
    };
    let prefix = format!("{name}.");
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let mut found: Vec<_> =
        entries.filter(|e| e.file_name().to_string_lossy().starts_with(&prefix)).map(|e| e.path()).collect();
    found.sort();
    found
}

/// Removes a log with all its rotated files.
pub fn remove_all(log: &Path) {
    for path in rotated(log).iter().map(PathBuf::as_path).chain([log]) {
        // Gone is gone.
        let _ = fs::remove_file(path);
    }
}

/// Rotates the logs of all running containers that are larger than `max_bytes`, keeping `max_files` each.
pub async fn rotate_all(runtime: &dyn RuntimeService, max_bytes: u64, max_files: usize) {
    let Ok(containers) = runtime.list_containers(&Default::default()).await else { return };
    for container in containers.iter().filter(|c| c.state == ContainerState::Running) {
        let log = &container.log_path;
        if fs::metadata(log).is_ok_and(|m| m.len() > max_bytes)
            && let Err(error) = rotate(runtime, &container.id, log, max_files).await
        {
            tracing::warn!(%error, log = %log.display(), "log not rotated");
        }
    }
}

async fn rotate(
    runtime: &dyn RuntimeService,
    id: &str,
    log: &Path,
    max_files: usize,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let stamp = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S%3f").to_string();
    let mut target = log.as_os_str().to_owned();
    target.push(format!(".{stamp}"));
    fs::rename(log, &target)?;
    if let Err(error) = runtime.reopen_container_log(id).await {
        // The runtime still writes to the old file: it gets its name back.
        fs::rename(&target, log)?;
        return Err(error.into());
    }
    let old = rotated(log);
    let keep = max_files.saturating_sub(1).max(1);
    for path in &old[..old.len().saturating_sub(keep)] {
        fs::remove_file(path)?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_removed_with_its_past() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        for name in ["0.log", "0.log.20260101-000000000", "1.log"] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        assert_eq!(rotated(&log).len(), 1);
        remove_all(&log);
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().map(|e| e.file_name()).collect();
        assert_eq!(left, ["1.log"]);
    }
}
