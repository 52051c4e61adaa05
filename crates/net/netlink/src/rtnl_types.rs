//! What rtnetlink lists and sets (`rtnetlink(7)`).

use std::net::IpAddr;

use crate::cidr::Cidr;

/// A network interface as the kernel reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Interface index.
    pub index: u32,
    /// Name, at most 15 bytes.
    pub name: String,
    /// Kind such as `bridge` or `veth`; empty for physical interfaces and loopback.
    pub kind: String,
    /// Link-layer address.
    pub mac: Vec<u8>,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Index of the bridge the interface is a port of.
    pub master: Option<u32>,
    /// `ifi_flags`: `IFF_UP` is 1, `IFF_LOOPBACK` is 8.
    pub flags: u32,
    /// Free text that administrators see.
    pub alias: String,
}

impl Link {
    /// Whether the interface is administratively up.
    pub fn is_up(&self) -> bool {
        self.flags & 1 != 0
    }

    /// Whether this is the loopback interface.
    pub fn is_loopback(&self) -> bool {
        self.flags & 8 != 0
    }
}

/// What to change on an interface; `None` leaves a setting alone.
#[derive(Clone, Debug, Default)]
pub struct LinkSettings {
    /// Administrative state.
    pub up: Option<bool>,
    /// Largest packet in bytes.
    pub mtu: Option<u32>,
    /// Link-layer address.
    pub mac: Option<[u8; 6]>,
    /// Bridge to join by index; 0 leaves it.
    pub master: Option<u32>,
    /// Free text that administrators see.
    pub alias: Option<String>,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Interface index.
    pub link: u32,
    /// Address and prefix length.
    pub cidr: Cidr,
    /// `ifa_scope`: 0 is global, 253 link, 254 host.
    pub scope: u8,
}

/// A unicast route of the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destination prefix; a prefix length of zero is the default route.
    pub destination: Cidr,
    /// Next hop; none for destinations on the link.
    pub gateway: Option<IpAddr>,
    /// Outgoing interface; 0 when unknown.
    pub link: u32,
    /// Preferred source address.
    pub source: Option<IpAddr>,
    /// The gateway is reachable on the link although no prefix of the interface holds it.
    pub onlink: bool,
    /// Priority; smaller wins. 0 is the kernel's default.
    pub metric: u32,
}
