//! What the node's network is told.

use std::{fmt, net::IpAddr, path::PathBuf};

use serde::{Deserialize, Serialize};
use xebec_netlink::Cidr;

/// Configuration of a node's pod network.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// Name of the bridge, at most 15 bytes.
    pub bridge: String,
    /// Name of the nftables table (family inet).
    pub table: String,
    /// Prefixes that this node's pods get addresses from (`spec.podCIDRs`): one per family at most.
    pub pod_cidrs: Vec<Cidr>,
    /// Destinations that pods reach with their own address: the pod prefixes of the whole cluster and the nodes.
    pub cluster_cidrs: Vec<Cidr>,
    /// Service prefixes, routed to the bridge so that the node reaches Services without a default route.
    pub service_cidrs: Vec<Cidr>,
    /// Largest packet of pods in bytes; that of the uplink if not given.
    pub mtu: Option<u32>,
    /// File that remembers who has which address.
    pub state_file: PathBuf,
}

impl NetworkConfig {
    /// The usual names with the given prefixes.
    pub fn new(pod_cidrs: Vec<Cidr>, cluster_cidrs: Vec<Cidr>, state_file: PathBuf) -> Self {
        Self {
            bridge: "xbr0".to_owned(),
            table: "xebec-pods".to_owned(),
            pod_cidrs,
            cluster_cidrs,
            service_cidrs: Vec::new(),
            mtu: None,
            state_file,
        }
    }

    /// Gateway of each pod prefix: its first address, held by the bridge, with the prefix length of the prefix.
    pub fn gateways(&self) -> Vec<Cidr> {
        let first = |cidr: &Cidr| Some(Cidr::new(cidr.nth(1)?, cidr.prefix));
        self.pod_cidrs.iter().filter_map(first).collect()
    }
}

/// A transport protocol of a host port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// IP protocol number.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// A port of the node that leads to a pod (`containers[].ports[].hostPort`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPort {
    /// Only on this address of the node; on all of them, loopback excepted, if not given.
    pub host_ip: Option<IpAddr>,
    /// Port of the node.
    pub host_port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port of the pod.
    pub container_port: u16,
}

impl HostPort {
    /// The address, none for "all of them" in either spelling.
    pub fn address(&self) -> Option<IpAddr> {
        self.host_ip.filter(|ip| !ip.is_unspecified())
    }

    /// Whether both cannot be served at once. A port on one address and the same one on all addresses can: the
    /// more specific one wins.
    pub fn conflicts(&self, other: &Self) -> bool {
        self.host_port == other.host_port
            && self.protocol == other.protocol
            && self.address() == other.address()
    }
}
