//! The pods' part of the packet filter: masquerading and host ports.

use std::net::IpAddr;

use xebec_netlink::{
    Batch, Cidr,
    cidr::addr_bytes,
    nft::{
        BaseChain, ChainType, CtKey, DataType, Element, Expr, Family, FibSource, Hook, MetaKey, PayloadBase,
        Reg, Set, Table, Verdict,
    },
};

use crate::{
    config::{HostPort, NetworkConfig},
    state::{PodRecord, State},
};

/// After the Services' chains (-100), which may claim a port of the node first.
const PRIORITY_DNAT: i32 = -99;
const PRIORITY_SNAT: i32 = 100;
const STATUS_DNAT: u32 = 0x20;
const LOCAL: u32 = 2;

const KEY4: &[DataType] = &[DataType::Ipv4, DataType::Protocol, DataType::Port];
const KEY6: &[DataType] = &[DataType::Ipv6, DataType::Protocol, DataType::Port];
const TARGET4: &[DataType] = &[DataType::Ipv4, DataType::Port];
const TARGET6: &[DataType] = &[DataType::Ipv6, DataType::Port];
const PAIR4: &[DataType] = &[DataType::Ipv4, DataType::Ipv4];
const PAIR6: &[DataType] = &[DataType::Ipv6, DataType::Ipv6];

/// Offsets and lengths of the addresses of an IP header, and the names of the family's maps.
struct Layout {
    ipv4: bool,
    source: u32,
    destination: u32,
    len: u32,
    words: usize,
    host_ports: &'static str,
    hairpin: &'static str,
}

const LAYOUTS: [Layout; 2] = [
    Layout {
        ipv4: true,
        source: 12,
        destination: 16,
        len: 4,
        words: 1,
        host_ports: "hostports4",
        hairpin: "hairpin4",
    },
    Layout {
        ipv4: false,
        source: 8,
        destination: 24,
        len: 16,
        words: 4,
        host_ports: "hostports6",
        hairpin: "hairpin6",
    },
];

pub(crate) fn table(config: &NetworkConfig) -> Table {
    Table { family: Family::Inet, name: config.table.clone() }
}

/// Replaces the table by one for `state`, as one transaction: there is no moment without rules, and connections
/// keep the translation they have.
pub(crate) fn rebuild(config: &NetworkConfig, state: &State) -> Batch {
    let table = table(config);
    let mut batch = Batch::new();
    batch.add_table(&table, None);
    batch.delete_table(&table);
    batch.add_table(&table, Some("pod network: masquerade and host ports"));
    batch.add_set(&table, &Set::map("hostports4", KEY4, TARGET4));
    batch.add_set(&table, &Set::map("hostports6", KEY6, TARGET6));
    batch.add_set(&table, &Set::of("hairpin4", PAIR4));
    batch.add_set(&table, &Set::of("hairpin6", PAIR6));
    batch.add_chain(&table, "hostports", None);
    for (name, hook) in [("prerouting", Hook::Prerouting), ("output", Hook::Output)] {
        let base = BaseChain { kind: ChainType::Nat, hook, priority: PRIORITY_DNAT };
        batch.add_chain(&table, name, Some(base));
        batch.add_rule(&table, name, &[Expr::Verdict(Verdict::Jump("hostports".to_owned()))]);
    }
    let base = BaseChain { kind: ChainType::Nat, hook: Hook::Postrouting, priority: PRIORITY_SNAT };
    batch.add_chain(&table, "postrouting", Some(base));
    for layout in &LAYOUTS {
        add_host_port_rules(&mut batch, &table, layout);
        add_hairpin_rule(&mut batch, &table, layout);
        add_masquerade_rules(&mut batch, &table, layout, config);
    }
    for pod in state.pods.values() {
        add_pod(&mut batch, &table, pod);
    }
    batch
}

/// Adds a pod's elements; elements that are there already are no error.
pub(crate) fn add_pod(batch: &mut Batch, table: &Table, pod: &PodRecord) {
    for layout in &LAYOUTS {
        let (ports, pairs) = elements(layout, pod);
        batch.add_elements(table, layout.host_ports, ports);
        batch.add_elements(table, layout.hairpin, pairs);
    }
}

/// Deletes a pod's elements, which must be there: adding them first makes sure.
pub(crate) fn delete_pod(batch: &mut Batch, table: &Table, pod: &PodRecord) {
    add_pod(batch, table, pod);
    for layout in &LAYOUTS {
        let (ports, pairs) = elements(layout, pod);
        batch.delete_elements(table, layout.host_ports, ports);
        batch.delete_elements(table, layout.hairpin, pairs);
    }
}

fn elements(layout: &Layout, pod: &PodRecord) -> (Vec<Element>, Vec<Element>) {
    let Some(ip) = pod.ips.iter().copied().find(|ip| ip.is_ipv4() == layout.ipv4) else {
        return (Vec::new(), Vec::new());
    };
    let serves = |port: &&HostPort| port.address().is_none_or(|host| host.is_ipv4() == layout.ipv4);
    let ports: Vec<Element> = pod
        .host_ports
        .iter()
        .filter(serves)
        .map(|port| {
            let any = if layout.ipv4 { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
            let mut key = addr_bytes(port.address().unwrap_or(any));
            key.extend_from_slice(&[port.protocol.number(), 0, 0, 0]);
            key.extend_from_slice(&padded(port.host_port));
            let mut target = addr_bytes(ip);
            target.extend_from_slice(&padded(port.container_port));
            Element::pair(key, target)
        })
        .collect();
    let pairs =
        if ports.is_empty() { vec![] } else { vec![Element::key([addr_bytes(ip), addr_bytes(ip)].concat())] };
    (ports, pairs)
}

fn padded(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

fn family_is(layout: &Layout) -> [Expr; 2] {
    let number = if layout.ipv4 { 2 } else { 10 };
    [Expr::Meta(MetaKey::Family, Reg(0)), Expr::equals(Reg(0), [number])]
}

/// A port of one address of the node, then a port of any of its addresses but loopback ones.
fn add_host_port_rules(batch: &mut Batch, table: &Table, layout: &Layout) {
    let destination =
        Expr::Payload { base: PayloadBase::Network, offset: layout.destination, len: layout.len, to: Reg(0) };
    let port = |at: usize| {
        [
            Expr::Meta(MetaKey::Transport, Reg(0).plus(at)),
            Expr::Payload { base: PayloadBase::Transport, offset: 2, len: 2, to: Reg(0).plus(at + 1) },
            Expr::MapValue { set: layout.host_ports.to_owned(), key: Reg(0), to: Reg(8) },
            Expr::Dnat { ipv4: layout.ipv4, addr: Reg(8), port: Some(Reg(8).plus(layout.words)) },
        ]
    };
    let mut exact = family_is(layout).to_vec();
    exact.push(destination.clone());
    exact.extend(port(layout.words));
    batch.add_rule(table, "hostports", &exact);

    let mut any = family_is(layout).to_vec();
    any.push(Expr::AddressType(FibSource::Destination, Reg(0)));
    any.push(Expr::equals(Reg(0), LOCAL.to_ne_bytes()));
    any.push(destination);
    if layout.ipv4 {
        any.push(Expr::Bitwise { from: Reg(0), to: Reg(0), mask: vec![255, 0, 0, 0], xor: vec![0; 4] });
        any.push(Expr::differs(Reg(0), [127, 0, 0, 0]));
    } else {
        any.push(Expr::differs(Reg(0), addr_bytes(IpAddr::from(std::net::Ipv6Addr::LOCALHOST))));
    }
    any.push(Expr::Load(Reg(0), vec![0; layout.words * 4]));
    any.extend(port(layout.words));
    batch.add_rule(table, "hostports", &any);
}

/// A pod that reaches itself through a port of the node would answer itself directly: give it another source.
fn add_hairpin_rule(batch: &mut Batch, table: &Table, layout: &Layout) {
    let load = |offset, to| Expr::Payload { base: PayloadBase::Network, offset, len: layout.len, to };
    let mut rule = vec![
        Expr::Ct(CtKey::Status, Reg(0)),
        Expr::Bitwise { from: Reg(0), to: Reg(0), mask: STATUS_DNAT.to_ne_bytes().to_vec(), xor: vec![0; 4] },
        Expr::differs(Reg(0), [0; 4]),
    ];
    rule.extend(family_is(layout));
    rule.push(load(layout.source, Reg(0)));
    rule.push(load(layout.destination, Reg(0).plus(layout.words)));
    rule.push(Expr::InSet { set: layout.hairpin.to_owned(), key: Reg(0), not: false });
    rule.push(Expr::Masquerade);
    batch.add_rule(table, "postrouting", &rule);
}

fn add_masquerade_rules(batch: &mut Batch, table: &Table, layout: &Layout, config: &NetworkConfig) {
    for source in config.pod_cidrs.iter().filter(|cidr| cidr.is_ipv4() == layout.ipv4) {
        let mut rule = family_is(layout).to_vec();
        rule.extend(prefix(layout.source, layout, source, false));
        let multicast = if layout.ipv4 { "224.0.0.0/4" } else { "ff00::/8" };
        let multicast: Cidr = multicast.parse().expect("invariant: a valid prefix");
        let kept = config.cluster_cidrs.iter().chain(&config.pod_cidrs).chain([&multicast]);
        for destination in kept.filter(|cidr| cidr.is_ipv4() == layout.ipv4) {
            rule.extend(prefix(layout.destination, layout, destination, true));
        }
        rule.push(Expr::Masquerade);
        batch.add_rule(table, "postrouting", &rule);
    }
}

fn prefix(offset: u32, layout: &Layout, cidr: &Cidr, not: bool) -> [Expr; 3] {
    let mask = cidr.mask_bytes();
    let xor = vec![0; mask.len()];
    [
        Expr::Payload { base: PayloadBase::Network, offset, len: layout.len, to: Reg(0) },
        Expr::Bitwise { from: Reg(0), to: Reg(0), mask, xor },
        Expr::Cmp { reg: Reg(0), not, bytes: addr_bytes(cidr.network().addr) },
    ]
}
