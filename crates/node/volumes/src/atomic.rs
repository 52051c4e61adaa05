//! The atomic writer: all files of a volume change at one instant.
//!
//! Layout as upstream's, because applications watch it: files live in directory `..<time>`, the symlink `..data`
//! points to it, and each visible name is a symlink through `..data`. An update writes a new directory and renames
//! a new `..data` over the old one (rename(2) is atomic).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use crate::VolumeError;

/// One file of a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Contents.
    pub data: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Owner, if not root.
    pub uid: Option<u32>,
}

/// Files by their path relative to the volume.
pub type Payload = BTreeMap<String, File>;

const DATA: &str = "..data";
const DATA_TMP: &str = "..data_tmp";

/// Who owns a rendered volume.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ownership {
    /// `fsGroup`: group of everything, with read permission (and set-group-ID on directories).
    pub fs_group: Option<u32>,
}

/// Refuses paths that could leave the volume or clash with the writer's own names.
pub fn check_path(path: &str) -> Result<(), VolumeError> {
    let bad = path.is_empty()
        || path.len() > 4096
        || path.starts_with("..")
        || Path::new(path).components().any(|c| !matches!(c, Component::Normal(_)));
    if bad { Err(VolumeError::Path(path.to_owned())) } else { Ok(()) }
}

/// Writes the payload into `dir`, which exists. Answers whether anything changed.
pub fn write(dir: &Path, payload: &Payload, owner: Ownership) -> Result<bool, VolumeError> {
    for path in payload.keys() {
        check_path(path)?;
    }
    let current = fs::read_link(dir.join(DATA)).ok();
    if let Some(current) = &current
        && same(&dir.join(current), payload, owner)
    {
        link_names(dir, payload)?;
        return Ok(false);
    }
    let fresh = fresh_dir(dir)?;
    write_files(&fresh, payload, owner)?;
    let name = fresh.file_name().expect("invariant: fresh_dir joins a name");
    let tmp = dir.join(DATA_TMP);
    let _ = fs::remove_file(&tmp);
    symlink(name, &tmp).map_err(VolumeError::io("link", &tmp))?;
    fs::rename(&tmp, dir.join(DATA)).map_err(VolumeError::io("rename", &tmp))?;
    link_names(dir, payload)?;
    unlink_others(dir, payload)?;
    if let Some(old) = current {
        let _ = fs::remove_dir_all(dir.join(old));
    }
    Ok(true)
}

fn fresh_dir(dir: &Path) -> Result<PathBuf, VolumeError> {
    let stamp = jiff::Timestamp::now().strftime("..%Y_%m_%d_%H_%M_%S.%9f").to_string();
    let path = dir.join(stamp);
    fs::create_dir(&path).map_err(VolumeError::io("create directory", &path))?;
    Ok(path)
}

/// Permission bits after `fsGroup` is applied, as upstream does for read-only volumes.
fn file_mode(file: &File, owner: Ownership) -> u32 {
    if owner.fs_group.is_some() { file.mode | 0o440 } else { file.mode }
}

fn write_files(root: &Path, payload: &Payload, owner: Ownership) -> Result<(), VolumeError> {
    let mut dirs = BTreeSet::from([root.to_path_buf()]);
    for (path, file) in payload {
        let target = root.join(path);
        let parent = target.parent().expect("invariant: a joined path has a parent");
        fs::create_dir_all(parent).map_err(VolumeError::io("create directory", parent))?;
        let mut up = parent;
        while up != root && up.starts_with(root) {
            dirs.insert(up.to_path_buf());
            up = up.parent().expect("invariant: below root");
        }
        let mut handle = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&target)
            .map_err(VolumeError::io("create", &target))?;
        handle.write_all(&file.data).map_err(VolumeError::io("write", &target))?;
        if file.uid.is_some() || owner.fs_group.is_some() {
            std::os::unix::fs::chown(&target, file.uid, owner.fs_group)
                .map_err(VolumeError::io("chown", &target))?;
        }
        let mode = fs::Permissions::from_mode(file_mode(file, owner));
        handle.set_permissions(mode).map_err(VolumeError::io("chmod", &target))?;
    }
    for dir in dirs {
        let mode = if owner.fs_group.is_some() { 0o2755 } else { 0o755 };
        if owner.fs_group.is_some() {
            std::os::unix::fs::chown(&dir, None, owner.fs_group).map_err(VolumeError::io("chown", &dir))?;
        }
        fs::set_permissions(&dir, fs::Permissions::from_mode(mode))
            .map_err(VolumeError::io("chmod", &dir))?;
    }
    Ok(())
}

/// Whether the directory holds exactly this payload with these modes.
fn same(root: &Path, payload: &Payload, owner: Ownership) -> bool {
    let mut found = BTreeSet::new();
    if collect(root, root, &mut found).is_err() || found.len() != payload.len() {
        return false;
    }
    payload.iter().all(|(path, file)| {
        let target = root.join(path);
        let mode = fs::metadata(&target).map(|m| m.permissions().mode() & 0o7777);
        found.contains(path)
            && mode.is_ok_and(|m| m == file_mode(file, owner))
            && fs::read(&target).is_ok_and(|data| data == file.data)
    })
}

fn collect(root: &Path, dir: &Path, into: &mut BTreeSet<String>) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(root, &entry.path(), into)?;
        } else if let Ok(relative) = entry.path().strip_prefix(root) {
            into.insert(relative.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

fn first_components(payload: &Payload) -> BTreeSet<&str> {
    payload.keys().filter_map(|path| path.split('/').next()).collect()
}

fn link_names(dir: &Path, payload: &Payload) -> Result<(), VolumeError> {
    for name in first_components(payload) {
        let link = dir.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), &link).map_err(VolumeError::io("link", &link))?;
        }
    }
    Ok(())
}

fn unlink_others(dir: &Path, payload: &Payload) -> Result<(), VolumeError> {
    let wanted = first_components(payload);
    let entries = fs::read_dir(dir).map_err(VolumeError::io("read directory", dir))?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let is_link = entry.file_type().is_ok_and(|t| t.is_symlink());
        if is_link && !name.starts_with("..") && !wanted.contains(name) {
            fs::remove_file(entry.path()).map_err(VolumeError::io("remove", entry.path()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn file(data: &str, mode: u32) -> File {
        File { data: data.as_bytes().to_vec(), mode, uid: None }
    }

    #[test]
    fn an_update_swaps_all_files_and_removes_old_names() {
        let dir = tempfile::tempdir().unwrap();
        let mut payload: Payload =
            [("a".to_owned(), file("1", 0o644)), ("sub/b".to_owned(), file("2", 0o400))].into();
        assert!(write(dir.path(), &payload, Ownership::default()).unwrap());
        assert!(!write(dir.path(), &payload, Ownership::default()).unwrap());
        assert_eq!(fs::read_to_string(dir.path().join("sub/b")).unwrap(), "2");
        let mode = fs::metadata(dir.path().join("sub/b")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o400);
        let before = fs::read_link(dir.path().join("..data")).unwrap();
        payload.remove("a");
        payload.insert("c".into(), file("3", 0o644));
        assert!(write(dir.path(), &payload, Ownership::default()).unwrap());
        assert_ne!(before, fs::read_link(dir.path().join("..data")).unwrap());
        assert!(fs::symlink_metadata(dir.path().join("a")).is_err());
        assert_eq!(fs::read_to_string(dir.path().join("c")).unwrap(), "3");
        assert!(!dir.path().join(before).exists());
    }

    #[test]
    fn paths_cannot_leave_the_volume() {
        for bad in ["", "/etc/passwd", "../x", "a/../b", "..data", "a/.."] {
            assert!(check_path(bad).is_err(), "{bad}");
        }
        for good in ["a", "a/b", ".hidden", "a..b"] {
            assert!(check_path(good).is_ok(), "{good}");
        }
    }
}
