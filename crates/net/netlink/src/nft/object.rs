//! Tables, chains, sets and their elements.

use std::time::Duration;

use crate::message::Message;

use super::expr::Verdict;

/// An nftables family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Both IPv4 and IPv6.
    Inet,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    /// `NFPROTO_*`.
    pub fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ipv4 => 2,
            Self::Ipv6 => 10,
        }
    }
}

/// A table's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its family.
    pub family: Family,
    /// Its name.
    pub name: String,
}

/// Where packets meet a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Before routing, all packets from outside.
    Prerouting,
    /// Packets to this host.
    Input,
    /// Packets through this host.
    Forward,
    /// Packets of this host.
    Output,
    /// After routing, all packets that leave.
    Postrouting,
}

impl Hook {
    fn number(self) -> u32 {
        match self {
            Self::Prerouting => 0,
            Self::Input => 1,
            Self::Forward => 2,
            Self::Output => 3,
            Self::Postrouting => 4,
        }
    }
}

/// What a base chain may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainType {
    /// See every packet.
    Filter,
    /// See the first packet of every connection and translate its addresses.
    Nat,
}

/// A chain that the kernel calls, with policy accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseChain {
    /// What it may do.
    pub kind: ChainType,
    /// Where it is called.
    pub hook: Hook,
    /// Order among the chains of the hook; smaller is earlier (`-100` is dstnat, `100` srcnat, `0` filter).
    pub priority: i32,
}

impl BaseChain {
    pub(super) fn encode(self, message: &mut Message) {
        let nest = message.begin(4);
        message.be32(1, self.hook.number()).be32(2, self.priority.cast_unsigned());
        message.end(nest);
        message.text(7, if self.kind == ChainType::Nat { "nat" } else { "filter" });
    }
}

/// Type of one part of a key or value: tells the length to the kernel and the look to people who list the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataType {
    /// An IPv4 address, 4 bytes.
    Ipv4,
    /// An IPv6 address, 16 bytes.
    Ipv6,
    /// An IP protocol, one byte padded to 4.
    Protocol,
    /// A port in network order, two bytes padded to 4.
    Port,
    /// A number in host order, 4 bytes. Its type is that of `meta priority`, so that rules can carry it from one
    /// lookup to the next; listings show it as a traffic class, `1:2` for 0x10002.
    ClassId,
}

impl DataType {
    /// Bytes in a concatenation, where every part fills whole registers.
    pub fn padded_len(self) -> usize {
        if self == Self::Ipv6 { 16 } else { 4 }
    }

    /// Bytes when it stands alone.
    fn exact(self) -> usize {
        match self {
            Self::Ipv4 | Self::ClassId => 4,
            Self::Ipv6 => 16,
            Self::Protocol => 1,
            Self::Port => 2,
        }
    }

    /// The type numbers of the `nft` tool; the kernel only stores them.
    fn number(self) -> u32 {
        match self {
            Self::Ipv4 => 7,
            Self::Ipv6 => 8,
            Self::Protocol => 12,
            Self::Port => 13,
            Self::ClassId => 23,
        }
    }
}

/// What a map leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapData {
    /// Values of these types, side by side.
    Value(&'static [DataType]),
    /// A verdict.
    Verdict,
}

/// A named set or map.
#[derive(Clone, Debug)]
pub struct Set {
    /// Its name.
    pub name: String,
    /// The parts of a key, side by side.
    pub key: &'static [DataType],
    /// What keys lead to, for a map.
    pub data: Option<MapData>,
    /// Keys are ranges of addresses.
    pub interval: bool,
    /// Rules add elements that expire; at most so many.
    pub dynamic: Option<u32>,
}

impl Set {
    /// A set of exact keys.
    pub fn of(name: impl Into<String>, key: &'static [DataType]) -> Self {
        Self { name: name.into(), key, data: None, interval: false, dynamic: None }
    }

    /// A map from exact keys to values.
    pub fn map(name: impl Into<String>, key: &'static [DataType], data: &'static [DataType]) -> Self {
        Self { data: Some(MapData::Value(data)), ..Self::of(name, key) }
    }

    /// A map from exact keys to verdicts.
    pub fn verdicts(name: impl Into<String>, key: &'static [DataType]) -> Self {
        Self { data: Some(MapData::Verdict), ..Self::of(name, key) }
    }

    /// A set of ranges.
    pub fn intervals(name: impl Into<String>, key: &'static [DataType]) -> Self {
        Self { interval: true, ..Self::of(name, key) }
    }

    /// Lets rules add up to `limit` elements that expire.
    #[must_use]
    pub fn expiring(mut self, limit: u32) -> Self {
        self.dynamic = Some(limit);
        self
    }

    pub(super) fn encode(&self, message: &mut Message) {
        const INTERVAL: u32 = 0x4;
        const MAP: u32 = 0x8;
        const TIMEOUT: u32 = 0x10;
        const EVAL: u32 = 0x20;
        const CONCAT: u32 = 0x80;
        const VERDICT_TYPE: u32 = 0xffff_ff00;
        let concatenated_intervals = self.interval && self.key.len() > 1;
        let mut flags = 0;
        flags |= if self.interval { INTERVAL } else { 0 };
        flags |= if concatenated_intervals { CONCAT } else { 0 };
        flags |= if self.data.is_some() { MAP } else { 0 };
        flags |= if self.dynamic.is_some() { TIMEOUT | EVAL } else { 0 };
        message.be32(3, flags).be32(4, type_number(self.key)).be32(5, type_len(self.key));
        match self.data {
            Some(MapData::Verdict) => {
                message.be32(6, VERDICT_TYPE).be32(7, 0);
            }
            Some(MapData::Value(parts)) => {
                message.be32(6, type_number(parts)).be32(7, type_len(parts));
            }
            None => {}
        }
        message.attr(13, &self.user_data());
        if self.dynamic.is_some() || concatenated_intervals {
            let nest = message.begin(9);
            if let Some(limit) = self.dynamic {
                message.be32(1, limit);
            }
            if concatenated_intervals {
                encode_fields(self.key, message);
            }
            message.end(nest);
        }
    }
}

impl Set {
    /// What the `nft` tool wants to know to list the set: type, length, value each (`libnftnl/udata.h`). Without it,
    /// numbers in host order would be read back in network order.
    fn user_data(&self) -> Vec<u8> {
        const KEY_BYTE_ORDER: u8 = 0;
        const DATA_BYTE_ORDER: u8 = 1;
        let mut data = Vec::new();
        let values = match self.data {
            Some(MapData::Value(parts)) => Some(parts),
            _ => None,
        };
        for (kind, parts) in [(KEY_BYTE_ORDER, Some(self.key)), (DATA_BYTE_ORDER, values)] {
            let Some(parts) = parts else { continue };
            let order: u32 = match parts {
                [DataType::ClassId] => 1,
                [_] => 2,
                // Each part of a concatenation has its type's own.
                _ => 0,
            };
            data.extend([kind, 4]);
            data.extend(order.to_ne_bytes());
        }
        data
    }
}

fn encode_fields(key: &[DataType], message: &mut Message) {
    let nest = message.begin(2);
    for part in key {
        let field = message.begin(1);
        message.be32(1, u32::try_from(part.exact()).expect("invariant: at most 16"));
        message.end(field);
    }
    message.end(nest);
}

fn type_number(parts: &[DataType]) -> u32 {
    // Five types of six bits each fit; nobody reads the number but the listing tool.
    parts.iter().fold(0, |number, part| (number << 6) | part.number())
}

fn type_len(parts: &[DataType]) -> u32 {
    let len = match parts {
        [one] => one.exact(),
        many => many.iter().map(|part| part.padded_len()).sum(),
    };
    u32::try_from(len).expect("invariant: keys are at most 64 bytes")
}

/// What an element leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Bytes.
    Bytes(Vec<u8>),
    /// A verdict.
    Verdict(Verdict),
}

/// An element of a set or map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// The key; parts of a concatenation padded to 4 bytes each.
    pub key: Vec<u8>,
    /// Last key of the range, for concatenations of ranges.
    pub key_end: Option<Vec<u8>>,
    /// For maps.
    pub value: Option<Value>,
    /// Until it is removed by itself.
    pub timeout: Option<Duration>,
    /// Marks the end of a plain range: the first key after it.
    pub interval_end: bool,
}

impl Element {
    /// An element of a set.
    pub fn key(key: Vec<u8>) -> Self {
        Self { key, key_end: None, value: None, timeout: None, interval_end: false }
    }

    /// An element of a map to values.
    pub fn pair(key: Vec<u8>, value: Vec<u8>) -> Self {
        Self { value: Some(Value::Bytes(value)), ..Self::key(key) }
    }

    /// An element of a map to verdicts.
    pub fn verdict(key: Vec<u8>, verdict: Verdict) -> Self {
        Self { value: Some(Value::Verdict(verdict)), ..Self::key(key) }
    }

    /// Upper bound of the encoded length in bytes.
    pub(super) fn encoded_len(&self) -> usize {
        let value = match &self.value {
            Some(Value::Bytes(bytes)) => bytes.len() + 12,
            Some(Value::Verdict(_)) => 160,
            None => 0,
        };
        let end = self.key_end.as_ref().map_or(0, |key| key.len() + 12);
        self.key.len() + 12 + value + end + 32
    }

    /// Encodes the element; a deletion names only its key.
    pub(super) fn encode(&self, message: &mut Message, deleting: bool) {
        let element = message.begin(1);
        let key = message.begin(1);
        message.attr(1, &self.key);
        message.end(key);
        if let Some(last) = &self.key_end {
            let end = message.begin(10);
            message.attr(1, last);
            message.end(end);
        }
        if self.interval_end {
            message.be32(3, 1);
        }
        if !deleting {
            match &self.value {
                Some(Value::Bytes(bytes)) => {
                    let data = message.begin(2);
                    message.attr(1, bytes);
                    message.end(data);
                }
                Some(Value::Verdict(verdict)) => verdict.encode(2, message),
                None => {}
            }
            if let Some(timeout) = self.timeout {
                message.be64(4, u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
            }
        }
        message.end(element);
    }
}
