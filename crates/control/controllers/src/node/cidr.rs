//! Dividing the cluster's pod range among nodes.

use std::net::IpAddr;

/// A range that cannot be used or has run out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// Not an address and a prefix length.
    #[error("{0:?} is not a CIDR range such as 10.244.0.0/16")]
    Malformed(String),
    /// Smaller than one node's share.
    #[error("the range {range} is smaller than one node's share (/{share})")]
    TooSmall {
        /// The range.
        range: String,
        /// Prefix length of a node's share.
        share: u8,
    },
    /// Every share is taken.
    #[error("no free pod range is left in {0}; nodes need a larger cluster CIDR")]
    Exhausted(String),
}

/// The cluster's pod range and the prefix length of a node's share: /24 for IPv4, /64 for IPv6, as upstream's
/// defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterCidr {
    text: String,
    base: u128,
    prefix: u8,
    bits: u8,
}

impl ClusterCidr {
    /// Reads a range.
    pub fn parse(text: &str) -> Result<Self, CidrError> {
        let malformed = || CidrError::Malformed(text.into());
        let (address, prefix) = text.split_once('/').ok_or_else(malformed)?;
        let address: IpAddr = address.parse().map_err(|_| malformed())?;
        let prefix: u8 = prefix.parse().map_err(|_| malformed())?;
        let (bits, base) = to_number(address);
        let range = Self { text: text.into(), base, prefix, bits };
        match prefix {
            p if p > bits => Err(malformed()),
            p if p > range.share() => Err(CidrError::TooSmall { range: text.into(), share: range.share() }),
            _ => Ok(range),
        }
    }

    fn share(&self) -> u8 {
        if self.bits == 32 { 24 } else { 64 }
    }

    /// The first share that is not in `taken`.
    pub fn next_free(&self, taken: &[String]) -> Result<String, CidrError> {
        let share = self.share();
        let shares = 1u128 << (share - self.prefix).min(24);
        let step = 1u128 << (self.bits - share);
        let mask = !0u128 << (self.bits - self.prefix).min(127);
        let base = if self.prefix == 0 { 0 } else { self.base & mask };
        (0..shares)
            .map(|i| format!("{}/{share}", to_address(self.bits, base + i * step)))
            .find(|cidr| !taken.contains(cidr))
            .ok_or_else(|| CidrError::Exhausted(self.text.clone()))
    }
}

fn to_number(address: IpAddr) -> (u8, u128) {
    match address {
        IpAddr::V4(v4) => (32, u128::from(v4.to_bits())),
        IpAddr::V6(v6) => (128, v6.to_bits()),
    }
}

fn to_address(bits: u8, number: u128) -> IpAddr {
    match bits {
        32 => IpAddr::V4(u32::try_from(number & 0xffff_ffff).unwrap_or(0).into()),
        _ => IpAddr::V6(number.into()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn nodes_get_their_share() {
        let range = ClusterCidr::parse("10.244.0.0/16").unwrap();
        assert_eq!(range.next_free(&[]).unwrap(), "10.244.0.0/24");
        assert_eq!(range.next_free(&["10.244.0.0/24".into()]).unwrap(), "10.244.1.0/24");
        let six = ClusterCidr::parse("fd00:10:244::/56").unwrap();
        assert_eq!(six.next_free(&["fd00:10:244::/64".into()]).unwrap(), "fd00:10:244:1::/64");
    }

    #[test]
    fn ranges_end() {
        let range = ClusterCidr::parse("10.1.2.0/24").unwrap();
        assert!(matches!(range.next_free(&["10.1.2.0/24".into()]), Err(CidrError::Exhausted(_))));
        assert!(matches!(ClusterCidr::parse("10.1.2.0/28"), Err(CidrError::TooSmall { .. })));
        assert!(ClusterCidr::parse("10.1.2.0").is_err());
    }
}
