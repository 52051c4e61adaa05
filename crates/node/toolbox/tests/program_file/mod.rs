//! The program as a file that can be run.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::OnceLock;

use tempfile::TempDir;

/// Where it is.
pub fn toolbox() -> PathBuf {
    static DIRECTORY: OnceLock<TempDir> = OnceLock::new();
    let path = DIRECTORY.get_or_init(|| {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("toolbox");
        std::fs::write(&path, xebec_toolbox::PROGRAM).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        directory
    });
    path.path().join("toolbox")
}
