//! hostPath volumes and their type checks.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::HostPathVolumeSource;

use crate::VolumeError;

/// Checks (and for the `OrCreate` types makes) the path.
pub(crate) fn setup(source: &HostPathVolumeSource) -> Result<PathBuf, VolumeError> {
    let path = PathBuf::from(&source.path);
    if path.components().any(|c| c == Component::ParentDir) || !path.is_absolute() {
        return Err(VolumeError::Path(source.path.clone()));
    }
    let kind = source.type_.as_deref().unwrap_or("");
    match kind {
        "" => {
            if !path.exists() {
                make_dir(&path)?;
            }
        }
        "DirectoryOrCreate" => {
            if !path.exists() {
                make_dir(&path)?;
            }
            check(&path, "directory", fs::FileType::is_dir)?;
        }
        "Directory" => check(&path, "directory", fs::FileType::is_dir)?,
        "FileOrCreate" => {
            if !path.exists() {
                make_file(&path)?;
            }
            check(&path, "file", fs::FileType::is_file)?;
        }
        "File" => check(&path, "file", fs::FileType::is_file)?,
        "Socket" => check(&path, "socket", fs::FileType::is_socket)?,
        "CharDevice" => check(&path, "character device", fs::FileType::is_char_device)?,
        "BlockDevice" => check(&path, "block device", fs::FileType::is_block_device)?,
        _ => {
            return Err(VolumeError::Unsupported {
                field: format!("hostPath.type {kind:?}"),
                remedy: "use one of the documented types",
            });
        }
    }
    Ok(path)
}

fn make_dir(path: &Path) -> Result<(), VolumeError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .map_err(VolumeError::io("create directory", path))
}

fn make_file(path: &Path) -> Result<(), VolumeError> {
    fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o644)
        .open(path)
        .map(drop)
        .map_err(VolumeError::io("create", path))
}

fn check(path: &Path, wanted: &'static str, holds: fn(&fs::FileType) -> bool) -> Result<(), VolumeError> {
    match fs::metadata(path) {
        Ok(meta) if holds(&meta.file_type()) => Ok(()),
        _ => Err(VolumeError::HostPathType { path: path.display().to_string(), wanted }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn source(path: &Path, type_: &str) -> HostPathVolumeSource {
        HostPathVolumeSource { path: path.display().to_string(), type_: Some(type_.into()) }
    }

    #[test]
    fn types_are_checked_and_made() {
        let dir = tempfile::tempdir().unwrap();
        let (sub, file) = (dir.path().join("d/e"), dir.path().join("f"));
        assert!(setup(&source(&sub, "Directory")).is_err());
        setup(&source(&sub, "DirectoryOrCreate")).unwrap();
        setup(&source(&sub, "Directory")).unwrap();
        assert!(setup(&source(&sub, "File")).is_err());
        setup(&source(&file, "FileOrCreate")).unwrap();
        assert!(setup(&source(&file, "Socket")).is_err());
        setup(&source(Path::new("/dev/null"), "CharDevice")).unwrap();
        assert!(setup(&source(&dir.path().join("../x"), "")).is_err());
    }
}
