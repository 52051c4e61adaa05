//! Seccomp: profiles to filter programs.

mod bpf;
mod defaults;
mod oci;
mod syscalls;

use std::path::{Path, PathBuf};

use xebec_cri::{CriError, SecurityProfile};

use crate::paths::{StateDir, write_atomic};

/// The compiled filter for a profile, kept in the state directory by its content; `None` is no confinement.
///
/// # Errors
/// [`CriError::Start`] when a profile of the node cannot be read or uses what this kernel cannot do.
pub fn prepare(
    state: &StateDir,
    profile: &SecurityProfile,
    capabilities: u64,
) -> Result<Option<PathBuf>, CriError> {
    let profile = match profile {
        SecurityProfile::Unconfined => return Ok(None),
        SecurityProfile::RuntimeDefault => defaults::profile(capabilities),
        SecurityProfile::Localhost(path) => oci::load(Path::new(path), capabilities)?,
    };
    let program = bpf::compile(&profile);
    let bytes: Vec<u8> = program.iter().flat_map(|instruction| instruction.to_ne_bytes()).collect();
    let path = state.seccomp().join(format!("{:016x}.bpf", xebec_hash::fnv64(&bytes)));
    if !path.exists() {
        std::fs::create_dir_all(state.seccomp())
            .and_then(|()| write_atomic(&path, &bytes))
            .map_err(|e| CriError::failed("write seccomp filter", e))?;
    }
    Ok(Some(path))
}

/// Reads a compiled filter.
pub fn load_program(path: &Path) -> std::io::Result<Vec<u64>> {
    let bytes = std::fs::read(path)?;
    Ok(bytes.as_chunks::<8>().0.iter().map(|chunk| u64::from_ne_bytes(*chunk)).collect())
}
