//! Address prefixes.

use std::{fmt, net::IpAddr, str::FromStr};

/// An address with a prefix length (RFC 4632, RFC 4291 §2.3); host bits are kept as given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    /// The address.
    pub addr: IpAddr,
    /// Length of the network part in bits.
    pub prefix: u8,
}

/// Why a text is no prefix.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is not a prefix such as 10.0.0.0/24 or fd00::/64")]
pub struct CidrError {
    text: String,
}

impl Cidr {
    /// A prefix of `prefix` bits, cut at the length of the address family.
    pub fn new(addr: IpAddr, prefix: u8) -> Self {
        Self { addr, prefix: prefix.min(bits(addr)) }
    }

    /// The prefix that holds only `addr`.
    pub fn host(addr: IpAddr) -> Self {
        Self { addr, prefix: bits(addr) }
    }

    /// The same prefix with the host bits cleared.
    pub fn network(&self) -> Self {
        Self { addr: from_u128(self.addr, to_u128(self.addr) & self.mask()), prefix: self.prefix }
    }

    /// The last address of the prefix (the broadcast address for IPv4).
    pub fn last(&self) -> IpAddr {
        from_u128(self.addr, to_u128(self.addr) | (!self.mask() & family_mask(self.addr)))
    }

    /// The address `offset` after the first one, if it is inside.
    pub fn nth(&self, offset: u128) -> Option<IpAddr> {
        let first = to_u128(self.network().addr);
        let wanted = first.checked_add(offset)?;
        (wanted <= to_u128(self.last())).then(|| from_u128(self.addr, wanted))
    }

    /// How far `addr` is from the first address, if it is inside.
    pub fn offset_of(&self, addr: IpAddr) -> Option<u128> {
        self.contains(addr).then(|| to_u128(addr) - to_u128(self.network().addr))
    }

    /// Whether the prefix holds `addr`.
    pub fn contains(&self, addr: IpAddr) -> bool {
        addr.is_ipv4() == self.addr.is_ipv4()
            && to_u128(addr) & self.mask() == to_u128(self.addr) & self.mask()
    }

    /// Whether two prefixes share an address.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.network().addr) || other.contains(self.network().addr)
    }

    /// Whether this is an IPv4 prefix.
    pub fn is_ipv4(&self) -> bool {
        self.addr.is_ipv4()
    }

    /// The mask as address bytes, 4 or 16 of them.
    pub fn mask_bytes(&self) -> Vec<u8> {
        addr_bytes(from_u128(self.addr, self.mask()))
    }

    fn mask(&self) -> u128 {
        let host = u32::from(bits(self.addr) - self.prefix);
        family_mask(self.addr) & !1u128.checked_shl(host).map_or(u128::MAX, |bit| bit - 1)
    }
}

/// The bytes of an address in network order, 4 or 16 of them.
pub fn addr_bytes(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// The address in 4 or 16 bytes in network order.
pub fn addr_from_bytes(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(v4));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

fn bits(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { 32 } else { 128 }
}

fn family_mask(addr: IpAddr) -> u128 {
    if addr.is_ipv4() { u128::from(u32::MAX) } else { u128::MAX }
}

fn to_u128(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn from_u128(family: IpAddr, value: u128) -> IpAddr {
    match family {
        IpAddr::V4(_) => {
            let low = u32::try_from(value & u128::from(u32::MAX)).expect("invariant: masked to 32 bits");
            IpAddr::from(low.to_be_bytes())
        }
        IpAddr::V6(_) => IpAddr::from(value.to_be_bytes()),
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let wrong = || CidrError { text: text.to_owned() };
        let (addr, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let addr: IpAddr = addr.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        if prefix > bits(addr) {
            return Err(wrong());
        }
        Ok(Self { addr, prefix })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_stays_in_the_prefix() {
        let net: Cidr = "10.1.2.3/30".parse().unwrap();
        assert_eq!(net.network().to_string(), "10.1.2.0/30");
        assert_eq!(net.last().to_string(), "10.1.2.3");
        assert_eq!(net.nth(2).unwrap().to_string(), "10.1.2.2");
        assert_eq!(net.nth(4), None);
        assert_eq!(net.offset_of("10.1.2.3".parse().unwrap()), Some(3));
        assert!(!net.contains("10.1.2.4".parse().unwrap()));
        assert!(!net.contains("::1".parse().unwrap()));
    }

    #[test]
    fn whole_families_have_masks() {
        let all: Cidr = "0.0.0.0/0".parse().unwrap();
        assert_eq!(all.last().to_string(), "255.255.255.255");
        let all: Cidr = "::/0".parse().unwrap();
        assert!(all.contains("fd00::1".parse().unwrap()));
        let host = Cidr::host("fd00::1".parse().unwrap());
        assert_eq!(host.to_string(), "fd00::1/128");
        assert_eq!(host.nth(1), None);
    }

    #[test]
    fn bad_texts_are_refused() {
        for text in ["10.0.0.0", "10.0.0.0/33", "x/1", "fd00::/129", "10.0.0.0/-1"] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }
}
