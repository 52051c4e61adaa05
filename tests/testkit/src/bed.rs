//! The network namespace of a cluster and the veth pair that joins it to the machine.
//!
//! Entered with setns(CLONE_NEWNET) only, through `nsenter --net`: `ip netns exec` would also remount /sys and hide
//! the control groups.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::command::run_blocking;

/// A namespace with one link to the machine. It is removed when it is dropped.
#[derive(Debug)]
pub struct Bed {
    slot: u8,
}

impl Bed {
    /// Makes the namespace of a slot, after whatever a killed test may have left of it.
    ///
    /// # Errors
    /// If a link cannot be made, with what `ip` said.
    pub fn new(slot: u8) -> Result<Self> {
        let bed = Self { slot };
        bed.remove();
        let (netns, host) = (bed.name(), bed.link());
        let ip = |line: String| {
            let words: Vec<&str> = std::iter::once("ip").chain(line.split_whitespace()).collect();
            run_blocking(&words)
        };
        ip(format!("netns add {netns}")).context("the end-to-end tests need iproute2 and root")?;
        ip(format!("link add {host} type veth peer name eth0 netns {netns}"))?;
        ip(format!("address add {}/30 dev {host}", bed.host_address()))?;
        ip(format!("link set {host} up"))?;
        ip(format!("-n {netns} link set lo up"))?;
        ip(format!("-n {netns} address add {}/30 dev eth0", bed.address()))?;
        ip(format!("-n {netns} link set eth0 up"))?;
        ip(format!("-n {netns} route add default via {}", bed.host_address()))?;
        Ok(bed)
    }

    /// Name of the namespace, as `ip netns` knows it.
    pub fn name(&self) -> String {
        format!("xebec-test-{}", self.slot)
    }

    /// Where the namespace can be opened.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(self.name())
    }

    /// The node's address.
    pub fn address(&self) -> IpAddr {
        Ipv4Addr::new(10, 211, self.slot, 2).into()
    }

    /// The machine's address on the pair.
    pub fn host_address(&self) -> IpAddr {
        Ipv4Addr::new(10, 211, self.slot, 1).into()
    }

    /// A program in the namespace: the words before its own.
    pub fn enter(&self) -> [String; 2] {
        ["nsenter".to_owned(), format!("--net={}", self.path().display())]
    }

    fn link(&self) -> String {
        format!("xtest{}", self.slot)
    }

    /// Deletes what there is; what is not there is no failure.
    pub fn remove(&self) {
        drop(run_blocking(&["ip", "link", "delete", &self.link()]));
        drop(run_blocking(&["ip", "netns", "delete", &self.name()]));
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.remove();
    }
}
