//! Kernel parameters of the calling thread's network namespace.

use std::{fs, io, path::PathBuf};

/// Why a parameter could not be set.
#[derive(Debug, thiserror::Error)]
#[error("set {path} to {value}: {source}")]
pub struct SysctlError {
    path: PathBuf,
    value: String,
    #[source]
    source: io::Error,
}

/// Writes `value` to `/proc/sys/net/<key>` (slashes, not dots: interface names may hold dots), unless it is there
/// already: a read-only `/proc/sys` with the right values is fine.
pub fn set(key: &str, value: &str) -> Result<(), SysctlError> {
    let path = PathBuf::from("/proc/sys/net").join(key);
    if fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    fs::write(&path, value).map_err(|source| SysctlError { path, value: value.to_owned(), source })
}

/// Like [`set`], but a parameter that this kernel lacks (no IPv6, no bridge netfilter) is no error.
pub fn set_if_present(key: &str, value: &str) -> Result<(), SysctlError> {
    match set(key, value) {
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Reads a parameter, `None` when this kernel lacks it.
pub fn get(key: &str) -> Option<String> {
    let text = fs::read_to_string(PathBuf::from("/proc/sys/net").join(key)).ok()?;
    Some(text.trim().to_owned())
}
