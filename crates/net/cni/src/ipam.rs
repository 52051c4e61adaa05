//! Choosing addresses: pure.

use std::{collections::HashSet, net::IpAddr};

use xebec_netlink::Cidr;

/// Why no address can be given.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum IpamError {
    /// All addresses are in use.
    #[error(
        "no free pod address in {cidr}: all {capacity} are in use; delete pods or give the node a larger podCIDR"
    )]
    Exhausted {
        /// The prefix.
        cidr: Cidr,
        /// Addresses it can give.
        capacity: u128,
    },
    /// A port of the node is taken.
    #[error("hostPort {port}/{protocol} is already used by sandbox {sandbox}")]
    HostPortTaken {
        /// The port.
        port: u16,
        /// Its protocol.
        protocol: crate::Protocol,
        /// Who has it.
        sandbox: String,
    },
}

/// The addresses of one prefix that pods may have. The first (network) and second (gateway) address are never given,
/// nor is an IPv4 prefix's last one (broadcast).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    cidr: Cidr,
}

/// Offsets of the first pod address.
const FIRST: u128 = 2;
/// Prefixes larger than this are used up to here: a node never has so many pods.
const MOST: u128 = 1 << 32;

impl Pool {
    /// The pool of a prefix.
    pub fn new(cidr: Cidr) -> Self {
        Self { cidr: cidr.network() }
    }

    /// How many addresses it can give.
    pub fn capacity(&self) -> u128 {
        self.end().saturating_sub(FIRST)
    }

    /// The next free address after `cursor`, the offset of the last one given, going around at the end: so an
    /// address that was just released is the last to be given again, and late packets to its former holder do not
    /// reach another pod. Returns the address and the new cursor.
    pub fn pick(&self, used: &HashSet<IpAddr>, cursor: u128) -> Result<(IpAddr, u128), IpamError> {
        let exhausted = || IpamError::Exhausted { cidr: self.cidr, capacity: self.capacity() };
        let end = self.end();
        let start = if cursor + 1 >= FIRST && cursor + 1 < end { cursor + 1 } else { FIRST };
        // One more try than addresses in use finds a free one or shows that there is none.
        let tries = self.capacity().min(u128::try_from(used.len()).unwrap_or(MOST) + 1);
        for step in 0..tries {
            let offset = FIRST + (start - FIRST + step) % self.capacity();
            let addr = self.cidr.nth(offset).ok_or_else(exhausted)?;
            if !used.contains(&addr) {
                return Ok((addr, offset));
            }
        }
        Err(exhausted())
    }

    /// Offset after the last address that may be given.
    fn end(&self) -> u128 {
        let last = self.cidr.offset_of(self.cidr.last()).unwrap_or(0);
        let reserved = u128::from(self.cidr.is_ipv4());
        (last + 1 - reserved.min(last)).min(MOST)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn pool(cidr: &str) -> Pool {
        Pool::new(cidr.parse().unwrap())
    }

    #[test]
    fn reserved_addresses_are_never_given() {
        let pool = pool("10.0.0.0/29");
        let (mut used, mut cursor, mut given) = (HashSet::new(), 0, Vec::new());
        while let Ok((addr, next)) = pool.pick(&used, cursor) {
            used.insert(addr);
            cursor = next;
            given.push(addr.to_string());
        }
        assert_eq!(given, ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
        let error = pool.pick(&used, cursor).unwrap_err().to_string();
        assert!(error.contains("10.0.0.0/29: all 5 are in use"), "{error}");
    }

    #[test]
    fn released_addresses_wait_for_their_turn() {
        let pool = pool("10.0.0.0/29");
        let used = HashSet::from(["10.0.0.3".parse().unwrap()]);
        assert_eq!(pool.pick(&used, 3).unwrap().0.to_string(), "10.0.0.4");
        assert_eq!(pool.pick(&used, 6).unwrap().0.to_string(), "10.0.0.2");
        assert_eq!(pool.pick(&used, 2).unwrap().0.to_string(), "10.0.0.4");
    }

    #[test]
    fn ipv6_has_no_broadcast_address() {
        assert_eq!(pool("fd00::/126").capacity(), 2);
        assert_eq!(pool("fd00::/64").pick(&HashSet::new(), 0).unwrap().0.to_string(), "fd00::2");
    }

    #[test]
    fn tiny_prefixes_give_nothing() {
        for cidr in ["10.0.0.0/31", "10.0.0.0/32", "fd00::/127", "fd00::/128"] {
            assert!(pool(cidr).pick(&HashSet::new(), 0).is_err(), "{cidr}");
        }
    }
}
