//! What Services come down to: fronts that lead to endpoints.

use std::{fmt, net::IpAddr};

use xebec_netlink::Cidr;

/// A transport protocol that Services know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Transport {
    /// The API's name; absent means TCP.
    pub fn parse(name: Option<&str>) -> Option<Self> {
        match name {
            None | Some("" | "TCP") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some("SCTP") => Some(Self::Sctp),
            Some(_) => None,
        }
    }

    /// IP protocol number.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

/// Where a Service is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrontKey {
    /// The address; the unspecified one of its family stands for every address of the node.
    pub ip: IpAddr,
    /// Transport protocol.
    pub transport: Transport,
    /// Port.
    pub port: u16,
}

impl FrontKey {
    /// A port of every address of the node.
    pub fn node_port(ipv4: bool, transport: Transport, port: u16) -> Self {
        let ip = if ipv4 { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        Self { ip, transport, port }
    }

    /// Whether this stands for every address of the node.
    pub fn is_node_port(&self) -> bool {
        self.ip.is_unspecified()
    }
}

impl fmt::Display for FrontKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{:?}", self.ip, self.port, self.transport)
    }
}

/// Where an endpoint listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Its address.
    pub ip: IpAddr,
    /// Its port.
    pub port: u16,
}

/// What the chain of a front does. Fronts of one class share one chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class {
    /// The front is a port of every address of the node.
    pub node_port: bool,
    /// Answer that nobody listens.
    pub reject: bool,
    /// Drop.
    pub drop: bool,
    /// Give packets an address of this node, so that answers of other nodes' endpoints come back here.
    pub masquerade: bool,
    /// Only listed sources may pass (`loadBalancerSourceRanges`).
    pub restricted: bool,
    /// Clients from outside reach local endpoints only (`externalTrafficPolicy: Local`).
    pub external_local: bool,
    /// Number of endpoints.
    pub endpoints: u16,
    /// Number of local endpoints, where the policy tells them apart.
    pub local: u16,
    /// Seconds that a client keeps its endpoint; 0 without session affinity.
    pub affinity: u32,
}

impl Class {
    /// Answers that nobody listens.
    pub const REJECT: Self = Self { reject: true, ..Self::NONE };
    /// Drops.
    pub const DROP: Self = Self { drop: true, ..Self::NONE };
    const NONE: Self = Self {
        node_port: false,
        reject: false,
        drop: false,
        masquerade: false,
        restricted: false,
        external_local: false,
        endpoints: 0,
        local: 0,
        affinity: 0,
    };

    /// The class as it stands in the kernel's maps: three numbers in host order.
    pub fn to_bytes(self) -> Vec<u8> {
        let flags =
            [self.node_port, self.reject, self.drop, self.masquerade, self.restricted, self.external_local];
        let flags = flags.iter().enumerate().fold(0u32, |all, (bit, set)| all | u32::from(*set) << bit);
        let counts = u32::from(self.endpoints) << 16 | u32::from(self.local);
        [flags, counts, self.affinity].iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    /// Reads what [`Class::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let (flags, counts, affinity) = (word(0)?, word(4)?, word(8)?);
        let flag = |bit: u32| flags & (1 << bit) != 0;
        Some(Self {
            node_port: flag(0),
            reject: flag(1),
            drop: flag(2),
            masquerade: flag(3),
            restricted: flag(4),
            external_local: flag(5),
            endpoints: u16::try_from(counts >> 16).ok()?,
            local: u16::try_from(counts & 0xffff).ok()?,
            affinity,
        })
    }

    /// Name of its chain: says all that the class says.
    pub fn chain(&self, ipv4: bool) -> String {
        if self.reject {
            return "reject".to_owned();
        }
        if self.drop {
            return "drop".to_owned();
        }
        let mut name =
            format!("{}{}", if self.node_port { "port" } else { "addr" }, if ipv4 { 4 } else { 6 });
        for (set, tag) in
            [(self.masquerade, "-masq"), (self.restricted, "-ranges"), (self.external_local, "-local")]
        {
            if set {
                name.push_str(tag);
            }
        }
        name.push_str(&format!("-{}", self.endpoints));
        if self.external_local {
            name.push_str(&format!("-{}", self.local));
        }
        if self.affinity > 0 {
            name.push_str(&format!("-affinity-{}", self.affinity));
        }
        name
    }
}

/// One front with its endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Front {
    /// What its chain does.
    pub class: Class,
    /// Endpoints, sorted.
    pub endpoints: Vec<Endpoint>,
    /// Local endpoints, sorted, where the policy tells them apart.
    pub local: Vec<Endpoint>,
    /// Addresses of pods of this node among the endpoints: they may reach themselves through the front.
    pub hairpin: Vec<IpAddr>,
    /// Sources that may pass, when restricted.
    pub allowed: Vec<Cidr>,
}

impl Front {
    /// Endpoints that a client may stay with.
    pub fn sticky(&self) -> &[Endpoint] {
        if self.class.external_local { &self.local } else { &self.endpoints }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn classes_read_back_and_have_distinct_chains() {
        let plain = Class { endpoints: 3, ..Class::default() };
        let classes = [
            plain,
            Class { node_port: true, ..plain },
            Class { masquerade: true, ..plain },
            Class { restricted: true, ..plain },
            Class { external_local: true, local: 2, ..plain },
            Class { affinity: 10800, ..plain },
            Class::REJECT,
            Class::DROP,
        ];
        let mut names = std::collections::BTreeSet::new();
        for class in classes {
            assert_eq!(Class::from_bytes(&class.to_bytes()), Some(class));
            assert!(names.insert(class.chain(true)), "{class:?}");
        }
        assert!(names.contains("addr4-local-3-2"));
    }
}
