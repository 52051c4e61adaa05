//! Persistent network namespaces: a namespace held by a bind mount lives without any process in it.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    thread,
};

use rustix::{
    fs::{Mode, OFlags},
    mount::UnmountFlags,
    thread::{LinkNameSpaceType, UnshareFlags},
};

/// Why a namespace operation failed.
#[derive(Debug, thiserror::Error)]
pub enum NetNsError {
    /// A system call on the namespace's path failed.
    #[error("{operation} network namespace {}: {source}", path.display())]
    Path {
        /// What was tried.
        operation: &'static str,
        /// The bind mount.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A thread could not enter the namespace.
    #[error("enter network namespace: {source}")]
    Enter {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The closure run inside the namespace panicked.
    #[error("the work inside the network namespace panicked")]
    Panicked,
}

/// An open network namespace.
#[derive(Debug)]
pub struct NetNs {
    fd: OwnedFd,
}

impl NetNs {
    /// Creates a namespace with its loopback down and binds it to `path`, which must not exist; parents are made.
    ///
    /// A helper thread moves into a new namespace and binds its own `/proc/thread-self/ns/net` to the path
    /// (`namespaces(7)`): the calling thread never leaves its namespace.
    pub fn create(path: &Path) -> Result<Self, NetNsError> {
        let failed = |operation| {
            move |source: io::Error| NetNsError::Path { operation, path: path.to_owned(), source }
        };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed("prepare directory of"))?;
        }
        fs::File::create_new(path).map_err(failed("create"))?;
        let bound = thread::scope(|scope| {
            scope.spawn(|| unshare_and_bind(path)).join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
        });
        if let Err(source) = bound {
            let _ = fs::remove_file(path);
            return Err(failed("create")(source));
        }
        Self::open(path)
    }

    /// Opens the namespace bound to `path`; a plain file there is refused.
    pub fn open(path: &Path) -> Result<Self, NetNsError> {
        let failed =
            |source: io::Error| NetNsError::Path { operation: "open", path: path.to_owned(), source };
        let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| failed(errno.into()))?;
        /// `NSFS_MAGIC` of `linux/magic.h`.
        const NSFS_MAGIC: i64 = 0x6e73_6673;
        let stat = rustix::fs::fstatfs(&fd).map_err(|errno| failed(errno.into()))?;
        #[allow(clippy::useless_conversion, clippy::unnecessary_fallible_conversions)]
        let magic = i64::try_from(stat.f_type).unwrap_or(0);
        if magic != NSFS_MAGIC {
            return Err(failed(io::Error::new(io::ErrorKind::InvalidData, "not a namespace")));
        }
        Ok(Self { fd })
    }

    /// The namespace of the calling thread.
    pub fn current() -> Result<Self, NetNsError> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// Unmounts and removes the bind mount at `path`; one that is gone already is no error. The namespace itself
    /// goes with its last process, socket and descriptor.
    pub fn remove(path: &Path) -> Result<(), NetNsError> {
        let failed =
            |source: io::Error| NetNsError::Path { operation: "remove", path: path.to_owned(), source };
        loop {
            match rustix::mount::unmount(path, UnmountFlags::DETACH) {
                // Mounts may be stacked: unmount until nothing is mounted (EINVAL).
                Ok(()) => {}
                Err(rustix::io::Errno::NOENT | rustix::io::Errno::INVAL) => break,
                Err(errno) => return Err(failed(errno.into())),
            }
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(()),
        }
    }

    /// Runs `work` on a thread of its own inside the namespace and waits for it. Sockets opened and threads
    /// spawned there stay in the namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetNsError> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter()?;
                Ok(work())
            });
            inside.join().unwrap_or(Err(NetNsError::Panicked))
        })
    }

    /// Moves the calling thread into the namespace for good: only for threads made for it.
    pub fn enter(&self) -> Result<(), NetNsError> {
        rustix::thread::move_into_link_name_space(self.fd.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|errno| NetNsError::Enter { source: errno.into() })
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[allow(unsafe_code)]
fn unshare_and_bind(path: &Path) -> io::Result<()> {
    // SAFETY: NEWNET changes only which network namespace this thread, made for the purpose, is in; file
    // descriptors, memory and the filesystem context stay shared as Rust expects.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
    rustix::mount::mount_bind("/proc/thread-self/ns/net", path)?;
    Ok(())
}
