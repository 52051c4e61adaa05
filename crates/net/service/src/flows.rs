//! Tracked UDP flows that lead to where they no longer should.
//!
//! A flow keeps the endpoint its first packet was given for as long as packets come. TCP ends with its endpoint; a
//! UDP client that keeps sending would talk to a dead one for ever.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
};

use xebec_netlink::{Cidr, Flow};

use crate::{
    model::{Endpoint, Front, FrontKey, Transport},
    tables::{Tables, Touched},
};

/// The UDP fronts that flows are to be held against.
#[derive(Clone, Debug, Default)]
pub struct FlowCheck {
    /// Endpoints that may answer, by front; none for fronts that are gone or reject.
    fronts: BTreeMap<FrontKey, BTreeSet<Endpoint>>,
    /// Prefixes in which every flow must have a front; empty when only some fronts are checked.
    service_cidrs: Vec<Cidr>,
}

impl FlowCheck {
    /// A check of the fronts that changed.
    pub fn of_changed(tables: &Tables, touched: &Touched) -> Self {
        let udp = touched.fronts().filter(|key| key.transport == Transport::Udp);
        let fronts =
            udp.map(|key| (*key, tables.front(key).map(|front| answering(front)).unwrap_or_default()));
        Self { fronts: fronts.collect(), service_cidrs: Vec::new() }
    }

    /// A check of all fronts, for a proxy that does not know what changed before it started.
    pub fn of_all(tables: &Tables, service_cidrs: &[Cidr]) -> Self {
        let udp = tables.fronts().filter(|(key, _)| key.transport == Transport::Udp);
        let fronts = udp.map(|(key, front)| (*key, answering(front)));
        Self { fronts: fronts.collect(), service_cidrs: service_cidrs.to_vec() }
    }

    /// Whether there is nothing to check.
    pub fn is_empty(&self) -> bool {
        self.fronts.is_empty() && self.service_cidrs.is_empty()
    }

    /// Whether a flow should be forgotten. `local` holds the node's addresses.
    pub fn is_stale(&self, flow: &Flow, local: &HashSet<IpAddr>) -> bool {
        let ip = flow.destination.ip();
        let port = flow.destination.port();
        let key = FrontKey { ip, transport: Transport::Udp, port };
        let node_port = FrontKey::node_port(ip.is_ipv4(), Transport::Udp, port);
        let answering = match self.fronts.get(&key) {
            Some(found) => found,
            None if local.contains(&ip) && self.fronts.contains_key(&node_port) => &self.fronts[&node_port],
            None => return self.service_cidrs.iter().any(|cidr| cidr.contains(ip)),
        };
        let answers = Endpoint { ip: flow.reply_source.ip(), port: flow.reply_source.port() };
        !answering.contains(&answers)
    }
}

fn answering(front: &Front) -> BTreeSet<Endpoint> {
    front.endpoints.iter().chain(&front.local).copied().collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn flows_to_endpoints_that_are_gone_are_stale() {
        let front = FrontKey { ip: "10.96.0.10".parse().unwrap(), transport: Transport::Udp, port: 53 };
        let node_port = FrontKey::node_port(true, Transport::Udp, 30053);
        let live = BTreeSet::from([Endpoint { ip: "10.0.0.2".parse().unwrap(), port: 5353 }]);
        let check = FlowCheck {
            fronts: BTreeMap::from([(front, live.clone()), (node_port, live)]),
            service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
        };
        let local = HashSet::from(["192.0.2.1".parse().unwrap()]);
        let stale = |destination: &str, answers: &str| {
            let flow = Flow {
                protocol: 17,
                source: "10.0.0.9:1000".parse().unwrap(),
                destination: destination.parse().unwrap(),
                reply_source: answers.parse().unwrap(),
                reply_destination: "10.0.0.9:1000".parse().unwrap(),
                id: 1,
            };
            check.is_stale(&flow, &local)
        };
        assert!(!stale("10.96.0.10:53", "10.0.0.2:5353"));
        assert!(stale("10.96.0.10:53", "10.0.0.3:5353"), "another endpoint");
        assert!(stale("10.96.0.10:53", "10.96.0.10:53"), "not translated");
        assert!(stale("10.96.0.11:53", "10.0.0.2:5353"), "no such Service");
        assert!(stale("192.0.2.1:30053", "192.0.2.1:30053"), "port of the node, not translated");
        assert!(!stale("192.0.2.1:30053", "10.0.0.2:5353"));
        assert!(!stale("192.0.2.7:30053", "192.0.2.7:30053"), "not this node");
        assert!(!stale("8.8.8.8:53", "8.8.8.8:53"));
    }
}
