//! Owner, mode, times and extended attributes.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{AtFlags, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};

/// The attribute by which overlayfs knows a directory that hides what is below it.
const OPAQUE: &str = "trusted.overlay.opaque";
/// Attributes that only overlayfs may set: an image must not forge them.
const FORBIDDEN: &str = "trusted.overlay.";
/// Longest value of an attribute that is copied from a lower layer, in bytes.
const MAX_XATTR: usize = 64 * 1024;

pub(super) struct Metadata {
    uid: u32,
    gid: u32,
    mode: u32,
    mtime: Timespec,
    xattrs: Vec<(OsString, Vec<u8>)>,
}

impl Metadata {
    pub(super) fn of_entry<R: Read>(entry: &mut tar::Entry<'_, R>) -> io::Result<Self> {
        let header = entry.header();
        let (uid, gid, mode) = (header.uid()?, header.gid()?, header.mode()?);
        let mut mtime = Timespec { tv_sec: header.mtime()? as i64, tv_nsec: 0 };
        let mut ids = [uid, gid];
        let mut xattrs = Vec::new();
        if let Some(records) = entry.pax_extensions()? {
            for record in records {
                let record = record?;
                let (key, value) = (record.key_bytes(), record.value_bytes());
                let text = String::from_utf8_lossy(value);
                match key {
                    b"mtime" => mtime = parse_time(&text).unwrap_or(mtime),
                    b"uid" => ids[0] = text.parse().unwrap_or(ids[0]),
                    b"gid" => ids[1] = text.parse().unwrap_or(ids[1]),
                    _ => {
                        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.")
                            && !name.starts_with(FORBIDDEN.as_bytes())
                        {
                            xattrs.push((OsStr::from_bytes(name).to_owned(), value.to_vec()));
                        }
                    }
                }
            }
        }
        let id = |n: u64| u32::try_from(n).map_err(|_| super::invalid("user or group id is too large"));
        Ok(Self { uid: id(ids[0])?, gid: id(ids[1])?, mode: mode & 0o7777, mtime, xattrs })
    }

    /// Of something that exists.
    pub(super) fn of_file(parent: &OwnedFd, name: &OsStr) -> io::Result<Self> {
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let mut xattrs = Vec::new();
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            let path = magic_path(parent, name);
            let mut names = vec![0u8; MAX_XATTR];
            let n = rustix::fs::llistxattr(&path, &mut names[..]).unwrap_or(0);
            for key in names[..n].split(|b| *b == 0).filter(|k| !k.is_empty()) {
                let mut value = vec![0u8; MAX_XATTR];
                let key = OsStr::from_bytes(key);
                if key.as_bytes().starts_with(FORBIDDEN.as_bytes()) {
                    continue;
                }
                let n = rustix::fs::lgetxattr(&path, key, &mut value[..])?;
                value.truncate(n);
                xattrs.push((key.to_owned(), value));
            }
        }
        Ok(Self {
            uid: stat.st_uid,
            gid: stat.st_gid,
            mode: stat.st_mode & 0o7777,
            mtime: Timespec { tv_sec: stat.st_mtime as i64, tv_nsec: stat.st_mtime_nsec as _ },
            xattrs,
        })
    }

    /// Owner first: changing it clears set-user-id bits and capabilities.
    pub(super) fn apply(&self, parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            // Not a symbolic link, as was just seen, and nobody else writes here.
            rustix::fs::chmodat(parent, name, Mode::from_raw_mode(self.mode), AtFlags::empty())?;
            for (key, value) in &self.xattrs {
                rustix::fs::lsetxattr(magic_path(parent, name), key.as_os_str(), value, XattrFlags::empty())?;
            }
        }
        self.apply_times(parent, name)
    }

    pub(super) fn apply_times(&self, parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
        let times = Timestamps { last_access: self.mtime, last_modification: self.mtime };
        Ok(rustix::fs::utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

/// Makes a directory hide what lower layers have in it.
pub(super) fn set_opaque(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    Ok(rustix::fs::lsetxattr(magic_path(parent, name), OPAQUE, b"y", XattrFlags::empty())?)
}

/// Whether a directory hides what lower layers have in it.
pub(super) fn is_opaque(parent: &OwnedFd, name: &OsStr) -> bool {
    let mut value = [0u8; 1];
    matches!(rustix::fs::lgetxattr(magic_path(parent, name), OPAQUE, &mut value[..]), Ok(1) if value == *b"y")
}

/// There are no `*at` calls for extended attributes; this path goes through the descriptor.
fn magic_path(parent: &OwnedFd, name: &OsStr) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", parent.as_raw_fd())).join(name)
}

/// `seconds[.fraction]` of a PAX header.
fn parse_time(text: &str) -> Option<Timespec> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    Some(Timespec { tv_sec: seconds.parse().ok()?, tv_nsec: digits.parse().ok()? })
}
