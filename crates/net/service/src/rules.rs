//! The chains: a skeleton that never changes, and one chain per class.
//!
//! Registers hold, side by side, so that every map's key is a run of them: destination address (zero for a port of
//! the node), protocol, port, then a number or the source address. An endpoint takes the place of the front that led
//! to it.
//!
//! Every rule is one that the `nft` tool could have written, and that it can show: its decoder aborts (1.0.6,
//! `netlink_parse_concat_expr`) where a value that came out of a map is the key of another lookup. Numbers on their
//! way from one map to the next therefore pass through the packet's priority, which nothing has a use for between
//! these hooks and is zero again when the packet leaves them.

use std::{net::Ipv6Addr, time::Duration};

use xebec_netlink::{
    Batch, Cidr,
    cidr::addr_bytes,
    nft::{
        BaseChain, ChainType, CtKey, DataType, Expr, Family, FibSource, Hook, MetaKey, PayloadBase, Reg, Set,
        Table, Verdict,
    },
};

use crate::{
    class::{Chain, Class, kind},
    elements::{LOCAL_OFFSET, SetId},
};

/// Changes with every change of what this module writes: a table with another number is replaced.
const VERSION: u32 = 4;
/// Clients that stay with an endpoint, at most.
const MOST_CLIENTS: u32 = 1 << 20;
const PRIORITY_DNAT: i32 = -100;
const PRIORITY_SNAT: i32 = 100;
const TCP: u8 = 6;
const UDP: u8 = 17;
const STATE_INVALID: u32 = 1;
const STATUS_DNAT: u32 = 0x20;
const TYPE_LOCAL: u32 = 2;

/// What the rules depend on besides the Services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleConfig {
    /// Name of the table (family inet).
    pub table: String,
    /// Packet mark bit between the choice of an endpoint and masquerading.
    pub mark: u32,
    /// Prefixes of pods: clients in the cluster, to whom external policies do not apply.
    pub pod_cidrs: Vec<Cidr>,
    /// Prefixes of Services: packets to addresses that no Service has are dropped.
    pub service_cidrs: Vec<Cidr>,
}

impl RuleConfig {
    /// The table.
    pub fn table(&self) -> Table {
        Table { family: Family::Inet, name: self.table.clone() }
    }

    /// Says which rules the table holds; stored as its comment.
    pub fn fingerprint(&self) -> String {
        let text = format!("{VERSION} {:x} {:?} {:?}", self.mark, self.pod_cidrs, self.service_cidrs);
        let hash = xebec_hash::fnv64(text.as_bytes());
        format!("services, rules {VERSION}-{hash:016x}")
    }
}

/// One family's offsets and registers.
#[derive(Clone, Copy)]
struct Layout {
    ipv4: bool,
    /// Registers of an address.
    words: usize,
    source_offset: u32,
    destination_offset: u32,
}

const LAYOUTS: [Layout; 2] = [
    Layout { ipv4: true, words: 1, source_offset: 12, destination_offset: 16 },
    Layout { ipv4: false, words: 4, source_offset: 8, destination_offset: 24 },
];

impl Layout {
    fn of(ipv4: bool) -> Self {
        LAYOUTS[usize::from(!ipv4)]
    }

    fn len(self) -> u32 {
        if self.ipv4 { 4 } else { 16 }
    }

    fn front(self) -> Reg {
        Reg(0)
    }

    /// First register after the front: a number, or the source address.
    fn number(self) -> Reg {
        self.front().plus(self.words + 2)
    }

    /// First register after front and source: the number that a client's endpoint has.
    fn remembered(self) -> Reg {
        self.number().plus(self.words)
    }

    fn load_source(self, to: Reg) -> Expr {
        Expr::Payload { base: PayloadBase::Network, offset: self.source_offset, len: self.len(), to }
    }

    fn load_destination(self, to: Reg) -> Expr {
        Expr::Payload { base: PayloadBase::Network, offset: self.destination_offset, len: self.len(), to }
    }

    fn load_front(self, node_port: bool) -> Vec<Expr> {
        let (address, after) = (self.front(), self.front().plus(self.words));
        let mut exprs = vec![self.load_destination(address)];
        if node_port {
            // A constant would do, but there is no way to write that for the `nft` tool.
            let zero = vec![0; self.words * 4];
            exprs.push(Expr::Bitwise { from: address, to: address, mask: zero.clone(), xor: zero });
        }
        exprs.push(Expr::Meta(MetaKey::Transport, after));
        exprs.push(Expr::Payload { base: PayloadBase::Transport, offset: 2, len: 2, to: after.plus(1) });
        exprs
    }

    /// Front and source: the key of a client that stays with its endpoint, or that may be kept out.
    fn load_client(self, node_port: bool) -> Vec<Expr> {
        let mut exprs = self.load_front(node_port);
        exprs.push(self.load_source(self.number()));
        exprs
    }

    fn is_family(self) -> [Expr; 2] {
        let number = if self.ipv4 { 2 } else { 10 };
        [Expr::Meta(MetaKey::Family, Reg(0)), Expr::equals(Reg(0), [number])]
    }

    /// Address and port, in network order, of nobody on this node: UDP's discard service.
    fn refusal(self) -> (Vec<u8>, Vec<u8>) {
        const DISCARD: u16 = 9;
        let addr = if self.ipv4 { vec![127, 254, 254, 254] } else { Ipv6Addr::LOCALHOST.octets().to_vec() };
        (addr, DISCARD.to_be_bytes().to_vec())
    }

    fn map(self, id: SetId, key: Reg, to: Reg) -> Expr {
        Expr::MapValue { set: id.name(self.ipv4), key, to }
    }

    /// Translates to the endpoint that `map` has for the front and number in registers.
    fn dnat(self, map: SetId) -> [Expr; 2] {
        let addr = self.front();
        [
            self.map(map, self.front(), addr),
            Expr::Dnat { ipv4: self.ipv4, addr, port: Some(addr.plus(self.words)) },
        ]
    }

    fn affinity_map(self) -> String {
        format!("aff{}", if self.ipv4 { 4 } else { 6 })
    }

    fn inside(self, cidr: &Cidr, destination: bool) -> [Expr; 3] {
        let load = if destination { self.load_destination(Reg(0)) } else { self.load_source(Reg(0)) };
        let mask = cidr.mask_bytes();
        let xor = vec![0; mask.len()];
        [
            load,
            Expr::Bitwise { from: Reg(0), to: Reg(0), mask, xor },
            Expr::equals(Reg(0), addr_bytes(cidr.network().addr)),
        ]
    }
}

/// Adds the table with its sets and chains, without elements.
pub(crate) fn add_skeleton(batch: &mut Batch, config: &RuleConfig) {
    let table = config.table();
    batch.add_table(&table, Some(&config.fingerprint()));
    for layout in LAYOUTS {
        for set in sets(layout) {
            batch.add_set(&table, &set);
        }
    }
    for chain in ["rejected", "dropped", "services"] {
        batch.add_chain(&table, chain, None);
    }
    for rule in reject_rules() {
        batch.add_rule(&table, "rejected", &rule);
    }
    batch.add_rule(&table, "dropped", &[Expr::Verdict(Verdict::Drop)]);
    for layout in LAYOUTS {
        for rule in service_rules(layout, config) {
            batch.add_rule(&table, "services", &rule);
        }
    }
    for (layout, node_port) in LAYOUTS.iter().flat_map(|layout| [(*layout, false), (*layout, true)]) {
        let name = balancing(node_port, layout.ipv4);
        batch.add_chain(&table, &name, None);
        batch.add_rule(&table, &name, &balancing_rule(layout, node_port));
    }
    for (name, hook) in [("prerouting", Hook::Prerouting), ("output", Hook::Output)] {
        batch.add_chain(
            &table,
            name,
            Some(BaseChain { kind: ChainType::Nat, hook, priority: PRIORITY_DNAT }),
        );
        batch.add_rule(&table, name, &[Expr::Verdict(Verdict::Jump("services".to_owned()))]);
    }
    let base = BaseChain { kind: ChainType::Nat, hook: Hook::Postrouting, priority: PRIORITY_SNAT };
    batch.add_chain(&table, "postrouting", Some(base));
    for rule in masquerade_rules(config.mark) {
        batch.add_rule(&table, "postrouting", &rule);
    }
    let base = BaseChain { kind: ChainType::Filter, hook: Hook::Input, priority: 0 };
    batch.add_chain(&table, "input", Some(base));
    for layout in LAYOUTS {
        batch.add_rule(&table, "input", &refusal_rule(layout));
    }
    // A late packet that connection tracking does not know is not translated: its receiver would answer a stranger
    // with a reset, which kills the connection it belonged to.
    let base = BaseChain { kind: ChainType::Filter, hook: Hook::Forward, priority: 0 };
    batch.add_chain(&table, "forward", Some(base));
    let mut invalid = bits_set(Expr::Ct(CtKey::State, Reg(0)), STATE_INVALID).to_vec();
    invalid.push(Expr::Verdict(Verdict::Drop));
    batch.add_rule(&table, "forward", &invalid);
}

fn sets(layout: Layout) -> Vec<Set> {
    use DataType::{ClassId, Ipv4, Ipv6, Port, Protocol};
    let name = |id: SetId| id.name(layout.ipv4);
    macro_rules! of_family {
        ($ip:ident) => {
            vec![
                Set::verdicts(name(SetId::Class), &[ClassId]),
                Set::map(name(SetId::Services), &[$ip, Protocol, Port], &[ClassId]),
                Set::map(name(SetId::Endpoints), &[$ip, Protocol, Port, ClassId], &[$ip, Port]),
                Set::map(name(SetId::Choices), &[$ip, Protocol, Port, ClassId], &[ClassId]),
                Set::map(name(SetId::Live), &[$ip, Protocol, Port, ClassId], &[$ip, Port]),
                Set::map(layout.affinity_map(), &[$ip, Protocol, Port, $ip], &[ClassId])
                    .expiring(MOST_CLIENTS),
                Set::intervals(name(SetId::Allowed), &[$ip, Protocol, Port, $ip]),
                Set::of(name(SetId::Vips), &[$ip]),
                Set::of(name(SetId::Hairpin), &[$ip, $ip]),
            ]
        };
    }
    if layout.ipv4 { of_family!(Ipv4) } else { of_family!(Ipv6) }
}

/// From a packet to its class.
fn service_rules(layout: Layout, config: &RuleConfig) -> Vec<Vec<Expr>> {
    let dispatch = |node_port| {
        let mut exprs = layout.load_front(node_port);
        exprs.push(layout.map(SetId::Services, layout.front(), Reg(0)));
        exprs.push(set_number(Reg(0)));
        exprs.push(number(Reg(0)));
        exprs.push(Expr::MapVerdict { set: SetId::Class.name(layout.ipv4), key: Reg(0) });
        exprs
    };
    let mut rules = vec![[layout.is_family().to_vec(), dispatch(false)].concat()];
    // Any other port of a Service's address: say that nobody listens.
    let mut unknown_port = layout.is_family().to_vec();
    unknown_port.push(layout.load_destination(Reg(0)));
    unknown_port.push(Expr::InSet { set: SetId::Vips.name(layout.ipv4), key: Reg(0), not: false });
    unknown_port.push(Expr::Verdict(Verdict::Goto("rejected".to_owned())));
    rules.push(unknown_port);
    for cidr in config.service_cidrs.iter().filter(|cidr| cidr.is_ipv4() == layout.ipv4) {
        let mut unallocated = layout.is_family().to_vec();
        unallocated.extend(layout.inside(cidr, true));
        unallocated.push(Expr::Verdict(Verdict::Drop));
        rules.push(unallocated);
    }
    // A port of the node, on every address of it but loopback ones.
    let mut node_port = layout.is_family().to_vec();
    node_port.push(Expr::AddressType(FibSource::Destination, Reg(0)));
    node_port.push(Expr::equals(Reg(0), TYPE_LOCAL.to_ne_bytes()));
    node_port.push(layout.load_destination(Reg(0)));
    if layout.ipv4 {
        node_port.push(Expr::Bitwise { from: Reg(0), to: Reg(0), mask: vec![255, 0, 0, 0], xor: vec![0; 4] });
        node_port.push(Expr::differs(Reg(0), [127, 0, 0, 0]));
    } else {
        node_port.push(Expr::differs(Reg(0), Ipv6Addr::LOCALHOST.octets()));
    }
    node_port.extend(dispatch(true));
    rules.push(node_port);
    rules
}

/// Answers that nobody listens.
///
/// A reject in the output hook does not do for datagrams: the sender's own call fails with EPERM before the answer
/// reaches its socket. They are led to an address of this node instead, where [`refusal_rule`] answers them.
fn reject_rules() -> Vec<Vec<Expr>> {
    let mut rules = vec![[is_transport(TCP).to_vec(), vec![Expr::RejectTcp]].concat()];
    for layout in LAYOUTS {
        let (addr, port) = layout.refusal();
        let mut local = layout.is_family().to_vec();
        local.extend(is_transport(UDP));
        local.push(Expr::AddressType(FibSource::Source, Reg(0)));
        local.push(Expr::equals(Reg(0), TYPE_LOCAL.to_ne_bytes()));
        local.extend([Expr::Load(Reg(0), addr), Expr::Load(Reg(4), port)]);
        local.push(Expr::Dnat { ipv4: layout.ipv4, addr: Reg(0), port: Some(Reg(4)) });
        rules.push(local);
    }
    rules.push(vec![Expr::RejectPort]);
    rules
}

/// Answers the datagrams that [`reject_rules`] led here.
fn refusal_rule(layout: Layout) -> Vec<Expr> {
    let (addr, port) = layout.refusal();
    let mut rule = bits_set(Expr::Ct(CtKey::Status, Reg(0)), STATUS_DNAT).to_vec();
    rule.extend(layout.is_family());
    rule.extend([layout.load_destination(Reg(0)), Expr::equals(Reg(0), addr)]);
    rule.extend(is_transport(UDP));
    rule.push(Expr::Payload { base: PayloadBase::Transport, offset: 2, len: 2, to: Reg(0) });
    rule.push(Expr::equals(Reg(0), port));
    rule.push(Expr::RejectPortOf(layout.ipv4));
    rule
}

fn is_transport(protocol: u8) -> [Expr; 2] {
    [Expr::Meta(MetaKey::Transport, Reg(0)), Expr::equals(Reg(0), [protocol])]
}

fn masquerade_rules(mark: u32) -> Vec<Vec<Expr>> {
    let mut clean = bits_set(Expr::Ct(CtKey::Status, Reg(0)), STATUS_DNAT).to_vec();
    clean.extend([Expr::Load(Reg(0), vec![0; 4]), set_number(Reg(0))]);
    let mut rules = vec![clean];
    let mut marked = bits_set(Expr::Meta(MetaKey::Mark, Reg(0)), mark).to_vec();
    marked.extend(change_mark(mark, false));
    marked.push(Expr::Masquerade);
    rules.push(marked);
    for layout in LAYOUTS {
        // A pod that reached itself would answer itself, past the translation: give it another source.
        let mut hairpin = bits_set(Expr::Ct(CtKey::Status, Reg(0)), STATUS_DNAT).to_vec();
        hairpin.extend(layout.is_family());
        hairpin.push(layout.load_source(Reg(0)));
        hairpin.push(layout.load_destination(Reg(0).plus(layout.words)));
        let set = SetId::Hairpin.name(layout.ipv4);
        hairpin.push(Expr::InSet { set, key: Reg(0), not: false });
        hairpin.push(Expr::Masquerade);
        rules.push(hairpin);
    }
    rules
}

/// Loads a number into the first register and holds if it has one of `bits`.
fn bits_set(load: Expr, bits: u32) -> [Expr; 3] {
    let mask = bits.to_ne_bytes().to_vec();
    [load, Expr::Bitwise { from: Reg(0), to: Reg(0), mask, xor: vec![0; 4] }, Expr::differs(Reg(0), [0; 4])]
}

fn change_mark(mark: u32, set: bool) -> [Expr; 3] {
    let mask = (!mark).to_ne_bytes().to_vec();
    let xor = if set { mark } else { 0 }.to_ne_bytes().to_vec();
    [
        Expr::Meta(MetaKey::Mark, Reg(0)),
        Expr::Bitwise { from: Reg(0), to: Reg(0), mask, xor },
        Expr::SetMeta(MetaKey::Mark, Reg(0)),
    ]
}

/// Adds chains with their rules.
pub(crate) fn add_chains(batch: &mut Batch, config: &RuleConfig, chains: &[Chain]) {
    let table = config.table();
    // They lead to one another.
    for chain in chains {
        batch.add_chain(&table, &chain.name(), None);
    }
    for chain in chains {
        let rules = match *chain {
            Chain::Class { ipv4, class } => class_rules(config, ipv4, &class),
            Chain::Known { ipv4, node_port, seconds } => known_rules(Layout::of(ipv4), node_port, seconds),
            Chain::Fresh { ipv4, node_port, seconds } => fresh_rules(Layout::of(ipv4), node_port, seconds),
        };
        for rule in rules {
            batch.add_rule(&table, &chain.name(), &rule);
        }
    }
}

fn class_rules(config: &RuleConfig, ipv4: bool, class: &Class) -> Vec<Vec<Expr>> {
    let layout = Layout::of(ipv4);
    let mut rules = Vec::new();
    if class.restricted {
        rules.push(allowed_rule(layout, class.node_port));
    }
    if class.masquerade {
        rules.push(change_mark(config.mark, true).to_vec());
    }
    let pick = |count: u16, offset: u32, chain: String| -> Vec<Expr> {
        let mut rule = random_number(count, offset).to_vec();
        rule.push(Expr::Verdict(Verdict::Goto(chain)));
        rule
    };
    let balance = |count: u16, offset: u32| pick(count, offset, balancing(class.node_port, ipv4));
    if class.external_local && class.endpoints > 0 {
        // Clients in the cluster, this node among them, are served as by the address inside the cluster.
        for cidr in config.pod_cidrs.iter().filter(|cidr| cidr.is_ipv4() == ipv4) {
            let pods = [layout.is_family().to_vec(), layout.inside(cidr, false).to_vec()].concat();
            rules.push([pods, balance(class.endpoints, 0)].concat());
        }
        let mut own = vec![Expr::AddressType(FibSource::Source, Reg(0))];
        own.push(Expr::equals(Reg(0), TYPE_LOCAL.to_ne_bytes()));
        rules.push([own, balance(class.endpoints, 0)].concat());
    }
    let (count, offset) = (class.sticky(), if class.external_local { LOCAL_OFFSET } else { 0 });
    let (node_port, seconds) = (class.node_port, class.affinity);
    if count == 0 {
        rules.push(vec![Expr::Verdict(Verdict::Drop)]);
    } else if class.affinity > 0 {
        let known = Chain::Known { ipv4, node_port, seconds }.name();
        rules.push(vec![Expr::Verdict(Verdict::Jump(known))]);
        rules.push(pick(count, offset, Chain::Fresh { ipv4, node_port, seconds }.name()));
    } else {
        rules.push(balance(count, offset));
    }
    rules
}

/// Name of the chain that leads to the endpoint of a number.
fn balancing(node_port: bool, ipv4: bool) -> String {
    format!("to-{}", kind(node_port, ipv4))
}

/// Leads a packet with a number to the endpoint that has it.
fn balancing_rule(layout: Layout, node_port: bool) -> Vec<Expr> {
    let mut rule = layout.is_family().to_vec();
    rule.extend(layout.load_front(node_port));
    rule.push(number(layout.number()));
    rule.extend(layout.dnat(SetId::Endpoints));
    rule
}

/// Drops clients that are in no allowed range.
fn allowed_rule(layout: Layout, node_port: bool) -> Vec<Expr> {
    let mut rule = layout.is_family().to_vec();
    rule.extend(layout.load_client(node_port));
    rule.push(Expr::InSet { set: SetId::Allowed.name(layout.ipv4), key: layout.front(), not: true });
    rule.push(Expr::Verdict(Verdict::Drop));
    rule
}

/// A client that is known is given the endpoint with the number it had, if that one lives, and its time is renewed.
/// Else what is known of it is forgotten: an update would keep the stale number.
fn known_rules(layout: Layout, node_port: bool, seconds: u32) -> Vec<Vec<Expr>> {
    let (set, key, data) = (layout.affinity_map(), layout.front(), layout.remembered());
    let client = [layout.is_family().to_vec(), layout.load_client(node_port)].concat();
    let mut known = client.clone();
    known.push(Expr::MapValue { set: set.clone(), key, to: data });
    known.extend([set_number(data), number(data), remember(layout, seconds)]);
    known.push(number(layout.number()));
    known.extend(layout.dnat(SetId::Live));
    let stale = [client, vec![number(data), Expr::Forget { set, key, data: Some(data) }]].concat();
    vec![known, stale]
}

/// The number of the pick becomes the endpoint's own, which stays the same whatever others come and go, and that is
/// remembered. A client is served also where it is not remembered because the map is full.
fn fresh_rules(layout: Layout, node_port: bool, seconds: u32) -> Vec<Vec<Expr>> {
    let front = [layout.is_family().to_vec(), layout.load_front(node_port)].concat();
    let (at, data) = (layout.number(), layout.remembered());
    let own = vec![number(at), layout.map(SetId::Choices, layout.front(), data), set_number(data)];
    let keep = vec![layout.load_source(at), number(data), remember(layout, seconds)];
    let go = [vec![number(at)], layout.dnat(SetId::Live).to_vec()].concat();
    [own, keep, go].map(|rest| [front.clone(), rest].concat()).into()
}

fn remember(layout: Layout, seconds: u32) -> Expr {
    Expr::Remember {
        set: layout.affinity_map(),
        key: layout.front(),
        data: Some(layout.remembered()),
        timeout: Duration::from_secs(u64::from(seconds)),
    }
}

/// Makes the packet's number a random one.
fn random_number(count: u16, offset: u32) -> [Expr; 2] {
    [Expr::Random { modulus: u32::from(count), offset, to: Reg(0) }, set_number(Reg(0))]
}

/// Loads the packet's number.
fn number(to: Reg) -> Expr {
    Expr::Meta(MetaKey::Priority, to)
}

/// Sets the packet's number.
fn set_number(from: Reg) -> Expr {
    Expr::SetMeta(MetaKey::Priority, from)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel walks a map for every chain that comes to refer to it: those that come and go with Services must
    /// not refer to maps that grow with the number of Services.
    #[test]
    fn chains_of_classes_look_nothing_up_in_large_maps() {
        let cidrs = |text: &str| vec![text.parse().expect("a prefix")];
        let config = RuleConfig {
            table: "xebec".into(),
            mark: 0x4000,
            pod_cidrs: cidrs("10.99.0.0/16"),
            service_cidrs: cidrs("10.98.0.0/16"),
        };
        let plain = Class { endpoints: 3, restricted: true, masquerade: true, ..Class::default() };
        for class in [plain, Class { external_local: true, local: 2, affinity: 10, ..plain }] {
            let rules = class_rules(&config, true, &class);
            let looks_up = |expr: &Expr| {
                matches!(expr, Expr::MapValue { .. } | Expr::Remember { .. } | Expr::Forget { .. })
            };
            assert!(!rules.iter().flatten().any(looks_up), "{rules:?}");
        }
    }
}
