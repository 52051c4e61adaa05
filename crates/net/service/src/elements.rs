//! Fronts as elements of the kernel's sets and maps.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use xebec_netlink::{Cidr, cidr::addr_bytes};

use crate::{
    class::Chain,
    model::{Endpoint, Front, FrontKey},
};

/// First number of a local endpoint, above those of all endpoints.
pub(crate) const LOCAL_OFFSET: u32 = 0x1_0000;

/// A set or map. Each exists once per family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SetId {
    /// Class → chain.
    Class,
    /// Front and number → endpoint.
    Endpoints,
    /// Front and number → the endpoint's own number, where clients stay with their endpoint.
    Choices,
    /// Front and an endpoint's own number → endpoint, where clients stay with their endpoint.
    Live,
    /// Front and source range.
    Allowed,
    /// Addresses of Services inside the cluster.
    Vips,
    /// Pods of this node that may reach themselves.
    Hairpin,
    /// Front → class.
    Services,
}

impl SetId {
    /// All of them, in the order in which they are to be filled: what others lead to comes first.
    pub const ALL: [Self; 8] = [
        Self::Class,
        Self::Endpoints,
        Self::Live,
        Self::Choices,
        Self::Allowed,
        Self::Vips,
        Self::Hairpin,
        Self::Services,
    ];

    /// Its name in the kernel.
    pub fn name(self, ipv4: bool) -> String {
        let base = match self {
            Self::Class => "class",
            Self::Endpoints => "eps",
            Self::Choices => "own",
            Self::Live => "live",
            Self::Allowed => "allow",
            Self::Vips => "vips",
            Self::Hairpin => "hairpin",
            Self::Services => "svc",
        };
        format!("{base}{}", if ipv4 { 4 } else { 6 })
    }
}

/// The elements of one set: key → value, both as bytes of the kernel. Ranges have both ends in the key; sets have
/// empty values.
pub type SetElements = BTreeMap<Vec<u8>, Vec<u8>>;

/// Elements by set and family (true is IPv4), and the chains that come and go with them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Elements {
    /// The sets; empty ones may be missing.
    pub sets: BTreeMap<(SetId, bool), SetElements>,
    /// The chains.
    pub chains: BTreeSet<Chain>,
}

impl Elements {
    /// Adds one element.
    pub fn insert(&mut self, set: SetId, ipv4: bool, key: Vec<u8>, value: Vec<u8>) {
        self.sets.entry((set, ipv4)).or_default().insert(key, value);
    }

    /// Adds a front's elements.
    pub fn insert_front(&mut self, key: &FrontKey, front: &Front) {
        let ipv4 = key.ip.is_ipv4();
        let bytes = front_bytes(key);
        self.insert(SetId::Services, ipv4, bytes.clone(), number_bytes(front.class.id(ipv4)));
        let numbered =
            |list: &[Endpoint], offset: u32| -> Vec<_> { (offset..).zip(list.iter().copied()).collect() };
        for (number, endpoint) in
            numbered(&front.endpoints, 0).into_iter().chain(numbered(&front.local, LOCAL_OFFSET))
        {
            let mut key = bytes.clone();
            key.extend(number_bytes(number));
            self.insert(SetId::Endpoints, ipv4, key, endpoint_bytes(&endpoint));
        }
        if front.class.affinity > 0 {
            let offset = if front.class.external_local { LOCAL_OFFSET } else { 0 };
            for (number, (own, endpoint)) in (offset..).zip(front.sticky()) {
                let key = |number: u32| [bytes.clone(), number_bytes(number)].concat();
                self.insert(SetId::Choices, ipv4, key(number), number_bytes(own));
                self.insert(SetId::Live, ipv4, key(own), endpoint_bytes(&endpoint));
            }
        }
        for range in &front.allowed {
            self.insert(SetId::Allowed, ipv4, range_bytes(&bytes, range), Vec::new());
        }
    }
}

/// How one set is to change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetChanges {
    /// Elements to delete.
    pub removed: Vec<(Vec<u8>, Vec<u8>)>,
    /// Elements whose value changes: key, new value.
    pub replaced: Vec<(Vec<u8>, Vec<u8>)>,
    /// Elements to add.
    pub added: Vec<(Vec<u8>, Vec<u8>)>,
}

/// How the kernel's sets are to change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// By set and family; only sets that change.
    pub sets: BTreeMap<(SetId, bool), SetChanges>,
    /// Chains to add.
    pub added: Vec<Chain>,
    /// Chains to delete.
    pub removed: Vec<Chain>,
}

impl Changes {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty() && self.added.is_empty() && self.removed.is_empty()
    }

    /// Number of elements deleted, replaced and added.
    pub fn len(&self) -> usize {
        self.sets.values().map(|set| set.removed.len() + set.replaced.len() + set.added.len()).sum()
    }
}

/// The least changes that lead from `old` to `new`.
pub fn diff(old: &Elements, new: &Elements) -> Changes {
    let empty = SetElements::new();
    let without =
        |some: &Elements, others: &Elements| some.chains.difference(&others.chains).copied().collect();
    let mut changes = Changes { added: without(new, old), removed: without(old, new), ..Changes::default() };
    let mut ids: Vec<_> = old.sets.keys().chain(new.sets.keys()).copied().collect();
    ids.sort_unstable();
    ids.dedup();
    for id in ids {
        let (before, after) = (old.sets.get(&id).unwrap_or(&empty), new.sets.get(&id).unwrap_or(&empty));
        let mut set = SetChanges::default();
        for (key, value) in before {
            match after.get(key) {
                None => set.removed.push((key.clone(), value.clone())),
                Some(wanted) if wanted != value => set.replaced.push((key.clone(), wanted.clone())),
                Some(_) => {}
            }
        }
        let new_keys = after.iter().filter(|(key, _)| !before.contains_key(*key));
        set.added.extend(new_keys.map(|(key, value)| (key.clone(), value.clone())));
        if set != SetChanges::default() {
            changes.sets.insert(id, set);
        }
    }
    changes
}

/// Address, protocol, port: the key of a front.
pub(crate) fn front_bytes(key: &FrontKey) -> Vec<u8> {
    let mut bytes = addr_bytes(key.ip);
    bytes.extend_from_slice(&[key.transport.number(), 0, 0, 0]);
    bytes.extend_from_slice(&port_bytes(key.port));
    bytes
}

/// A number as rules have it in a register.
pub(crate) fn number_bytes(number: u32) -> Vec<u8> {
    number.to_ne_bytes().to_vec()
}

fn endpoint_bytes(endpoint: &Endpoint) -> Vec<u8> {
    let mut bytes = addr_bytes(endpoint.ip);
    bytes.extend_from_slice(&port_bytes(endpoint.port));
    bytes
}

/// The key of a pod that reaches itself: its address as source and as destination.
pub(crate) fn pair_bytes(ip: IpAddr) -> Vec<u8> {
    [addr_bytes(ip), addr_bytes(ip)].concat()
}

fn range_bytes(front: &[u8], range: &Cidr) -> Vec<u8> {
    let (first, last) = (addr_bytes(range.network().addr), addr_bytes(range.last()));
    [front, &first, front, &last].concat()
}

fn port_bytes(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}
