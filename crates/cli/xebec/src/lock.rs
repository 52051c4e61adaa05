//! One cluster per data directory.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};

/// Held as long as the cluster runs. The kernel lets go of it even if the process is killed.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Takes the lock of a data directory.
///
/// # Errors
/// With the holder's process id if another cluster runs on the directory.
pub fn take(path: &Path) -> Result<Lock> {
    match try_take(path)? {
        Ok(lock) => Ok(lock),
        Err(pid) => bail!(
            "data-dir {}: another xebec runs on it (pid {pid}); stop that one, or choose another --data-dir",
            path.parent().unwrap_or(path).display()
        ),
    }
}

/// Takes the lock, or answers the process id of who holds it.
pub fn try_take(path: &Path) -> Result<Result<Lock, u32>> {
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .with_context(|| format!("lock {}", path.display()))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut text = String::new();
        file.read_to_string(&mut text).with_context(|| format!("lock {}", path.display()))?;
        return Ok(Err(text.trim().parse().unwrap_or(0)));
    }
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        write!(file, "{}", std::process::id())
    };
    write(&mut file).with_context(|| format!("lock {}", path.display()))?;
    Ok(Ok(Lock { _file: file }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_second_cluster_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = take(&path).unwrap();
        let error = take(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
        drop(first);
        take(&path).unwrap();
    }
}
