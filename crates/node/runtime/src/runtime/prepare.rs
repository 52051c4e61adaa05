//! From a container's configuration and its image to a specification in which nothing is left open.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use xebec_cri::{
    ContainerConfig, CriError, ImageConfig, Mount, MountPropagation, NamespaceMode, SecurityProfile,
};

use super::Rootfs;
use super::records::SandboxRecord;
use crate::cgroup::{AllowedDevices, Cgroups, DeviceKind, DeviceRule, parse_access};
use crate::paths::StateDir;
use crate::spec::{ContainerSpec, DeviceNode, PidNamespace, ProcessSpec};
use crate::sys::process;
use crate::users::{Accounts, User};
use crate::{capabilities, seccomp};

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A specification and what the record needs of it.
pub struct Prepared {
    /// For the supervisor.
    pub spec: ContainerSpec,
    /// Resolved user.
    pub user: User,
    /// Stop signal.
    pub stop_signal: i32,
    /// Devices that it may use.
    pub allowed_devices: AllowedDevices,
}

/// What a container is made from.
pub struct Inputs<'a> {
    /// State directory.
    pub state: &'a StateDir,
    /// Control groups.
    pub cgroups: &'a Cgroups,
    /// New id.
    pub id: &'a str,
    /// Its group.
    pub group: &'a str,
    /// Its sandbox.
    pub sandbox: &'a SandboxRecord,
    /// Its configuration.
    pub config: &'a ContainerConfig,
    /// Its image.
    pub rootfs: &'a Rootfs,
}

/// Resolves everything.
pub fn prepare(inputs: &Inputs<'_>) -> Result<Prepared, CriError> {
    let Inputs { config, sandbox, rootfs, state, .. } = *inputs;
    let security = &config.security;
    let user = Accounts::read(&rootfs.lowerdirs).resolve(security, &rootfs.config.user)?;
    let process = process_spec(inputs, &user)?;
    let namespaces = sandbox.config.namespaces;
    let held = |mode: NamespaceMode, kind: &str| {
        (mode != NamespaceMode::Node).then(|| state.sandbox_ns(&sandbox.id).join(kind))
    };
    let shm = match namespaces.ipc {
        NamespaceMode::Node => "/dev/shm".into(),
        _ => state.sandbox(&sandbox.id).join("shm"),
    };
    let pidns = match security.pid_mode.unwrap_or(namespaces.pid) {
        NamespaceMode::Container => PidNamespace::Own,
        NamespaceMode::Pod => PidNamespace::Sandbox,
        NamespaceMode::Node => PidNamespace::Host,
    };
    let mut mounts = sandbox_files(inputs);
    for mount in &config.mounts {
        check_mount(mount)?;
        mounts.push(mount.clone());
    }
    let (devices, allowed_devices) = devices(config)?;
    let hidden = |paths: &Vec<String>| if security.privileged { vec![] } else { paths.clone() };
    let log_path = log_path(sandbox, config);
    let spec = ContainerSpec {
        id: inputs.id.to_owned(),
        sandbox_id: sandbox.id.clone(),
        lowerdirs: rootfs.lowerdirs.clone(),
        netns: held(namespaces.network, "net"),
        ipcns: held(namespaces.ipc, "ipc"),
        utsns: held(namespaces.network, "uts"),
        pidns,
        mounts,
        volumes: rootfs.config.volumes.iter().map(PathBuf::from).collect(),
        devices,
        shm,
        masked_paths: hidden(&security.masked_paths),
        readonly_paths: hidden(&security.readonly_paths),
        readonly_rootfs: security.readonly_rootfs,
        privileged: security.privileged,
        cgroups: inputs.cgroups.paths(inputs.group),
        process,
        log_path,
        stdin: config.stdin,
    };
    let stop_signal = stop_signal(config, &rootfs.config)?;
    Ok(Prepared { spec, user, stop_signal, allowed_devices })
}

/// Absolute path of a container's log, if it has one.
pub fn log_path(sandbox: &SandboxRecord, config: &ContainerConfig) -> Option<PathBuf> {
    let named = !config.log_path.as_os_str().is_empty();
    named.then(|| sandbox.config.log_directory.join(&config.log_path))
}

fn process_spec(inputs: &Inputs<'_>, user: &User) -> Result<ProcessSpec, CriError> {
    let (config, image) = (inputs.config, &inputs.rootfs.config);
    let security = &config.security;
    let available =
        process::permitted_capabilities().map_err(|e| CriError::failed("read capabilities", e))?;
    let mut capabilities = capabilities::resolve(&security.capabilities, security.privileged, available)?;
    let named = security.capabilities.add.iter().any(|n| n.to_ascii_uppercase().ends_with("MKNOD"));
    if !inputs.cgroups.filters_devices() && !security.privileged && !named {
        capabilities &= !capabilities::bit("MKNOD").unwrap_or(0);
    }
    let profile = if security.privileged { &SecurityProfile::Unconfined } else { &security.seccomp };
    let seccomp = seccomp::prepare(inputs.state, profile, capabilities)?;
    let cwd = match (config.working_dir.as_str(), image.working_dir.as_str()) {
        ("", "") => "/",
        ("", image) => image,
        (own, _) => own,
    };
    Ok(ProcessSpec {
        argv: argv(config, image)?,
        env: environment(inputs, user),
        cwd: Path::new("/").join(cwd),
        uid: user.uid,
        gid: user.gid,
        groups: user.groups.clone(),
        capabilities,
        no_new_privs: security.no_new_privs,
        seccomp,
        apparmor: apparmor(&security.apparmor)?,
        tty: config.tty,
        oom_score_adj: config.resources.oom_score_adj,
    })
}

/// Kubernetes' table of command and args against `ENTRYPOINT` and `CMD`.
fn argv(config: &ContainerConfig, image: &ImageConfig) -> Result<Vec<String>, CriError> {
    let argv: Vec<String> = match (config.command.is_empty(), config.args.is_empty()) {
        (true, true) => image.entrypoint.iter().chain(&image.cmd).cloned().collect(),
        (true, false) => image.entrypoint.iter().chain(&config.args).cloned().collect(),
        (false, _) => config.command.iter().chain(&config.args).cloned().collect(),
    };
    if argv.is_empty() {
        return Err(CriError::Start(
            "no command specified: neither the container nor its image names one".into(),
        ));
    }
    Ok(argv)
}

/// The image's variables, then the container's; a later one replaces an earlier one in its place.
fn environment(inputs: &Inputs<'_>, user: &User) -> Vec<String> {
    let mut env: Vec<String> = Vec::new();
    let mut set = |entry: String| {
        let name = entry.split_once('=').map_or(entry.as_str(), |(n, _)| n).to_owned();
        match env.iter_mut().find(|e| e.split_once('=').is_some_and(|(n, _)| n == name)) {
            Some(place) => *place = entry,
            None => env.push(entry),
        }
    };
    set(DEFAULT_PATH.into());
    let hostname = &inputs.sandbox.config.hostname;
    if !hostname.is_empty() {
        set(format!("HOSTNAME={hostname}"));
    }
    if inputs.config.tty {
        set("TERM=xterm".into());
    }
    set(format!("HOME={}", user.home));
    inputs.rootfs.config.env.iter().for_each(|e| set(e.clone()));
    inputs.config.envs.iter().for_each(|(name, value)| set(format!("{name}={value}")));
    env
}

/// Without AppArmor in the kernel the default means nothing; a profile that someone named must not be dropped.
fn apparmor(profile: &SecurityProfile) -> Result<Option<String>, CriError> {
    let SecurityProfile::Localhost(name) = profile else { return Ok(None) };
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    if !enabled.is_ok_and(|text| text.starts_with('Y')) {
        return Err(CriError::Start(format!(
            "AppArmor profile {name:?}: AppArmor is not enabled on this node; remove appArmorProfile"
        )));
    }
    Ok(Some(name.clone()))
}

/// Files that the runtime writes for the sandbox, for those paths that the kubelet does not mount itself.
fn sandbox_files(inputs: &Inputs<'_>) -> Vec<Mount> {
    let directory = inputs.state.sandbox(&inputs.sandbox.id);
    ["hosts", "hostname", "resolv.conf"]
        .into_iter()
        .map(|name| (directory.join(name), Path::new("/etc").join(name)))
        .filter(|(file, target)| {
            file.exists() && !inputs.config.mounts.iter().any(|m| m.container_path == *target)
        })
        .map(|(host_path, container_path)| Mount {
            container_path,
            host_path,
            readonly: inputs.config.security.readonly_rootfs,
            recursive_readonly: false,
            propagation: MountPropagation::Private,
        })
        .collect()
}

fn check_mount(mount: &Mount) -> Result<(), CriError> {
    let at = mount.container_path.display();
    if !mount.container_path.is_absolute() {
        return Err(CriError::Invalid(format!("mount path {at} is not absolute")));
    }
    if mount.recursive_readonly && !mount.readonly {
        return Err(CriError::Invalid(format!("mount {at}: recursive read-only needs a read-only mount")));
    }
    if mount.propagation == MountPropagation::Bidirectional && !is_shared(&mount.host_path) {
        return Err(CriError::Start(format!(
            "path {} is not on a shared mount, which mountPropagation: Bidirectional needs",
            mount.host_path.display()
        )));
    }
    Ok(())
}

/// Whether the mount that a path lies on is shared.
fn is_shared(path: &Path) -> bool {
    let Ok(path) = path.canonicalize() else { return false };
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounts = text.lines().filter_map(|line| {
        let point = line.split(' ').nth(4)?;
        path.starts_with(point).then(|| (point.len(), line.contains(" shared:")))
    });
    // Of mounts on one point the last is on top.
    mounts.max_by_key(|(length, _)| *length).is_some_and(|(_, shared)| shared)
}

/// Nodes for `/dev`, and the devices that may be used.
fn devices(config: &ContainerConfig) -> Result<(Vec<DeviceNode>, AllowedDevices), CriError> {
    let mut nodes = Vec::new();
    for name in ["null", "zero", "full", "random", "urandom", "tty"] {
        let path = Path::new("/dev").join(name);
        let mut node = device(&path, &path)?;
        (node.mode, node.uid, node.gid) = (libc::S_IFCHR | 0o666, 0, 0);
        nodes.push(node);
    }
    let mut rules = vec![DeviceRule::nodes(DeviceKind::Char), DeviceRule::nodes(DeviceKind::Block)];
    // The standard ones, and terminals: tty, console, ptmx and all pseudoterminals.
    rules.extend([3, 5, 7, 8, 9].map(|minor| DeviceRule::char(1, Some(minor))));
    rules.extend([0, 1, 2].map(|minor| DeviceRule::char(5, Some(minor))));
    rules.push(DeviceRule::char(136, None));
    for wanted in &config.devices {
        let node = device(&wanted.host_path, &wanted.container_path)?;
        let is_block = node.mode & libc::S_IFMT == libc::S_IFBLK;
        let access = parse_access(&wanted.permissions).ok_or_else(|| {
            let (path, permissions) = (wanted.host_path.display(), &wanted.permissions);
            CriError::Invalid(format!("device {path}: permissions {permissions:?} are not letters of rwm"))
        })?;
        rules.push(DeviceRule {
            kind: if is_block { DeviceKind::Block } else { DeviceKind::Char },
            major: Some(libc::major(node.rdev)),
            minor: Some(libc::minor(node.rdev)),
            access,
        });
        nodes.push(node);
    }
    if !config.security.privileged {
        return Ok((nodes, AllowedDevices::Only(rules)));
    }
    all_devices(Path::new("/dev"), &mut nodes);
    Ok((nodes, AllowedDevices::All))
}

fn device(host: &Path, container: &Path) -> Result<DeviceNode, CriError> {
    let what = || format!("device {}", host.display());
    let meta = std::fs::metadata(host).map_err(|e| CriError::Start(format!("{}: {e}", what())))?;
    let kind = meta.file_type();
    if !kind.is_char_device() && !kind.is_block_device() {
        return Err(CriError::Start(format!("{} is not a device", what())));
    }
    let (mode, rdev, uid, gid) = (meta.mode(), meta.rdev(), meta.uid(), meta.gid());
    Ok(DeviceNode { path: container.to_owned(), mode, rdev, uid, gid })
}

/// All devices of the node, for privileged containers; terminals and shared memory are the container's own.
fn all_devices(directory: &Path, nodes: &mut Vec<DeviceNode>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.filter_map(Result::ok) {
        let path = entry.path();
        let own = ["/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/console", "/dev/ptmx"];
        let Ok(kind) = entry.file_type() else { continue };
        if own.iter().any(|o| path == Path::new(o)) || nodes.iter().any(|n| n.path == path) {
            continue;
        }
        if kind.is_dir() {
            all_devices(&path, nodes);
        } else if (kind.is_char_device() || kind.is_block_device())
            && let Ok(node) = device(&path, &path)
        {
            nodes.push(node);
        }
    }
}

fn stop_signal(config: &ContainerConfig, image: &ImageConfig) -> Result<i32, CriError> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
        "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    let named = match (config.stop_signal, image.stop_signal.as_deref()) {
        (Some(signal), _) => return Ok(signal),
        (None, None | Some("")) => return Ok(libc::SIGTERM),
        (None, Some(name)) => name,
    };
    let upper = named.to_ascii_uppercase();
    let plain = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |prefix: &str, base: i32, sign: i32| {
        let rest = plain.strip_prefix(prefix)?;
        let number: i32 = if rest.is_empty() { 0 } else { rest[1..].parse().ok()? };
        Some(base + sign * number)
    };
    plain
        .parse()
        .ok()
        .or_else(|| NAMES.iter().position(|n| *n == plain).map(|at| at as i32 + 1))
        .or_else(|| offset("RTMIN", 34, 1))
        .or_else(|| offset("RTMAX", 64, -1))
        .filter(|signal| (1..=64).contains(signal))
        .ok_or_else(|| CriError::Invalid(format!("image has unknown stop signal {named:?}")))
}
