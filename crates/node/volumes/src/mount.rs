//! tmpfs mounts.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags};

use crate::VolumeError;

/// Whether something is mounted at `path` (its device differs from its parent's).
pub(crate) fn is_mount_point(path: &Path) -> bool {
    let Some(parent) = path.parent() else { return true };
    match (fs::symlink_metadata(path), fs::symlink_metadata(parent)) {
        (Ok(own), Ok(above)) => own.is_dir() && own.dev() != above.dev(),
        _ => false,
    }
}

/// Mounts a tmpfs unless one is there. `size` in bytes; `None` takes the kernel's default of half the memory.
pub(crate) fn tmpfs(path: &Path, size: Option<u64>, mode: u32) -> Result<(), VolumeError> {
    if is_mount_point(path) {
        return Ok(());
    }
    let mut options = format!("mode={mode:o}");
    if let Some(size) = size {
        options.push_str(&format!(",size={size}"));
    }
    let options = CString::new(options).expect("invariant: no NUL in mount options");
    rustix::mount::mount("tmpfs", path, "tmpfs", MountFlags::empty(), options.as_c_str())
        .map_err(|e| VolumeError::io("mount tmpfs on", path)(e.into()))
}

/// Unmounts whatever is mounted at `path`, all layers of it, at most 16.
pub(crate) fn unmount_all(path: &Path) -> Result<(), VolumeError> {
    for _ in 0..16 {
        if !is_mount_point(path) {
            return Ok(());
        }
        rustix::mount::unmount(path, UnmountFlags::DETACH)
            .map_err(|e| VolumeError::io("unmount", path)(e.into()))?;
    }
    Ok(())
}
