//! From a layer's tar stream to a directory in the form overlayfs wants.
//!
//! Everything happens relative to directory descriptors, and no symbolic link is ever followed by the kernel: links of
//! the image are resolved by [`tree::Tree`] inside the image's own root, so that no archive can reach out of it.

mod metadata;
mod tree;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use tar::EntryType;

use crate::manifest::digest_text;
use metadata::{Metadata, set_opaque};
use tree::Tree;

/// What came out of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unpacked {
    /// Bytes of its files.
    pub(crate) bytes: u64,
    /// Files, directories and links.
    pub(crate) inodes: u64,
}

/// Opens a blob that may be compressed with gzip or zstd, which its first bytes tell.
pub(crate) fn decompress(path: &Path) -> io::Result<Box<dyn Read>> {
    let mut magic = [0; 4];
    let n = File::open(path)?.read(&mut magic)?;
    let file = io::BufReader::with_capacity(128 * 1024, File::open(path)?);
    Ok(match &magic[..n] {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::Decoder::with_buffer(file)?),
        _ => Box::new(file),
    })
}

/// Unpacks a layer into the empty directory `into`. `lowers` are the unpacked layers below it, top first; links of
/// theirs are followed and directories that the tar does not describe look like theirs. Answers also the digest of the
/// uncompressed stream, the layer's diff id.
pub(crate) fn unpack(blob: &Path, into: &Path, lowers: &[PathBuf]) -> io::Result<(Unpacked, String)> {
    let hashing = Hashing { inner: decompress(blob)?, context: Context::new(&SHA256) };
    let mut archive = tar::Archive::new(hashing);
    let mut unpacker = Unpacker {
        tree: Tree::open(into, lowers)?,
        directory_times: Vec::new(),
        total: Unpacked { bytes: 0, inodes: 0 },
    };
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path_bytes().into_owned();
        unpacker
            .entry(OsStr::from_bytes(&path), &mut entry)
            .map_err(|e| io::Error::new(e.kind(), format!("{:?}: {e}", String::from_utf8_lossy(&path))))?;
    }
    // The digest covers what comes after the last entry, too.
    let mut rest = archive.into_inner();
    io::copy(&mut rest, &mut io::sink())?;
    unpacker.finish()?;
    Ok((unpacker.total, digest_text(rest.context)))
}

struct Hashing<R> {
    inner: R,
    context: Context,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.context.update(&buf[..n]);
        Ok(n)
    }
}

struct Unpacker {
    tree: Tree,
    /// Directories get their times when nothing is put into them any more.
    directory_times: Vec<(PathBuf, Metadata)>,
    total: Unpacked,
}

impl Unpacker {
    fn entry<R: Read>(&mut self, path: &OsStr, entry: &mut tar::Entry<'_, R>) -> io::Result<()> {
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            return Ok(());
        }
        let components = components(path)?;
        let Some((name, parents)) = components.split_last() else {
            return self.root_entry(entry);
        };
        let (parent_path, parent) = self.tree.parent(parents)?;
        if let Some(hidden) = name.as_bytes().strip_prefix(b".wh.") {
            return self.whiteout(&parent, hidden);
        }
        let metadata = Metadata::of_entry(entry)?;
        self.total.inodes += 1;
        let mut opaque = false;
        match (self.tree.own_type(&parent, name)?, kind) {
            (Some(FileType::Directory), EntryType::Directory) => {
                metadata.apply(&parent, name)?;
                self.directory_times.push((parent_path.join(name), metadata));
                return Ok(());
            }
            (Some(existing), _) => {
                // A whiteout of the same layer that a directory replaces still hides what is below.
                opaque = existing == FileType::CharacterDevice && kind == EntryType::Directory;
                self.tree.remove(&parent, name)?;
            }
            (None, _) => {}
        }
        self.create(kind, &parent, name, entry)?;
        if kind == EntryType::Link {
            return Ok(());
        }
        metadata.apply(&parent, name)?;
        if kind == EntryType::Directory {
            if opaque {
                set_opaque(&parent, name)?;
            }
            self.directory_times.push((parent_path.join(name), metadata));
        }
        Ok(())
    }

    fn create<R: Read>(
        &mut self,
        kind: EntryType,
        parent: &OwnedFd,
        name: &OsStr,
        entry: &mut tar::Entry<'_, R>,
    ) -> io::Result<()> {
        match kind {
            EntryType::Directory => rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700))?,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))?;
                self.total.bytes += io::copy(entry, &mut File::from(file))?;
            }
            EntryType::Symlink => {
                let target =
                    entry.link_name_bytes().ok_or_else(|| invalid("symbolic link without target"))?;
                rustix::fs::symlinkat(OsStr::from_bytes(&target), parent, name)?;
            }
            EntryType::Link => {
                let target = entry.link_name_bytes().ok_or_else(|| invalid("hard link without target"))?;
                let target = components(OsStr::from_bytes(&target))?;
                let (file, parents) = target.split_last().ok_or_else(|| invalid("hard link to the root"))?;
                self.total.bytes += self.tree.copy_up(parents, file)?;
                let (_, from) = self.tree.parent(parents)?;
                rustix::fs::linkat(&from, *file, parent, name, AtFlags::empty())?;
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                let device = |n: Option<u32>| n.unwrap_or(0);
                let (major, minor) = (entry.header().device_major()?, entry.header().device_minor()?);
                let file_type = match kind {
                    EntryType::Char => FileType::CharacterDevice,
                    EntryType::Block => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                let number = rustix::fs::makedev(device(major), device(minor));
                if file_type == FileType::CharacterDevice && number == 0 {
                    return Err(invalid("device 0/0 would be taken for a whiteout"));
                }
                rustix::fs::mknodat(parent, name, file_type, Mode::from_raw_mode(0o600), number)?;
            }
            other => return Err(invalid(&format!("entry of unsupported type {other:?}"))),
        }
        Ok(())
    }

    /// The entry for `/` itself.
    fn root_entry<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> io::Result<()> {
        if entry.header().entry_type() != EntryType::Directory {
            return Err(invalid("the root is no directory"));
        }
        let metadata = Metadata::of_entry(entry)?;
        let (_, root) = self.tree.parent(&[])?;
        metadata.apply(&root, OsStr::new("."))
    }

    /// `.wh.NAME` hides what lower layers have under that name, `.wh..wh..opq` all that they have in the directory.
    fn whiteout(&mut self, parent: &OwnedFd, hidden: &[u8]) -> io::Result<()> {
        if !self.tree.has_lowers() {
            return Ok(());
        }
        if hidden == b".wh..opq" {
            return set_opaque(parent, OsStr::new("."));
        }
        let name = OsStr::from_bytes(hidden);
        if hidden.is_empty() || hidden == b"." || hidden == b".." {
            return Err(invalid("whiteout of no file"));
        }
        match self.tree.own_type(parent, name)? {
            None => rustix::fs::mknodat(
                parent,
                name,
                FileType::CharacterDevice,
                Mode::empty(),
                rustix::fs::makedev(0, 0),
            )?,
            // What this layer itself put there stays, and what is below stays hidden.
            Some(FileType::Directory) => set_opaque(parent, name)?,
            Some(_) => {}
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        for (path, metadata) in self.directory_times.drain(..).rev() {
            let parts: Vec<&OsStr> = path.iter().collect();
            let Some((name, parents)) = parts.split_last() else { continue };
            let (_, parent) = self.tree.parent(parents)?;
            if self.tree.own_type(&parent, name)? == Some(FileType::Directory) {
                metadata.apply_times(&parent, name)?;
            }
        }
        Ok(())
    }
}

/// The parts of a path in an archive, relative to the image's root.
fn components(path: &OsStr) -> io::Result<Vec<&OsStr>> {
    let mut parts: Vec<&OsStr> = Vec::new();
    for part in path.as_bytes().split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(invalid("path leaves the image")),
            part => parts.push(OsStr::from_bytes(part)),
        }
    }
    Ok(parts)
}

pub(crate) fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.to_owned())
}

/// Owned copies of path parts.
fn owned(parts: &[&OsStr]) -> Vec<OsString> {
    parts.iter().map(|p| (*p).to_owned()).collect()
}
