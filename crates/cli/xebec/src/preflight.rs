//! What must be there before a cluster can start, each with its remedy.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

/// Checks privileges and kernel features.
///
/// # Errors
/// The first thing that is missing and what to do about it.
pub fn check() -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "root is needed to make namespaces, mounts and network rules; run it with sudo"
    );
    let filesystems = std::fs::read_to_string("/proc/filesystems").context("read /proc/filesystems")?;
    let has = |name: &str| filesystems.lines().any(|line| line.split_whitespace().last() == Some(name));
    // Asking for it makes the kernel load the module; the list has only what is loaded already.
    if let Err(error) = rustix::mount::fsopen("overlay", rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC) {
        bail!("the kernel lacks overlayfs (CONFIG_OVERLAY_FS): {error}; try `modprobe overlay`");
    }
    ensure!(has("cgroup") || has("cgroup2"), "the kernel lacks control groups (CONFIG_CGROUPS)");
    ensure!(
        std::fs::read_to_string("/proc/mounts").is_ok_and(|mounts| mounts.contains(" cgroup")),
        "no cgroup hierarchy is mounted; mount one with `mount -t cgroup2 none /sys/fs/cgroup`"
    );
    for namespace in ["net", "ipc", "uts", "mnt", "pid"] {
        ensure!(
            Path::new("/proc/self/ns").join(namespace).exists(),
            "the kernel lacks {namespace} namespaces (CONFIG_NAMESPACES)"
        );
    }
    xebec_netlink::Nft::open().context(
        "the kernel lacks nftables (CONFIG_NF_TABLES), or CAP_NET_ADMIN is missing; try `modprobe nf_tables`",
    )?;
    Ok(())
}

/// Takes a port.
///
/// # Errors
/// With the option to change if it is in use.
pub fn listen(address: SocketAddr, option: &str) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => anyhow::anyhow!(
            "port {} is in use on {}; stop what listens there, or choose another with --{option}",
            address.port(),
            address.ip()
        ),
        std::io::ErrorKind::AddrNotAvailable => {
            anyhow::anyhow!("no link of this machine has the address {}; see `ip address`", address.ip())
        }
        _ => anyhow::anyhow!("listen on {address}: {error}"),
    })?;
    listener.set_nonblocking(true).with_context(|| format!("listen on {address}"))?;
    Ok(listener)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_named_with_its_option() {
        let first = listen("127.0.0.1:0".parse().unwrap(), "secure-port").unwrap();
        let error = listen(first.local_addr().unwrap(), "secure-port").unwrap_err().to_string();
        assert!(error.contains("in use") && error.contains("--secure-port"), "{error}");
    }
}
