//! What the machine says of itself.

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use xebec_netlink::Rtnl;

/// The host name.
pub fn name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The addresses by which others reach this machine, the primary first and at most one per family: those of the
/// link that the default route leaves by, else of any link that is not the loopback.
///
/// # Errors
/// If there is none.
pub fn addresses(want_ipv4_first: bool) -> Result<Vec<IpAddr>> {
    let rtnl = Rtnl::open().context("open rtnetlink")?;
    let links = rtnl.links().context("list links")?;
    let uplink = rtnl.default_link(want_ipv4_first).context("list routes")?;
    let usable =
        |index: u32| links.iter().any(|link| link.index == index && link.name != "lo" && link.name != "xbr0");
    let mut all: Vec<_> = rtnl.addresses().context("list addresses")?;
    all.retain(|address| usable(address.link) && is_global(address.cidr.addr));
    all.sort_by_key(|address| (Some(address.link) != uplink, address.link));
    let first = |v4: bool| all.iter().map(|address| address.cidr.addr).find(|ip| ip.is_ipv4() == v4);
    let order = if want_ipv4_first { [true, false] } else { [false, true] };
    let found: Vec<IpAddr> = order.into_iter().filter_map(first).collect();
    if found.is_empty() {
        bail!("no link of this machine has an address that others can reach; give one with --node-ip");
    }
    Ok(found)
}

fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local() && !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local() && !v6.is_unspecified(),
    }
}
