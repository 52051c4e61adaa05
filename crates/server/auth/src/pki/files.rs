//! Secret files: for root only, and whole or not at all.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::PkiError;

/// Makes a directory for root only.
pub fn make_directory(path: &Path) -> Result<(), PkiError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| PkiError::File { operation: "make directory", path: path.into(), source })
}

/// Reads a text, if the file is there.
pub fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PkiError::File { operation: "read", path: path.into(), source }),
    }
}

/// Puts `text` into the file, with mode 0600 from its first byte on; a crash leaves the old text or the new one.
pub fn replace(path: &Path, text: &str) -> Result<(), PkiError> {
    let file = |source| PkiError::File { operation: "write", path: path.into(), source };
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.new", std::process::id()));
    let temporary = path.with_file_name(name);
    write_synced(&temporary, text).and_then(|()| std::fs::rename(&temporary, path)).map_err(|source| {
        // What is left of the attempt is of no use to anybody.
        let _ = std::fs::remove_file(&temporary);
        file(source)
    })?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => {
            File::open(parent).and_then(|parent| parent.sync_all()).map_err(file)
        }
        _ => Ok(()),
    }
}

fn write_synced(path: &Path, text: &str) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
