//! `subPath`: a file or directory inside a volume, opened so that a symlink cannot lead out of it.
//!
//! openat2(2) with `RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS` makes the kernel refuse steps that leave the volume
//! (the class of CVE-2017-1002101 and CVE-2021-25741).

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

use crate::VolumeError;

/// Resolves `sub` inside `volume`, making missing directories with the mode of the volume's root, and answers the
/// real path on the node.
pub fn resolve(volume: &Path, sub: &str) -> Result<PathBuf, VolumeError> {
    let relative = Path::new(sub);
    let clean = relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if !clean {
        return Err(VolumeError::Path(sub.to_owned()));
    }
    let at = |e: rustix::io::Errno, path: &Path| VolumeError::io("open", path)(e.into());
    let root = rustix::fs::openat(CWD, volume, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| at(e, volume))?;
    if let Ok(found) = open_beneath(&root, relative) {
        return real_path(&found, volume);
    }
    make_dirs(&root, relative).map_err(|e| at(e, &volume.join(relative)))?;
    let found = open_beneath(&root, relative).map_err(|e| at(e, &volume.join(relative)))?;
    real_path(&found, volume)
}

fn open_beneath(root: &OwnedFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root.as_fd(), path, flags, Mode::empty(), resolve)
}

fn make_dirs(root: &OwnedFd, path: &Path) -> rustix::io::Result<()> {
    let stat = rustix::fs::fstat(root)?;
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    let mut done = PathBuf::from(".");
    for component in path.components() {
        let parent = open_beneath(root, &done)?;
        done.push(component);
        if let Component::Normal(name) = component {
            match rustix::fs::mkdirat(&parent, name, mode) {
                Ok(()) => {
                    let made = open_beneath(root, &done)?;
                    let proc = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&made));
                    rustix::fs::chmod(proc, mode)?;
                }
                Err(rustix::io::Errno::EXIST) => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok(())
}

fn real_path(found: &OwnedFd, volume: &Path) -> Result<PathBuf, VolumeError> {
    let proc = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(found));
    std::fs::read_link(&proc).map_err(VolumeError::io("resolve", volume))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn links_cannot_lead_out() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("v");
        std::fs::create_dir(&volume).unwrap();
        std::os::unix::fs::symlink("/etc", volume.join("evil")).unwrap();
        std::os::unix::fs::symlink("real", volume.join("good")).unwrap();
        std::fs::create_dir(volume.join("real")).unwrap();
        assert!(resolve(&volume, "evil").is_err());
        assert!(resolve(&volume, "evil/passwd").is_err());
        assert!(resolve(&volume, "../v").is_err());
        let canonical = volume.canonicalize().unwrap();
        assert_eq!(resolve(&volume, "good").unwrap(), canonical.join("real"));
        assert_eq!(resolve(&volume, "new/deep").unwrap(), canonical.join("new/deep"));
        assert!(volume.join("new/deep").is_dir());
    }
}
