//! The chains: a skeleton that never changes, and one chain per class.
//!
//! Registers hold, side by side, so that every map's key is a run of them: source address, destination address (zero
//! for a port of the node), protocol, port, endpoint address, endpoint port.

use std::{net::Ipv6Addr, time::Duration};

use xebec_netlink::{
    Batch, Cidr,
    cidr::addr_bytes,
    nft::{
        BaseChain, ChainType, CtKey, DataType, Expr, Family, FibSource, Hook, MetaKey, PayloadBase, Reg, Set,
        Table, Verdict,
    },
};

use crate::{elements::LOCAL_OFFSET, elements::SetId, model::Class};

/// Changes with every change of what this module writes: a table with another number is replaced.
const VERSION: u32 = 1;
/// Clients that stay with an endpoint, at most.
const MOST_CLIENTS: u32 = 1 << 20;
const PRIORITY_DNAT: i32 = -100;
const PRIORITY_SNAT: i32 = 100;
const TCP: u8 = 6;
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
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
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

    fn source(self) -> Reg {
        Reg(0)
    }

    fn front(self) -> Reg {
        Reg(0).plus(self.words)
    }

    /// First register after the front: the number of an endpoint, then the endpoint.
    fn endpoint(self) -> Reg {
        Reg(0).plus(self.words * 2 + 2)
    }

    fn endpoint_port(self) -> Reg {
        self.endpoint().plus(self.words)
    }

    fn load_source(self) -> Expr {
        let (offset, len) = (self.source_offset, self.len());
        Expr::Payload { base: PayloadBase::Network, offset, len, to: self.source() }
    }

    fn load_destination(self, to: Reg) -> Expr {
        Expr::Payload { base: PayloadBase::Network, offset: self.destination_offset, len: self.len(), to }
    }

    fn load_front(self, node_port: bool) -> [Expr; 3] {
        let after = self.front().plus(self.words);
        let address = if node_port {
            Expr::Load(self.front(), vec![0; self.words * 4])
        } else {
            self.load_destination(self.front())
        };
        [
            address,
            Expr::Meta(MetaKey::Transport, after),
            Expr::Payload { base: PayloadBase::Transport, offset: 2, len: 2, to: after.plus(1) },
        ]
    }

    fn is_family(self) -> [Expr; 2] {
        let number = if self.ipv4 { 2 } else { 10 };
        [Expr::Meta(MetaKey::Family, Reg(0)), Expr::equals(Reg(0), [number])]
    }

    fn dnat(self) -> Expr {
        Expr::Dnat { ipv4: self.ipv4, addr: self.endpoint(), port: Some(self.endpoint_port()) }
    }

    /// Picks an endpoint at random.
    fn pick(self, count: u16, offset: u32) -> [Expr; 2] {
        [
            Expr::Random { modulus: u32::from(count), offset, to: self.endpoint() },
            Expr::MapValue { set: SetId::Endpoints.name(self.ipv4), key: self.front(), to: self.endpoint() },
        ]
    }

    fn affinity_map(self) -> String {
        format!("aff{}", if self.ipv4 { 4 } else { 6 })
    }

    fn inside(self, cidr: &Cidr, destination: bool) -> [Expr; 3] {
        let load = if destination { self.load_destination(Reg(0)) } else { self.load_source() };
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
    for chain in ["reject", "drop", "services"] {
        batch.add_chain(&table, chain, None);
    }
    batch.add_rule(
        &table,
        "reject",
        &[Expr::Meta(MetaKey::Transport, Reg(0)), Expr::equals(Reg(0), [TCP]), Expr::RejectTcp],
    );
    batch.add_rule(&table, "reject", &[Expr::RejectPort]);
    batch.add_rule(&table, "drop", &[Expr::Verdict(Verdict::Drop)]);
    for layout in LAYOUTS {
        for rule in service_rules(layout, config) {
            batch.add_rule(&table, "services", &rule);
        }
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
    // A late packet that connection tracking does not know is not translated: its receiver would answer a stranger
    // with a reset, which kills the connection it belonged to.
    let base = BaseChain { kind: ChainType::Filter, hook: Hook::Forward, priority: 0 };
    batch.add_chain(&table, "forward", Some(base));
    let mut invalid = bits_set(Expr::Ct(CtKey::State, Reg(0)), STATE_INVALID).to_vec();
    invalid.push(Expr::Verdict(Verdict::Drop));
    batch.add_rule(&table, "forward", &invalid);
}

fn sets(layout: Layout) -> Vec<Set> {
    use DataType::{Ipv4, Ipv6, Number, Port, Protocol};
    let name = |id: SetId| id.name(layout.ipv4);
    let class: &[DataType] = &[Number, Number, Number];
    macro_rules! of_family {
        ($ip:ident) => {
            vec![
                Set::verdicts(name(SetId::Class), class),
                Set::map(name(SetId::Services), &[$ip, Protocol, Port], class),
                Set::map(name(SetId::Endpoints), &[$ip, Protocol, Port, Number], &[$ip, Port]),
                Set::of(name(SetId::Live), &[$ip, Protocol, Port, $ip, Port]),
                Set::map(layout.affinity_map(), &[$ip, $ip, Protocol, Port], &[$ip, Port])
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
        let mut exprs = layout.load_front(node_port).to_vec();
        let class = layout.endpoint();
        exprs.push(Expr::MapValue { set: SetId::Services.name(layout.ipv4), key: layout.front(), to: class });
        exprs.push(Expr::MapVerdict { set: SetId::Class.name(layout.ipv4), key: class });
        exprs
    };
    let mut rules = vec![[layout.is_family().to_vec(), dispatch(false)].concat()];
    // Any other port of a Service's address: say that nobody listens.
    let mut unknown_port = layout.is_family().to_vec();
    unknown_port.push(layout.load_destination(Reg(0)));
    unknown_port.push(Expr::InSet { set: SetId::Vips.name(layout.ipv4), key: Reg(0), not: false });
    unknown_port.push(Expr::Verdict(Verdict::Goto("reject".to_owned())));
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

fn masquerade_rules(mark: u32) -> Vec<Vec<Expr>> {
    let mut rules = Vec::new();
    let mut marked = bits_set(Expr::Meta(MetaKey::Mark, Reg(0)), mark).to_vec();
    marked.extend(change_mark(mark, false));
    marked.push(Expr::Masquerade);
    rules.push(marked);
    for layout in LAYOUTS {
        // A pod that reached itself would answer itself, past the translation: give it another source.
        let mut hairpin = bits_set(Expr::Ct(CtKey::Status, Reg(0)), STATUS_DNAT).to_vec();
        hairpin.extend(layout.is_family());
        hairpin.push(layout.load_source());
        hairpin.push(layout.load_destination(layout.front()));
        let set = SetId::Hairpin.name(layout.ipv4);
        hairpin.push(Expr::InSet { set, key: layout.source(), not: false });
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
        Expr::SetMark(Reg(0)),
    ]
}

/// Adds the chain of a class with its rules.
pub(crate) fn add_class_chain(batch: &mut Batch, config: &RuleConfig, ipv4: bool, class: &Class) {
    let (table, name) = (config.table(), class.chain(ipv4));
    batch.add_chain(&table, &name, None);
    // The chain may be left from an earlier process, with the same rules or none.
    batch.flush_chain(&table, &name);
    for rule in class_rules(config, ipv4, class) {
        batch.add_rule(&table, &name, &rule);
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
    let balance = |count: u16, offset: u32| -> Vec<Expr> {
        let mut rule = layout.load_front(class.node_port).to_vec();
        rule.extend(layout.pick(count, offset));
        rule.push(layout.dnat());
        rule
    };
    if class.external_local && class.endpoints > 0 {
        // Clients in the cluster, this node among them, are served as by the address inside the cluster.
        for cidr in config.pod_cidrs.iter().filter(|cidr| cidr.is_ipv4() == ipv4) {
            rules.push([layout.inside(cidr, false).to_vec(), balance(class.endpoints, 0)].concat());
        }
        let mut own = vec![Expr::AddressType(FibSource::Source, Reg(0))];
        own.push(Expr::equals(Reg(0), TYPE_LOCAL.to_ne_bytes()));
        rules.push([own, balance(class.endpoints, 0)].concat());
    }
    let (count, offset) =
        if class.external_local { (class.local, LOCAL_OFFSET) } else { (class.endpoints, 0) };
    if count == 0 {
        rules.push(vec![Expr::Verdict(Verdict::Drop)]);
        return rules;
    }
    if class.affinity > 0 {
        rules.extend(affinity_rules(layout, class, count, offset));
    }
    // Also where a client is not remembered because the map is full.
    rules.push(balance(count, offset));
    rules
}

/// Drops clients that are in no allowed range.
fn allowed_rule(layout: Layout, node_port: bool) -> Vec<Expr> {
    // The key is front and source: the source goes where the endpoint will be.
    let mut rule = layout.load_front(node_port).to_vec();
    rule.push(Expr::Payload {
        base: PayloadBase::Network,
        offset: layout.source_offset,
        len: layout.len(),
        to: layout.endpoint(),
    });
    rule.push(Expr::InSet { set: SetId::Allowed.name(layout.ipv4), key: layout.front(), not: true });
    rule.push(Expr::Verdict(Verdict::Drop));
    rule
}

/// Three rules: a client that is known and whose endpoint lives goes there, and its time is renewed. Else what is
/// known of it is forgotten (an update would keep the stale endpoint). Else an endpoint is picked and remembered.
fn affinity_rules(layout: Layout, class: &Class, count: u16, offset: u32) -> Vec<Vec<Expr>> {
    let map = layout.affinity_map();
    let timeout = Duration::from_secs(u64::from(class.affinity));
    let mut load = vec![layout.load_source()];
    load.extend(layout.load_front(class.node_port));
    let remember =
        Expr::Remember { set: map.clone(), key: layout.source(), data: Some(layout.endpoint()), timeout };
    let mut known = load.clone();
    known.push(Expr::MapValue { set: map.clone(), key: layout.source(), to: layout.endpoint() });
    known.push(Expr::InSet { set: SetId::Live.name(layout.ipv4), key: layout.front(), not: false });
    known.push(remember.clone());
    known.push(layout.dnat());

    let mut stale = load.clone();
    stale.push(Expr::MapValue { set: map.clone(), key: layout.source(), to: layout.endpoint() });
    stale.push(Expr::Forget { set: map, key: layout.source(), data: Some(layout.endpoint()) });

    let mut fresh = load;
    fresh.extend(layout.pick(count, offset));
    fresh.push(remember);
    fresh.push(layout.dnat());
    vec![known, stale, fresh]
}
