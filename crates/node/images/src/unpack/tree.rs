//! The layer being unpacked and the layers below it, as one tree.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};

use super::metadata::{Metadata, is_opaque};
use super::{invalid, owned};

/// Symbolic links followed on one path, as in the kernel.
const MAX_LINKS: usize = 40;

pub(super) struct Tree {
    root: OwnedFd,
    lowers: Vec<OwnedFd>,
    /// The last parent that was resolved; tar streams come directory by directory.
    last: Option<(Vec<OsString>, PathBuf, OwnedFd)>,
}

/// What a path is in the merged view.
enum Found {
    Nothing,
    Directory,
    Link(OsString),
    Other,
}

impl Tree {
    pub(super) fn open(root: &Path, lowers: &[PathBuf]) -> io::Result<Self> {
        let open = |p: &Path| rustix::fs::open(p, directory_flags(), Mode::empty()).map_err(io::Error::from);
        let lowers = lowers.iter().map(|p| open(p)).collect::<io::Result<_>>()?;
        Ok(Self { root: open(root)?, lowers, last: None })
    }

    pub(super) fn has_lowers(&self) -> bool {
        !self.lowers.is_empty()
    }

    /// Resolves a directory as a process inside the image would, makes it in this layer and opens it. Answers its real
    /// path as well.
    pub(super) fn parent(&mut self, parts: &[&OsStr]) -> io::Result<(PathBuf, OwnedFd)> {
        if let Some((key, path, fd)) = &self.last
            && key.iter().map(OsString::as_os_str).eq(parts.iter().copied())
        {
            return Ok((path.clone(), fd.try_clone()?));
        }
        let real = self.resolve(parts)?;
        let fd = self.materialise(&real)?;
        self.last = Some((owned(parts), real.clone(), fd.try_clone()?));
        Ok((real, fd))
    }

    /// What this layer has under a name.
    pub(super) fn own_type(&self, parent: &OwnedFd, name: &OsStr) -> io::Result<Option<FileType>> {
        match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes what this layer has under a name, with all in it.
    pub(super) fn remove(&mut self, parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
        self.last = None;
        remove_at(parent, name)
    }

    /// Brings a file of a lower layer into this one, so that it can be linked to. Answers the bytes copied.
    pub(super) fn copy_up(&mut self, parents: &[&OsStr], name: &OsStr) -> io::Result<u64> {
        let (path, parent) = self.parent(parents)?;
        if self.own_type(&parent, name)?.is_some() {
            return Ok(0);
        }
        for lower in &self.lowers {
            let Ok(dir) = open_below(lower, &path) else { continue };
            let Some(kind) = self.own_type(&dir, name)? else { continue };
            if kind == FileType::Symlink {
                let target = rustix::fs::readlinkat(&dir, name, Vec::new())?;
                rustix::fs::symlinkat(target, &parent, name)?;
                Metadata::of_file(&dir, name)?.apply(&parent, name)?;
                return Ok(0);
            }
            if kind != FileType::RegularFile {
                break;
            }
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut from = File::from(rustix::fs::openat(&dir, name, flags, Mode::empty())?);
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let to = rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o600))?;
            let copied = io::copy(&mut from, &mut File::from(to))?;
            Metadata::of_file(&dir, name)?.apply(&parent, name)?;
            return Ok(copied);
        }
        Err(invalid("hard link to a file that is not in the image"))
    }

    /// Follows symbolic links of this layer and of those below, never out of the root.
    fn resolve(&self, parts: &[&OsStr]) -> io::Result<PathBuf> {
        let mut todo: VecDeque<OsString> = owned(parts).into();
        let mut real = PathBuf::new();
        let mut links = 0;
        while let Some(part) = todo.pop_front() {
            match part.as_bytes() {
                b"" | b"." => continue,
                b".." => {
                    real.pop();
                    continue;
                }
                _ => {}
            }
            match self.look(&real, &part)? {
                Found::Nothing | Found::Directory => real.push(part),
                Found::Link(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(rustix::io::Errno::LOOP.into());
                    }
                    if target.as_bytes().starts_with(b"/") {
                        real.clear();
                    }
                    for step in target.as_bytes().split(|b| *b == b'/').rev() {
                        todo.push_front(OsStr::from_bytes(step).to_owned());
                    }
                }
                Found::Other => return Err(rustix::io::Errno::NOTDIR.into()),
            }
        }
        Ok(real)
    }

    /// What is under `name` in the real directory `dir` of the merged view.
    fn look(&self, dir: &Path, name: &OsStr) -> io::Result<Found> {
        for layer in std::iter::once(&self.root).chain(&self.lowers) {
            match open_below(layer, dir) {
                Ok(parent) => {
                    if let Some(found) = look_in(&parent, name)? {
                        return Ok(found);
                    }
                    if is_opaque(&parent, OsStr::new(".")) {
                        return Ok(Found::Nothing);
                    }
                }
                // A directory that the layer hides or has something else in place of ends the search.
                Err(rustix::io::Errno::NOTDIR) => return Ok(Found::Nothing),
                Err(rustix::io::Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Found::Nothing)
    }

    /// Makes the directories of a real path in this layer. They look as they do in the layers below.
    fn materialise(&self, real: &Path) -> io::Result<OwnedFd> {
        let mut fd = self.root.try_clone()?;
        let mut done = PathBuf::new();
        for part in real.iter() {
            match self.own_type(&fd, part)? {
                Some(FileType::Directory) => {}
                existing => {
                    let hidden = existing.is_some();
                    if hidden {
                        remove_at(&fd, part)?;
                    }
                    rustix::fs::mkdirat(&fd, part, Mode::from_raw_mode(0o755))?;
                    rustix::fs::chmodat(&fd, part, Mode::from_raw_mode(0o755), AtFlags::empty())?;
                    if hidden {
                        super::set_opaque(&fd, part)?;
                    } else if let Some(lower) =
                        self.lowers.iter().find_map(|l| open_below(l, &done.join(part)).ok())
                    {
                        Metadata::of_file(&lower, OsStr::new("."))?.apply(&fd, part)?;
                    }
                }
            }
            fd = rustix::fs::openat(&fd, part, directory_flags(), Mode::empty())?;
            done.push(part);
        }
        Ok(fd)
    }
}

fn look_in(parent: &OwnedFd, name: &OsStr) -> io::Result<Option<Found>> {
    let stat = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(Some(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Found::Directory,
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(parent, name, Vec::new())?;
            Found::Link(OsStr::from_bytes(target.as_bytes()).to_owned())
        }
        FileType::CharacterDevice if stat.st_rdev == 0 => Found::Nothing,
        _ => Found::Other,
    }))
}

fn directory_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

/// Opens a directory of a layer by its real path. The kernel follows no link on the way.
fn open_below(layer: &OwnedFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH | ResolveFlags::NO_XDEV;
    rustix::fs::openat2(layer, path, directory_flags(), Mode::empty(), resolve)
}

fn remove_at<F: AsFd>(parent: F, name: &OsStr) -> io::Result<()> {
    match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(rustix::io::Errno::ISDIR | rustix::io::Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let dir = rustix::fs::openat(&parent, name, directory_flags(), Mode::empty())?;
    let mut names = Vec::new();
    for entry in Dir::read_from(&dir)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(OsStr::from_bytes(entry.file_name().to_bytes()).to_owned());
        }
    }
    for child in names {
        remove_at(&dir, &child)?;
    }
    Ok(rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR)?)
}
