//! A range of addresses in CIDR notation.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Text that is no CIDR.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a CIDR: expected an address, a slash and a prefix length, as in 10.96.0.0/16")]
pub struct IpRangeError(String);

/// A range of addresses, as in `10.96.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpRange {
    first: IpAddr,
    prefix: u8,
}

impl IpRange {
    /// Whether the addresses are of IPv6.
    pub fn is_ipv6(&self) -> bool {
        self.first.is_ipv6()
    }

    /// The family as Services name it: `IPv4` or `IPv6`.
    pub fn family(&self) -> &'static str {
        if self.is_ipv6() { "IPv6" } else { "IPv4" }
    }

    /// How many addresses can be given out. The first (and for IPv4 the last) cannot. At most 65,536 are used.
    pub fn usable(&self) -> u32 {
        let bits = if self.is_ipv6() { 128 } else { 32 } - u32::from(self.prefix);
        let all: u32 = if bits >= 16 { 1 << 16 } else { 1 << bits };
        all.saturating_sub(if self.is_ipv6() { 1 } else { 2 })
    }

    /// The address at `offset` from the first; offset 1 is the first usable one.
    pub fn nth(&self, offset: u32) -> IpAddr {
        match self.first {
            IpAddr::V4(ip) => Ipv4Addr::from(u32::from(ip).wrapping_add(offset)).into(),
            IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip).wrapping_add(offset.into())).into(),
        }
    }

    /// Whether the address can be given out: it lies inside and is neither network nor broadcast address.
    pub fn contains_usable(&self, ip: IpAddr) -> bool {
        let offset = match (self.first, ip) {
            (IpAddr::V4(first), IpAddr::V4(ip)) => {
                u32::from(ip).checked_sub(u32::from(first)).map(u128::from)
            }
            (IpAddr::V6(first), IpAddr::V6(ip)) => u128::from(ip).checked_sub(u128::from(first)),
            _ => None,
        };
        let bits = if self.is_ipv6() { 128 } else { 32 } - u32::from(self.prefix);
        let size = 1u128.checked_shl(bits).unwrap_or(u128::MAX);
        let last_excluded = if self.is_ipv6() { size } else { size - 1 };
        offset.is_some_and(|o| o > 0 && o < last_excluded)
    }
}

impl FromStr for IpRange {
    type Err = IpRangeError;

    fn from_str(text: &str) -> Result<Self, IpRangeError> {
        let bad = || IpRangeError(text.to_owned());
        let (ip, prefix) = text.split_once('/').ok_or_else(bad)?;
        let ip: IpAddr = ip.parse().map_err(|_| bad())?;
        let prefix: u8 = prefix.parse().map_err(|_| bad())?;
        let first = match ip {
            IpAddr::V4(v4) if prefix <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                Ipv4Addr::from(u32::from(v4) & mask).into()
            }
            IpAddr::V6(v6) if prefix <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                Ipv6Addr::from(u128::from(v6) & mask).into()
            }
            _ => return Err(bad()),
        };
        Ok(Self { first, prefix })
    }
}

impl fmt::Display for IpRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn network_and_broadcast_are_not_given_out() {
        let range: IpRange = "10.96.0.7/24".parse().unwrap();
        assert_eq!(range.to_string(), "10.96.0.0/24");
        assert_eq!((range.usable(), range.nth(1).to_string()), (254, "10.96.0.1".to_owned()));
        for (ip, inside) in
            [("10.96.0.0", false), ("10.96.0.1", true), ("10.96.0.255", false), ("10.97.0.1", false)]
        {
            assert_eq!(range.contains_usable(ip.parse().unwrap()), inside, "{ip}");
        }
        let v6: IpRange = "fd00::/108".parse().unwrap();
        assert!(v6.contains_usable("fd00::ffff".parse().unwrap()) && v6.usable() == 65535);
        assert!("10.0.0.0/33".parse::<IpRange>().is_err() && "x/8".parse::<IpRange>().is_err());
    }
}
