//! Where things lie in the runtime's state directory. Everything else derives from it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The state directory.
///
/// ```text
/// supervisor.sock  supervisor.lock  supervisor.log  handoff.json
/// ns/<sandbox>/{net,ipc,uts}           held namespaces (bind mounts)
/// sandboxes/<sandbox>/meta.json        written by the agent
/// sandboxes/<sandbox>/pause.json       written by the supervisor
/// sandboxes/<sandbox>/{shm,hosts,hostname,resolv.conf}
/// containers/<container>/meta.json     written by the agent
/// containers/<container>/spec.json     written by the agent, read by the supervisor
/// containers/<container>/run.json      written by the supervisor
/// containers/<container>/{upper,work,rootfs,stdin,stdout,stderr}
/// seccomp/<hash>.bpf                   compiled filters
/// ```
#[derive(Debug, Clone)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// The state directory at `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self(root.into())
    }

    /// Its path.
    pub fn root(&self) -> &Path {
        &self.0
    }

    /// A file of the supervisor itself.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Directory of held namespaces; a private mount point.
    pub fn namespaces(&self) -> PathBuf {
        self.0.join("ns")
    }

    /// Held namespaces of one sandbox.
    pub fn sandbox_ns(&self, sandbox: &str) -> PathBuf {
        self.0.join("ns").join(sandbox)
    }

    /// All sandboxes.
    pub fn sandboxes(&self) -> PathBuf {
        self.0.join("sandboxes")
    }

    /// One sandbox.
    pub fn sandbox(&self, id: &str) -> PathBuf {
        self.0.join("sandboxes").join(id)
    }

    /// All containers.
    pub fn containers(&self) -> PathBuf {
        self.0.join("containers")
    }

    /// One container.
    pub fn container(&self, id: &str) -> PathBuf {
        self.0.join("containers").join(id)
    }

    /// Compiled seccomp filters.
    pub fn seccomp(&self) -> PathBuf {
        self.0.join("seccomp")
    }
}

/// Writes a file so that a reader sees the old or the new content, never a part.
///
/// It is not synced: what the files describe (processes, mounts) does not survive a power loss either.
pub fn write_atomic(path: &Path, content: &[u8]) -> std::io::Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    // Two processes, and two threads of one, may write the same file.
    let temporary = path.with_extension(format!("{}-{number}.tmp", std::process::id()));
    std::fs::write(&temporary, content)?;
    std::fs::rename(&temporary, path)
}

/// Writes a value as JSON, atomically.
pub fn write_json<T: serde::Serialize>(path: &Path, value: &T) -> std::io::Result<()> {
    write_atomic(path, &serde_json::to_vec(value)?)
}

/// Reads a JSON file.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> std::io::Result<T> {
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

/// Removes a directory tree; not being there is fine.
pub fn remove_tree(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
