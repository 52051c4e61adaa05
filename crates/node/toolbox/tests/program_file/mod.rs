//! The program as a file that can be run.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

/// Where it is.
pub fn toolbox() -> PathBuf {
    static DIRECTORY: OnceLock<TempDir> = OnceLock::new();
    let path = DIRECTORY.get_or_init(|| {
        let directory = TempDir::new().unwrap();
        let written = directory.path().join("written");
        std::fs::write(&written, xebec_toolbox::PROGRAM).unwrap();
        std::fs::set_permissions(&written, PermissionsExt::from_mode(0o755)).unwrap();
        // Another process copies it: what tests beside this one fork would inherit a descriptor written to, and a
        // program that is being written cannot be run (ETXTBSY).
        let copied = Command::new("cp").arg(&written).arg(directory.path().join("toolbox")).status().unwrap();
        assert!(copied.success());
        directory
    });
    path.path().join("toolbox")
}
