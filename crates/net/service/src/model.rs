//! What Services come down to: fronts that lead to endpoints.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use xebec_hash::fnv32;
use xebec_netlink::Cidr;

use crate::class::Class;

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
