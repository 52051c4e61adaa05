//! Who has which address, on disk.

use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, File},
    io::{self, Write},
    net::IpAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use xebec_netlink::Cidr;

use crate::{
    config::HostPort,
    ipam::{IpamError, Pool},
};

/// Why the allocations could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A system call failed.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The file is not what we wrote.
    #[error("{} is damaged: {source}; with no pod running it can be removed", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        #[source]
        source: serde_json::Error,
    },
}

/// One pod's place in the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRecord {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// Path of its network namespace.
    pub netns: PathBuf,
    /// Its addresses, in the order of the node's prefixes.
    pub ips: Vec<IpAddr>,
    /// Name of the node's end of its link.
    pub host_interface: String,
    /// Ports of the node that lead to it.
    #[serde(default)]
    pub host_ports: Vec<HostPort>,
}

/// All allocations of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Offset of the last address given, by prefix.
    #[serde(default)]
    pub cursors: BTreeMap<String, u64>,
    /// Pods by sandbox id.
    #[serde(default)]
    pub pods: BTreeMap<String, PodRecord>,
}

impl State {
    /// Reads the allocations; a missing file holds none.
    pub fn load(path: &Path) -> Result<Self, StateError> {
        match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|source| StateError::Damaged { path: path.to_owned(), source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(StateError::Io { operation: "read", path: path.to_owned(), source }),
        }
    }

    /// Writes the allocations so that a crash at any moment leaves the old or the new file.
    pub fn save(&self, path: &Path) -> Result<(), StateError> {
        let bytes = serde_json::to_vec(self)
            .map_err(|source| StateError::Damaged { path: path.to_owned(), source })?;
        let failed = |source| StateError::Io { operation: "write", path: path.to_owned(), source };
        let parent = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(parent).map_err(failed)?;
        let temporary = path.with_extension("new");
        let mut file = File::create(&temporary).map_err(failed)?;
        file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(failed)?;
        fs::rename(&temporary, path).map_err(failed)?;
        File::open(parent).and_then(|dir| dir.sync_all()).map_err(failed)
    }

    /// Gives `sandbox` one address of each prefix; one that has some already keeps them.
    pub fn allocate(
        &mut self,
        sandbox: &str,
        cidrs: &[Cidr],
        record: impl FnOnce(Vec<IpAddr>) -> PodRecord,
    ) -> Result<PodRecord, IpamError> {
        if let Some(found) = self.pods.get(sandbox) {
            return Ok(found.clone());
        }
        let used: HashSet<IpAddr> = self.pods.values().flat_map(|pod| pod.ips.iter().copied()).collect();
        let mut ips = Vec::with_capacity(cidrs.len());
        let mut cursors = Vec::with_capacity(cidrs.len());
        for cidr in cidrs {
            let key = cidr.network().to_string();
            let cursor = self.cursors.get(&key).copied().unwrap_or(0);
            let (ip, cursor) = Pool::new(*cidr).pick(&used, u128::from(cursor))?;
            ips.push(ip);
            cursors.push((key, u64::try_from(cursor).unwrap_or(0)));
        }
        let made = record(ips);
        self.check_host_ports(&made)?;
        self.cursors.extend(cursors);
        self.pods.insert(sandbox.to_owned(), made.clone());
        Ok(made)
    }

    /// Releases what `sandbox` has.
    pub fn release(&mut self, sandbox: &str) -> Option<PodRecord> {
        self.pods.remove(sandbox)
    }

    fn check_host_ports(&self, record: &PodRecord) -> Result<(), IpamError> {
        for (sandbox, other) in &self.pods {
            let taken = |port: &&HostPort| other.host_ports.iter().any(|theirs| theirs.conflicts(port));
            if let Some(port) = record.host_ports.iter().find(taken) {
                return Err(IpamError::HostPortTaken {
                    port: port.host_port,
                    protocol: port.protocol,
                    sandbox: sandbox.clone(),
                });
            }
        }
        Ok(())
    }
}

/// Name of the node's end of a sandbox's link: `xbe` and 12 hexadecimal digits of the id's FNV-1a hash, the 15 bytes
/// that Linux allows.
pub(crate) fn host_interface(sandbox: &str) -> String {
    format!("xbe{:012x}", xebec_hash::fnv64(sandbox.as_bytes()) >> 16)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Protocol;

    fn record(ips: Vec<IpAddr>, host_ports: Vec<HostPort>) -> PodRecord {
        PodRecord {
            namespace: "ns".into(),
            name: "pod".into(),
            netns: "/run/x".into(),
            ips,
            host_interface: "xbe0".into(),
            host_ports,
        }
    }

    #[test]
    fn allocation_is_idempotent_and_dual_stack() {
        let cidrs = ["10.0.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()];
        let mut state = State::default();
        let first = state.allocate("a", &cidrs, |ips| record(ips, vec![])).unwrap();
        assert_eq!(first.ips, ["10.0.0.2".parse::<IpAddr>().unwrap(), "fd00::2".parse().unwrap()]);
        assert_eq!(state.allocate("a", &cidrs, |ips| record(ips, vec![])).unwrap(), first);
        state.release("a");
        let second = state.allocate("b", &cidrs, |ips| record(ips, vec![])).unwrap();
        assert_eq!(second.ips[0].to_string(), "10.0.0.3");
    }

    #[test]
    fn host_ports_are_keyed_by_address_protocol_and_port() {
        let port = |host_ip: Option<&str>, protocol| HostPort {
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
            host_port: 80,
            protocol,
            container_port: 8080,
        };
        let cidrs = ["10.0.0.0/24".parse().unwrap()];
        let mut state = State::default();
        let mut add = |id: &str, port| state.allocate(id, &cidrs, |ips| record(ips, vec![port]));
        add("a", port(None, Protocol::Tcp)).unwrap();
        add("b", port(None, Protocol::Udp)).unwrap();
        add("c", port(Some("192.0.2.1"), Protocol::Tcp)).unwrap();
        let error = add("d", port(Some("0.0.0.0"), Protocol::Tcp)).unwrap_err();
        assert_eq!(error.to_string(), "hostPort 80/TCP is already used by sandbox a");
        assert!(!state.pods.contains_key("d"));
    }

    #[test]
    fn saved_state_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/state.json");
        assert_eq!(State::load(&path).unwrap(), State::default());
        let mut state = State::default();
        state.allocate("a", &["10.0.0.0/24".parse().unwrap()], |ips| record(ips, vec![])).unwrap();
        state.save(&path).unwrap();
        assert_eq!(State::load(&path).unwrap(), state);
        fs::write(&path, "{").unwrap();
        assert!(State::load(&path).unwrap_err().to_string().contains("is damaged"));
    }

    #[test]
    fn interface_names_fit() {
        assert_eq!(host_interface("0123456789abcdef").len(), 15);
        assert_ne!(host_interface("a"), host_interface("b"));
    }
}
