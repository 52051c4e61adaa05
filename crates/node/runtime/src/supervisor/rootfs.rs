//! A container's file system, made by its first process in its own mount namespace.
//!
//! Sources are cloned as detached mounts while the node's tree is still visible. Then the root is switched, and only
//! then are targets looked up: whatever links an image contains, they cannot lead out of it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use libc::{MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_PRIVATE, MS_RDONLY, MS_REC, MS_RELATIME, MS_SHARED, MS_SLAVE};
use rustix::fs::{CWD, FileType, Mode};
use xebec_cri::{Mount, MountPropagation};

use crate::paths::StateDir;
use crate::spec::ContainerSpec;
use crate::sys::mount::{self, ATTR_RDONLY};

/// A step that failed, in words.
pub type Step<T> = Result<T, String>;

/// Names the step in an error.
pub fn step<T>(result: io::Result<T>, what: impl FnOnce() -> String) -> Step<T> {
    result.map_err(|error| format!("{}: {}", what(), plain(&error)))
}

/// The kernel's words for an error, in Go's lower case and without Rust's number.
pub fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

/// A detached mount that waits for its target.
struct Source {
    tree: OwnedFd,
    is_dir: bool,
    target: PathBuf,
}

/// Makes the file system and enters it.
pub fn build(spec: &ContainerSpec, state: &StateDir) -> Step<()> {
    let mut mounts: Vec<&Mount> = spec.mounts.iter().collect();
    mounts.sort_by_key(|m| m.container_path.components().count());
    let sources = mounts.into_iter().map(clone_source).collect::<Step<Vec<_>>>()?;
    let shm = plain_source(&spec.shm, "/dev/shm", 0)?;
    let cgroups = cgroup_sources(spec)?;
    step(mount::mount("", Path::new("/"), "", MS_REC | MS_PRIVATE, ""), || "make mounts private".into())?;
    let root = state.container(&spec.id).join("rootfs");
    overlay(spec, &state.container(&spec.id), &root)?;
    step(mount::pivot_root(&root), || "pivot_root".into())?;

    kernel_filesystems(spec)?;
    devices(spec)?;
    attach(&shm)?;
    cgroup_mounts(spec, &cgroups)?;
    for volume in &spec.volumes {
        make_dir(volume)?;
    }
    sources.iter().try_for_each(attach)?;
    make_dir(&spec.process.cwd)?;
    hide(spec)?;
    if spec.readonly_rootfs {
        step(mount::set_path_attributes(Path::new("/"), ATTR_RDONLY, false), || "make / read-only".into())?;
    }
    Ok(())
}

fn clone_source(wanted: &Mount) -> Step<Source> {
    let what = || format!("mount {} at {}", wanted.host_path.display(), wanted.container_path.display());
    let is_dir = step(std::fs::metadata(&wanted.host_path), what)?.is_dir();
    let tree = step(mount::clone_tree(&wanted.host_path, true), what)?;
    let propagation = match wanted.propagation {
        MountPropagation::Private => MS_PRIVATE,
        MountPropagation::HostToContainer => MS_SLAVE,
        MountPropagation::Bidirectional => MS_SHARED,
    };
    step(mount::set_attributes(tree.as_fd(), 0, propagation, true), what)?;
    if wanted.readonly {
        step(mount::set_attributes(tree.as_fd(), ATTR_RDONLY, 0, wanted.recursive_readonly), what)?;
    }
    Ok(Source { tree, is_dir, target: wanted.container_path.clone() })
}

fn plain_source(from: &Path, target: &str, attributes: u64) -> Step<Source> {
    let what = || format!("mount {} at {target}", from.display());
    let is_dir = step(std::fs::metadata(from), what)?.is_dir();
    let tree = step(mount::clone_tree(from, false), what)?;
    step(mount::set_attributes(tree.as_fd(), attributes, MS_PRIVATE, false), what)?;
    Ok(Source { tree, is_dir, target: target.into() })
}

fn attach(source: &Source) -> Step<()> {
    if source.is_dir {
        make_dir(&source.target)?;
    } else {
        make_file(&source.target)?;
    }
    step(mount::attach(source.tree.as_fd(), &source.target), || {
        format!("mount at {}", source.target.display())
    })
}

fn make_dir(path: &Path) -> Step<()> {
    if path.is_dir() {
        return Ok(());
    }
    step(std::fs::DirBuilder::new().recursive(true).mode(0o755).create(path), || {
        format!("mkdir {}", path.display())
    })
}

fn make_file(path: &Path) -> Step<()> {
    if path.exists() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_dir(parent)?;
    }
    step(std::fs::File::create(path).map(drop), || format!("create {}", path.display()))
}

/// Largest option string of `mount(2)`: one page with its NUL byte.
const MOUNT_DATA: usize = 4095;

fn overlay(spec: &ContainerSpec, directory: &Path, root: &Path) -> Step<()> {
    let text = |path: &Path| match path.to_str() {
        Some(path) if !path.contains([':', ',', '\\']) => Ok(path.to_owned()),
        _ => {
            Err(format!("mount overlay: path {} has a character that overlayfs cannot take", path.display()))
        }
    };
    let lower = spec.lowerdirs.iter().map(|l| text(l)).collect::<Step<Vec<_>>>()?;
    let (upper, work) = (text(&directory.join("upper"))?, text(&directory.join("work"))?);
    let what = || "mount overlay".to_owned();
    let options =
        |volatile: &str| format!("lowerdir={},upperdir={upper},workdir={work}{volatile}", lower.join(":"));
    if options(",volatile").len() <= MOUNT_DATA {
        // `volatile` (Linux 5.10) skips syncs of a tree that is thrown away anyway.
        return match mount::mount("overlay", root, "overlay", 0, &options(",volatile")) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                step(mount::mount("overlay", root, "overlay", 0, &options("")), what)
            }
            other => step(other, what),
        };
    }
    // Many layers: `lowerdir+` (Linux 6.5) takes one at a time.
    use rustix::mount as api;
    let layered = || -> io::Result<()> {
        let context = api::fsopen("overlay", api::FsOpenFlags::FSOPEN_CLOEXEC)?;
        for layer in &lower {
            api::fsconfig_set_string(&context, "lowerdir+", layer.as_str())?;
        }
        api::fsconfig_set_string(&context, "upperdir", upper.as_str())?;
        api::fsconfig_set_string(&context, "workdir", work.as_str())?;
        api::fsconfig_create(&context)?;
        let none = api::MountAttrFlags::empty();
        let tree = api::fsmount(&context, api::FsMountFlags::FSMOUNT_CLOEXEC, none)?;
        mount::attach(tree.as_fd(), root)
    };
    step(layered(), || format!("mount overlay of {} layers", lower.len()))
}

fn kernel_filesystems(spec: &ContainerSpec) -> Step<()> {
    let guarded = MS_NOSUID | MS_NOEXEC | MS_NODEV;
    let sys = if spec.privileged { guarded } else { guarded | MS_RDONLY };
    for (fstype, target, flags, data) in [
        ("proc", "/proc", guarded, ""),
        ("sysfs", "/sys", sys, ""),
        ("tmpfs", "/dev", MS_NOSUID, "mode=755,size=65536k"),
        ("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"),
        ("mqueue", "/dev/mqueue", guarded, ""),
    ] {
        make_dir(Path::new(target))?;
        step(mount::mount(fstype, Path::new(target), fstype, flags, data), || {
            format!("mount {fstype} at {target}")
        })?;
    }
    Ok(())
}

fn devices(spec: &ContainerSpec) -> Step<()> {
    for device in &spec.devices {
        let what = || format!("make device {}", device.path.display());
        if let Some(parent) = device.path.parent() {
            make_dir(parent)?;
        }
        let kind = FileType::from_raw_mode(device.mode);
        let made =
            rustix::fs::mknodat(CWD, &device.path, kind, Mode::from_raw_mode(device.mode), device.rdev);
        match made {
            Err(rustix::io::Errno::EXIST) => continue,
            other => step(other.map_err(io::Error::from), what)?,
        }
        let permissions = std::fs::Permissions::from_mode(device.mode & 0o7777);
        step(std::fs::set_permissions(&device.path, permissions), what)?;
        step(std::os::unix::fs::chown(&device.path, Some(device.uid), Some(device.gid)), what)?;
    }
    for (to, link) in [
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
        ("/proc/kcore", "/dev/core"),
        ("pts/ptmx", "/dev/ptmx"),
    ] {
        step(symlink(to, link), || format!("link {link}"))?;
    }
    Ok(())
}

fn is_unified(spec: &ContainerSpec) -> bool {
    matches!(&spec.cgroups[..], [(name, _)] if name == "v2")
}

/// On v1 and hybrid systems a container sees its own groups, one directory per hierarchy.
fn cgroup_sources(spec: &ContainerSpec) -> Step<Vec<Source>> {
    if is_unified(spec) {
        return Ok(vec![]);
    }
    let attributes = if spec.privileged { 0 } else { ATTR_RDONLY };
    let source = |(name, path): &(String, PathBuf)| {
        let name = if name == "v2" { "unified" } else { name.strip_prefix("name=").unwrap_or(name) };
        plain_source(path, &format!("/sys/fs/cgroup/{name}"), attributes)
    };
    spec.cgroups.iter().map(source).collect()
}

fn cgroup_mounts(spec: &ContainerSpec, sources: &[Source]) -> Step<()> {
    let target = Path::new("/sys/fs/cgroup");
    if !target.is_dir() {
        return Ok(());
    }
    let mut flags = MS_NOSUID | MS_NOEXEC | MS_NODEV | MS_RELATIME;
    let what = || "mount cgroups".to_owned();
    if is_unified(spec) {
        if !spec.privileged {
            flags |= MS_RDONLY;
        }
        return step(mount::mount("cgroup", target, "cgroup2", flags, ""), what);
    }
    step(mount::mount("cgroup", target, "tmpfs", flags, "mode=755,size=64k"), what)?;
    sources.iter().try_for_each(attach)?;
    step(mount::set_path_attributes(target, ATTR_RDONLY, false), what)
}

fn hide(spec: &ContainerSpec) -> Step<()> {
    for path in &spec.readonly_paths {
        let path = Path::new(path);
        if !path.exists() {
            continue;
        }
        let what = || format!("make {} read-only", path.display());
        let tree = step(mount::clone_tree(path, true), what)?;
        step(mount::set_attributes(tree.as_fd(), ATTR_RDONLY, 0, true), what)?;
        step(mount::attach(tree.as_fd(), path), what)?;
    }
    for path in &spec.masked_paths {
        let path = Path::new(path);
        let Ok(meta) = std::fs::metadata(path) else { continue };
        let what = || format!("mask {}", path.display());
        if meta.is_dir() {
            step(mount::mount("tmpfs", path, "tmpfs", MS_RDONLY, "size=0k"), what)?;
        } else {
            step(mount::bind(Path::new("/dev/null"), path), what)?;
        }
    }
    Ok(())
}
