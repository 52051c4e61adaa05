//! Classes of fronts, and the chains that come and go with them.

use xebec_hash::fnv32;

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

    /// The chains that fronts of this class need, besides those that are always there.
    pub fn chains(&self, ipv4: bool) -> Vec<Chain> {
        if self.reject || self.drop {
            return Vec::new();
        }
        let mut chains = vec![Chain::Class { ipv4, class: *self }];
        if self.affinity > 0 && self.sticky() > 0 {
            let (node_port, seconds) = (self.node_port, self.affinity);
            chains.push(Chain::Known { ipv4, node_port, seconds });
            chains.push(Chain::Fresh { ipv4, node_port, seconds });
        }
        chains
    }

    /// Number of endpoints that clients may stay with.
    pub fn sticky(&self) -> u16 {
        if self.external_local { self.local } else { self.endpoints }
    }

    fn parse(name: &str) -> Option<(bool, Self)> {
        let mut words = name.split('-').peekable();
        let (node_port, ipv4) = parse_kind(words.next()?)?;
        let mut class = Self { node_port, ..Self::NONE };
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
        Some((ipv4, class))
    }

    /// Name of its chain: says all that the class says.
    pub fn chain(&self, ipv4: bool) -> String {
        if self.reject {
            return "rejected".to_owned();
        }
        if self.drop {
            return "dropped".to_owned();
        }
        let mut name = kind(self.node_port, ipv4).to_owned();
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

/// A chain that comes and goes with the Services. No chain of these has a lookup in a map that grows with the number
/// of Services: the kernel walks the whole map for every chain that refers to it (`nf_tables_bind_set`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Chain {
    /// What packets to fronts of a class go through.
    Class {
        /// IPv4 or IPv6.
        ipv4: bool,
        /// The class.
        class: Class,
    },
    /// Leads clients to the endpoint that they stay with; the others come back.
    Known {
        /// IPv4 or IPv6.
        ipv4: bool,
        /// For ports of the node.
        node_port: bool,
        /// How long a client stays after its last connection.
        seconds: u32,
    },
    /// Leads clients to an endpoint that has been picked, with which they are to stay.
    Fresh {
        /// IPv4 or IPv6.
        ipv4: bool,
        /// For ports of the node.
        node_port: bool,
        /// How long a client stays after its last connection.
        seconds: u32,
    },
}

impl Chain {
    /// Its name in the kernel: says all about it.
    pub fn name(&self) -> String {
        match self {
            Self::Class { ipv4, class } => class.chain(*ipv4),
            Self::Known { ipv4, node_port, seconds } => {
                format!("known-{}-{seconds}", kind(*node_port, *ipv4))
            }
            Self::Fresh { ipv4, node_port, seconds } => {
                format!("fresh-{}-{seconds}", kind(*node_port, *ipv4))
            }
        }
    }

    /// Reads what [`Chain::name`] wrote; `None` for the chains that are always there.
    pub fn parse(name: &str) -> Option<Self> {
        let sticky = name.split_once('-').filter(|(first, _)| ["known", "fresh"].contains(first));
        let Some((first, rest)) = sticky else {
            let (ipv4, class) = Class::parse(name)?;
            return Some(Self::Class { ipv4, class });
        };
        let (of, seconds) = rest.split_once('-')?;
        let ((node_port, ipv4), seconds) = (parse_kind(of)?, seconds.parse().ok()?);
        Some(match first {
            "known" => Self::Known { ipv4, node_port, seconds },
            _ => Self::Fresh { ipv4, node_port, seconds },
        })
    }
}

/// Which fronts something is for, as part of names: ports of the node or addresses, and their family.
pub(crate) fn kind(node_port: bool, ipv4: bool) -> &'static str {
    match (node_port, ipv4) {
        (false, true) => "addr4",
        (false, false) => "addr6",
        (true, true) => "port4",
        (true, false) => "port6",
    }
}

fn parse_kind(name: &str) -> Option<(bool, bool)> {
    let all = [(false, true), (false, false), (true, true), (true, false)];
    all.into_iter().find(|(node_port, ipv4)| kind(*node_port, *ipv4) == name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

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
            Class { external_local: true, node_port: true, affinity: 3, variant: 2, ..plain },
            Class::REJECT,
            Class::DROP,
        ];
        let (mut names, mut ids) = (BTreeSet::new(), BTreeSet::new());
        for class in classes {
            for chain in [true, false].iter().flat_map(|ipv4| class.chains(*ipv4)) {
                assert_eq!(Chain::parse(&chain.name()), Some(chain));
            }
            assert!(names.insert(class.chain(true)), "{class:?}");
            assert!(ids.insert(class.id(true)), "{class:?}");
        }
        assert!(names.contains("addr4-local-3-2"));
        for name in [
            "",
            "addr5-1",
            "addr4-x",
            "addr4-1-x",
            "addr4-local-1",
            "prerouting",
            "rejected",
            "known-addr4",
            "to-addr4",
        ] {
            assert_eq!(Chain::parse(name), None, "{name}");
        }
    }
}
