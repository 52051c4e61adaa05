//! What Services come down to: fronts that lead to endpoints.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use xebec_hash::fnv32;
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
    /// Tells classes apart whose identifiers would be the same; 0 but for the rarest of accidents.
    pub variant: u32,
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
        variant: 0,
    };

    /// The class as it stands in the kernel's maps: a digest of its chain's name (FNV-1a). Classes in use at the same
    /// time are told apart by `variant` if they have the same.
    pub fn id(&self, ipv4: bool) -> u32 {
        fnv32(self.chain(ipv4).as_bytes())
    }

    /// Reads what [`Class::chain`] wrote.
    pub fn from_chain(name: &str) -> Option<Self> {
        match name {
            "rejected" => return Some(Self::REJECT),
            "dropped" => return Some(Self::DROP),
            _ => {}
        }
        let mut words = name.split('-').peekable();
        let mut class = Self::NONE;
        class.node_port = match words.next()? {
            "addr4" | "addr6" => false,
            "port4" | "port6" => true,
            _ => return None,
        };
        let mut tag = |tag: &str| words.next_if(|word| *word == tag).is_some();
        class.masquerade = tag("masq");
        class.restricted = tag("ranges");
        class.external_local = tag("local");
        class.endpoints = words.next()?.parse().ok()?;
        if class.external_local {
            class.local = words.next()?.parse().ok()?;
        }
        while let Some(word) = words.next() {
            match word {
                "affinity" => class.affinity = words.next()?.parse().ok()?,
                "variant" => class.variant = words.next()?.parse().ok()?,
                _ => return None,
            }
        }
        Some(class)
    }

    /// Name of its chain: says all that the class says.
    pub fn chain(&self, ipv4: bool) -> String {
        if self.reject {
            return "rejected".to_owned();
        }
        if self.drop {
            return "dropped".to_owned();
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
        if self.variant > 0 {
            name.push_str(&format!("-variant-{}", self.variant));
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
    /// Endpoints that a client may stay with, each with a number of its own: a digest of its address and port, so
    /// that it stays the same whichever other endpoints there are (and of two with the same digest the second has the
    /// next free one).
    pub fn sticky(&self) -> Vec<(u32, Endpoint)> {
        let list = if self.class.external_local { &self.local } else { &self.endpoints };
        let mut taken = BTreeSet::new();
        let numbered = list.iter().map(|endpoint| {
            let mut number = fnv32(format!("{} {}", endpoint.ip, endpoint.port).as_bytes());
            while !taken.insert(number) {
                number = number.wrapping_add(1);
            }
            (number, *endpoint)
        });
        numbered.collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const TWINS: [(&str, u16); 2] = [("10.0.50.84", 8050), ("10.0.185.8", 8185)];

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
            Class { external_local: true, node_port: true, affinity: 3, variant: 2, ..plain },
            Class::REJECT,
            Class::DROP,
        ];
        let (mut names, mut ids) = (BTreeSet::new(), BTreeSet::new());
        for class in classes {
            for ipv4 in [true, false] {
                assert_eq!(Class::from_chain(&class.chain(ipv4)), Some(class));
            }
            assert!(names.insert(class.chain(true)), "{class:?}");
            assert!(ids.insert(class.id(true)), "{class:?}");
        }
        assert!(names.contains("addr4-local-3-2"));
        for name in ["", "addr5-1", "addr4-x", "addr4-1-x", "addr4-local-1", "prerouting"] {
            assert_eq!(Class::from_chain(name), None, "{name}");
        }
    }

    #[test]
    fn endpoints_keep_their_numbers() {
        let endpoint = |last: u8| Endpoint { ip: IpAddr::from([10, 0, 0, last]), port: 8080 };
        let all = Front { endpoints: (1..=9).map(endpoint).collect(), ..Front::default() };
        let some = Front { endpoints: [2, 7].map(endpoint).into(), ..Front::default() };
        assert!(some.sticky().iter().all(|sticky| all.sticky().contains(sticky)));
        // These two have the same digest.
        let twin = |ip: &str, port| Endpoint { ip: ip.parse().unwrap(), port };
        let twins = Front { endpoints: TWINS.map(|(ip, port)| twin(ip, port)).into(), ..Front::default() };
        let numbers = twins.sticky();
        assert_eq!(numbers[1].0, numbers[0].0.wrapping_add(1));
    }
}
