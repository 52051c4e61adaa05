//! The expressions rules are made of.

use std::time::Duration;

use crate::message::Message;

/// A 32-bit register, 0 to 15; longer values fill the following ones.
///
/// Concatenated keys are built by loading their parts into neighbouring registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reg(pub u8);

impl Reg {
    /// The register `words` further.
    pub fn plus(self, words: usize) -> Self {
        Self(self.0 + u8::try_from(words).expect("invariant: there are 16 registers"))
    }

    fn number(self) -> u32 {
        const NFT_REG32_00: u32 = 8;
        NFT_REG32_00 + u32::from(self.0)
    }
}

/// What happens to a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Goes on.
    Accept,
    /// Is dropped.
    Drop,
    /// Visits another chain and comes back.
    Jump(String),
    /// Goes to another chain and does not come back to this one.
    Goto(String),
    /// Leaves this chain.
    Return,
}

impl Verdict {
    fn code(&self) -> i32 {
        match self {
            Self::Drop => 0,
            Self::Accept => 1,
            Self::Jump(_) => -3,
            Self::Goto(_) => -4,
            Self::Return => -5,
        }
    }

    pub(super) fn from_code(code: i32, chain: String) -> Option<Self> {
        match code {
            0 => Some(Self::Drop),
            1 => Some(Self::Accept),
            -3 => Some(Self::Jump(chain)),
            -4 => Some(Self::Goto(chain)),
            -5 => Some(Self::Return),
            _ => None,
        }
    }

    pub(super) fn encode(&self, attr: u16, message: &mut Message) {
        let data = message.begin(attr);
        let verdict = message.begin(2);
        message.be32(1, self.code().cast_unsigned());
        if let Self::Jump(chain) | Self::Goto(chain) = self {
            message.text(2, chain);
        }
        message.end(verdict);
        message.end(data);
    }
}

/// Facts about a packet that are not in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaKey {
    /// The packet's mark, 4 bytes in host order.
    Mark,
    /// The packet's priority (`skb->priority`), 4 bytes in host order.
    Priority,
    /// Incoming interface name, 16 bytes.
    InputName,
    /// Outgoing interface name, 16 bytes.
    OutputName,
    /// `NFPROTO_*`, one byte.
    Family,
    /// IP protocol of the transport header, one byte.
    Transport,
}

impl MetaKey {
    fn number(self) -> u32 {
        match self {
            Self::Priority => 2,
            Self::Mark => 3,
            Self::InputName => 6,
            Self::OutputName => 7,
            Self::Family => 15,
            Self::Transport => 16,
        }
    }
}

/// Facts about a packet's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CtKey {
    /// State bits in host order: 1 invalid, 2 established, 4 related, 8 new.
    State,
    /// `IPS_*` bits in host order: 0x10 source translated, 0x20 destination translated.
    Status,
}

/// Header a payload offset counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadBase {
    /// The IP header.
    Network,
    /// The TCP, UDP or SCTP header.
    Transport,
}

/// Which address a route lookup is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FibSource {
    /// The packet's source.
    Source,
    /// The packet's destination.
    Destination,
}

/// One step of a rule. Steps that compare end the rule when they do not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// Loads a fact about the packet.
    Meta(MetaKey, Reg),
    /// Sets a fact about the packet from a register: mark or priority.
    SetMeta(MetaKey, Reg),
    /// Loads a fact about the connection.
    Ct(CtKey, Reg),
    /// Loads bytes of the packet.
    Payload {
        /// Header to count from.
        base: PayloadBase,
        /// Bytes from its start.
        offset: u32,
        /// How many bytes.
        len: u32,
        /// Where to.
        to: Reg,
    },
    /// Holds when the register starts with these bytes (or, with `not`, does not).
    Cmp {
        /// What to compare.
        reg: Reg,
        /// Holds when they differ.
        not: bool,
        /// Compare with this.
        bytes: Vec<u8>,
    },
    /// `to = (from & mask) ^ xor`.
    Bitwise {
        /// From this register.
        from: Reg,
        /// Into this one.
        to: Reg,
        /// Bits kept.
        mask: Vec<u8>,
        /// Bits flipped, as long as the mask.
        xor: Vec<u8>,
    },
    /// Holds when the key is in the set (or, with `not`, is not).
    InSet {
        /// Name of the set.
        set: String,
        /// Where the key starts.
        key: Reg,
        /// Holds when it is missing.
        not: bool,
    },
    /// Holds when the key is in the map, and loads its value.
    MapValue {
        /// Name of the map.
        set: String,
        /// Where the key starts.
        key: Reg,
        /// Where the value goes; may overlap the key.
        to: Reg,
    },
    /// Holds when the key is in the verdict map, and acts so.
    MapVerdict {
        /// Name of the map.
        set: String,
        /// Where the key starts.
        key: Reg,
    },
    /// Loads a constant.
    Load(Reg, Vec<u8>),
    /// Acts.
    Verdict(Verdict),
    /// Loads a random number below `modulus`, plus `offset`, in host order.
    Random {
        /// Bound, at least 1.
        modulus: u32,
        /// Added afterwards.
        offset: u32,
        /// Where to.
        to: Reg,
    },
    /// Translates the destination of the connection.
    Dnat {
        /// IPv4 or IPv6.
        ipv4: bool,
        /// Register of the address.
        addr: Reg,
        /// Register of the port in network order.
        port: Option<Reg>,
    },
    /// Translates the source to an address of the outgoing interface, with random ports.
    Masquerade,
    /// Loads the type (`RTN_*`, host order; 2 is local) of the packet's source or destination address.
    AddressType(FibSource, Reg),
    /// Counts packets and bytes.
    Counter,
    /// Adds an element for the packet or renews its time.
    Remember {
        /// Name of the map.
        set: String,
        /// Where the key starts.
        key: Reg,
        /// Where the value starts.
        data: Option<Reg>,
        /// Removed by itself after this time without renewal.
        timeout: Duration,
    },
    /// Removes the packet's element.
    Forget {
        /// Name of the map.
        set: String,
        /// Where the key starts.
        key: Reg,
        /// For maps, where the value starts; the kernel wants it but does not look at it (`nft_dynset_init`).
        data: Option<Reg>,
    },
    /// Answers with a TCP reset.
    RejectTcp,
    /// Answers with ICMP or ICMPv6 port unreachable, whichever the packet's family has.
    RejectPort,
    /// The same where the rule has established the family (true is IPv4).
    RejectPortOf(bool),
    /// Writes to the kernel log.
    Log {
        /// Start of the line.
        prefix: String,
    },
}

impl Expr {
    /// Holds when the register starts with `bytes`.
    pub fn equals(reg: Reg, bytes: impl Into<Vec<u8>>) -> Self {
        Self::Cmp { reg, not: false, bytes: bytes.into() }
    }

    /// Holds when the register differs from `bytes`.
    pub fn differs(reg: Reg, bytes: impl Into<Vec<u8>>) -> Self {
        Self::Cmp { reg, not: true, bytes: bytes.into() }
    }

    pub(super) fn encode(&self, message: &mut Message) {
        let element = message.begin(1);
        message.text(1, self.name());
        let data = message.begin(2);
        self.encode_data(message);
        message.end(data);
        message.end(element);
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Meta(..) | Self::SetMeta(..) => "meta",
            Self::Ct(..) => "ct",
            Self::Payload { .. } => "payload",
            Self::Cmp { .. } => "cmp",
            Self::Bitwise { .. } => "bitwise",
            Self::InSet { .. } | Self::MapValue { .. } | Self::MapVerdict { .. } => "lookup",
            Self::Load(..) | Self::Verdict(_) => "immediate",
            Self::Random { .. } => "numgen",
            Self::Dnat { .. } => "nat",
            Self::Masquerade => "masq",
            Self::AddressType(..) => "fib",
            Self::Counter => "counter",
            Self::Remember { .. } | Self::Forget { .. } => "dynset",
            Self::RejectTcp | Self::RejectPort | Self::RejectPortOf(_) => "reject",
            Self::Log { .. } => "log",
        }
    }

    fn encode_data(&self, m: &mut Message) {
        match self {
            Self::Meta(key, to) => {
                m.be32(1, to.number()).be32(2, key.number());
            }
            Self::SetMeta(key, from) => {
                m.be32(2, key.number()).be32(3, from.number());
            }
            Self::Ct(key, to) => {
                m.be32(1, to.number()).be32(2, if *key == CtKey::State { 0 } else { 2 });
            }
            Self::Payload { base, offset, len, to } => {
                let base = if *base == PayloadBase::Network { 1 } else { 2 };
                m.be32(1, to.number()).be32(2, base).be32(3, *offset).be32(4, *len);
            }
            Self::Cmp { reg, not, bytes } => {
                m.be32(1, reg.number()).be32(2, u32::from(*not));
                value(3, bytes, m);
            }
            Self::Bitwise { from, to, mask, xor } => {
                let len = u32::try_from(mask.len()).expect("invariant: at most 64 bytes");
                m.be32(1, from.number()).be32(2, to.number()).be32(3, len);
                value(4, mask, m);
                value(5, xor, m);
            }
            Self::Load(to, bytes) => {
                m.be32(1, to.number());
                value(2, bytes, m);
            }
            Self::Verdict(verdict) => {
                m.be32(1, 0);
                verdict.encode(2, m);
            }
            Self::Random { modulus, offset, to } => {
                m.be32(1, to.number()).be32(2, *modulus).be32(3, 1).be32(4, *offset);
            }
            _ => self.encode_action(m),
        }
    }

    fn encode_action(&self, m: &mut Message) {
        match self {
            Self::InSet { set, key, not } => {
                m.text(1, set).be32(2, key.number()).be32(5, u32::from(*not));
            }
            Self::MapValue { set, key, to } => {
                m.text(1, set).be32(2, key.number()).be32(3, to.number());
            }
            Self::MapVerdict { set, key } => {
                m.text(1, set).be32(2, key.number()).be32(3, 0);
            }
            Self::Dnat { ipv4, addr, port } => {
                m.be32(1, 1).be32(2, if *ipv4 { 2 } else { 10 }).be32(3, addr.number());
                if let Some(port) = port {
                    m.be32(5, port.number());
                }
            }
            Self::Masquerade => {
                const RANDOM_FULLY: u32 = 1 << 4;
                m.be32(1, RANDOM_FULLY);
            }
            Self::AddressType(source, to) => {
                let flags = if *source == FibSource::Source { 1 } else { 2 };
                m.be32(1, to.number()).be32(2, 3).be32(3, flags);
            }
            Self::Remember { set, key, data, timeout } => {
                m.text(1, set).be32(3, 1).be32(4, key.number());
                if let Some(data) = data {
                    m.be32(5, data.number());
                }
                m.be64(6, u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
            }
            Self::Forget { set, key, data } => {
                m.text(1, set).be32(3, 2).be32(4, key.number());
                if let Some(data) = data {
                    m.be32(5, data.number());
                }
            }
            Self::RejectTcp => {
                m.be32(1, 1).attr(2, &[0]);
            }
            Self::RejectPort => {
                m.be32(1, 2).attr(2, &[1]);
            }
            Self::RejectPortOf(ipv4) => {
                m.be32(1, 0).attr(2, if *ipv4 { &[3] } else { &[4] });
            }
            Self::Log { prefix } => {
                m.text(2, prefix);
            }
            _ => {}
        }
    }
}

fn value(attr: u16, bytes: &[u8], message: &mut Message) {
    let nest = message.begin(attr);
    message.attr(1, bytes);
    message.end(nest);
}
