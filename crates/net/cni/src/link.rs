//! Making the bridge and the pods' links.

use std::net::IpAddr;

use xebec_netlink::{Cidr, LinkSettings, NetNs, Route, Rtnl, sysctl};

use crate::{config::NetworkConfig, error::NetworkError, state::PodRecord};

/// Name of the pod's interface.
pub(crate) const POD_INTERFACE: &str = "eth0";
const DEFAULT_MTU: u32 = 1500;

/// Makes or adopts the bridge and returns the pods' MTU in bytes.
pub(crate) fn setup_bridge(rtnl: &Rtnl, config: &NetworkConfig) -> Result<u32, NetworkError> {
    let mtu = match config.mtu {
        Some(mtu) => mtu,
        None => uplink_mtu(rtnl)?,
    };
    let name = &config.bridge;
    if rtnl.link(name)?.is_none() {
        rtnl.add_bridge(name)?;
    }
    let Some(bridge) = rtnl.link(name)?.filter(|link| link.kind == "bridge") else {
        let found = rtnl.link(name)?.map_or_else(|| "gone".to_owned(), |link| format!("a {:?}", link.kind));
        return Err(NetworkError::Foreign { name: name.clone(), found, wanted: "a bridge" });
    };
    set_node_sysctls(rtnl, config)?;
    let gateways = config.gateways();
    // A bridge without an address of its own takes its ports' and changes it as they come and go.
    let mac = gateways.first().map(|gateway| mac_for(gateway.addr));
    rtnl.set_link(bridge.index, &LinkSettings { up: Some(true), mac, mtu: Some(mtu), ..Default::default() })?;
    for stale in rtnl.addresses()? {
        let ours = gateways.contains(&stale.cidr);
        if stale.link == bridge.index && stale.scope == 0 && !ours {
            rtnl.delete_address(bridge.index, stale.cidr)?;
        }
    }
    for gateway in &gateways {
        rtnl.add_address(bridge.index, *gateway)?;
    }
    for cidr in &config.service_cidrs {
        let Some(gateway) = gateways.iter().find(|gateway| gateway.is_ipv4() == cidr.is_ipv4()) else {
            continue;
        };
        // Packets to Services are translated before they would leave; without a route they are never made.
        rtnl.replace_route(&Route {
            destination: cidr.network(),
            gateway: None,
            link: bridge.index,
            source: cidr.is_ipv4().then_some(gateway.addr),
            onlink: false,
            metric: 0,
        })?;
    }
    Ok(mtu)
}

fn set_node_sysctls(rtnl: &Rtnl, config: &NetworkConfig) -> Result<(), NetworkError> {
    let bridge = &config.bridge;
    if config.pod_cidrs.iter().any(Cidr::is_ipv4) {
        sysctl::set("ipv4/ip_forward", "1")?;
    }
    // Pods of one node talk through the bridge's own address: the kernel would tell them to go directly, past the
    // translation of Services. The larger of both values counts (ip-sysctl.rst).
    sysctl::set_if_present("ipv4/conf/all/send_redirects", "0")?;
    sysctl::set_if_present(&format!("ipv4/conf/{bridge}/send_redirects"), "0")?;
    if config.pod_cidrs.iter().any(|cidr| !cidr.is_ipv4()) {
        // A router does not listen to router advertisements unless told to (accept_ra 2).
        let uplink = rtnl.default_link(false)?;
        let name = rtnl.links()?.into_iter().find(|link| Some(link.index) == uplink).map(|link| link.name);
        let key = name.map(|name| format!("ipv6/conf/{name}/accept_ra"));
        if let Some(key) = key.filter(|key| sysctl::get(key).as_deref() == Some("1")) {
            sysctl::set(&key, "2")?;
        }
        sysctl::set("ipv6/conf/all/forwarding", "1")?;
        sysctl::set_if_present(&format!("ipv6/conf/{bridge}/disable_ipv6"), "0")?;
        sysctl::set_if_present(&format!("ipv6/conf/{bridge}/accept_dad"), "0")?;
    }
    Ok(())
}

fn uplink_mtu(rtnl: &Rtnl) -> Result<u32, NetworkError> {
    let uplink = match rtnl.default_link(true)? {
        Some(link) => Some(link),
        None => rtnl.default_link(false)?,
    };
    let links = rtnl.links()?;
    Ok(links.iter().find(|link| Some(link.index) == uplink).map_or(DEFAULT_MTU, |link| link.mtu))
}

/// Gives a pod its link; one that is complete is left alone, one that is not is made anew.
pub(crate) fn connect(
    rtnl: &Rtnl,
    config: &NetworkConfig,
    pod: &PodRecord,
    mtu: u32,
) -> Result<(), NetworkError> {
    let netns = NetNs::open(&pod.netns)?;
    if verify(rtnl, config, pod)?.is_none() {
        return Ok(());
    }
    let bridge = rtnl.link(&config.bridge)?.ok_or_else(|| NetworkError::Foreign {
        name: config.bridge.clone(),
        found: "missing".to_owned(),
        wanted: "a bridge",
    })?;
    disconnect(rtnl, pod)?;
    netns.run(remove_inside)??;
    rtnl.add_veth(&pod.host_interface, POD_INTERFACE, &netns, mtu)?;
    let Some(port) = rtnl.link(&pod.host_interface)? else {
        return Err(NetworkError::Broken {
            sandbox: format!("{}/{}", pod.namespace, pod.name),
            problem: format!("{} vanished while it was set up", pod.host_interface),
        });
    };
    sysctl::set_if_present(&format!("ipv6/conf/{}/disable_ipv6", pod.host_interface), "1")?;
    // `IFALIASZ` is 256; names are at most 63 + 253 bytes.
    let alias: String = format!("{}/{}", pod.namespace, pod.name).chars().take(200).collect();
    let settings = LinkSettings {
        up: Some(true),
        master: Some(bridge.index),
        alias: Some(alias),
        ..LinkSettings::default()
    };
    rtnl.set_link(port.index, &settings)?;
    rtnl.set_hairpin(port.index, true)?;
    netns.run(|| configure_inside(config, pod))?
}

/// Removes a pod's link, if it is there.
pub(crate) fn disconnect(rtnl: &Rtnl, pod: &PodRecord) -> Result<(), NetworkError> {
    let Some(link) = rtnl.link(&pod.host_interface)? else {
        return Ok(());
    };
    match rtnl.delete_link(link.index) {
        // The namespace's end may have taken it along meanwhile.
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(()),
    }
}

/// What is wrong with a pod's link, if something is.
pub(crate) fn verify(
    rtnl: &Rtnl,
    config: &NetworkConfig,
    pod: &PodRecord,
) -> Result<Option<String>, NetworkError> {
    let bridge = rtnl.link(&config.bridge)?.map(|link| link.index);
    let Some(port) = rtnl.link(&pod.host_interface)? else {
        return Ok(Some(format!("{} is missing", pod.host_interface)));
    };
    if bridge.is_none() || port.master != bridge || !port.is_up() {
        return Ok(Some(format!("{} is not an active port of {}", pod.host_interface, config.bridge)));
    }
    NetNs::open(&pod.netns)?.run(|| -> Result<_, NetworkError> {
        let rtnl = Rtnl::open()?;
        let Some(link) = rtnl.link(POD_INTERFACE)?.filter(|link| link.is_up()) else {
            return Ok(Some(format!("{POD_INTERFACE} is missing or down in the pod")));
        };
        let addresses = rtnl.addresses()?;
        let has =
            |ip: &&IpAddr| addresses.iter().any(|held| held.link == link.index && held.cidr.addr == **ip);
        if let Some(ip) = pod.ips.iter().find(|ip| !has(ip)) {
            return Ok(Some(format!("{POD_INTERFACE} lacks the address {ip} in the pod")));
        }
        if rtnl.default_link(pod.ips.first().is_none_or(IpAddr::is_ipv4))? != Some(link.index) {
            return Ok(Some("the pod lacks its default route".to_owned()));
        }
        Ok(None)
    })?
}

fn remove_inside() -> Result<(), NetworkError> {
    let rtnl = Rtnl::open()?;
    if let Some(link) = rtnl.link(POD_INTERFACE)? {
        rtnl.delete_link(link.index)?;
    }
    Ok(())
}

fn configure_inside(config: &NetworkConfig, pod: &PodRecord) -> Result<(), NetworkError> {
    let rtnl = Rtnl::open()?;
    let missing = |name: &str| NetworkError::Broken {
        sandbox: format!("{}/{}", pod.namespace, pod.name),
        problem: format!("{name} is missing in the pod"),
    };
    let lo = rtnl.link("lo")?.ok_or_else(|| missing("lo"))?;
    let eth0 = rtnl.link(POD_INTERFACE)?.ok_or_else(|| missing(POD_INTERFACE))?;
    // The bridge sends frames back to the pod, which IPv6 would take for a duplicate of its own address.
    for (key, value) in [("accept_dad", "0"), ("accept_ra", "0"), ("accept_redirects", "0")] {
        sysctl::set_if_present(&format!("ipv6/conf/{POD_INTERFACE}/{key}"), value)?;
    }
    sysctl::set_if_present(&format!("ipv4/conf/{POD_INTERFACE}/accept_redirects"), "0")?;
    sysctl::set_if_present("ipv4/conf/all/accept_redirects", "0")?;
    let up = LinkSettings { up: Some(true), ..LinkSettings::default() };
    rtnl.set_link(lo.index, &up)?;
    let mac = pod.ips.first().map(|ip| mac_for(*ip));
    rtnl.set_link(eth0.index, &LinkSettings { mac, ..up })?;
    for ip in &pod.ips {
        rtnl.add_address(eth0.index, Cidr::host(*ip))?;
        let Some(gateway) = config.gateways().into_iter().find(|gateway| gateway.is_ipv4() == ip.is_ipv4())
        else {
            continue;
        };
        let any = if ip.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        let route = |destination, via| Route {
            destination,
            gateway: via,
            link: eth0.index,
            source: None,
            onlink: false,
            metric: 0,
        };
        rtnl.replace_route(&route(Cidr::host(gateway.addr), None))?;
        rtnl.replace_route(&route(Cidr::new(any, 0), Some(gateway.addr)))?;
    }
    Ok(())
}

/// A locally administered link-layer address made from an IP address: neighbours' caches stay right when a pod with
/// the same address comes again.
pub(crate) fn mac_for(ip: IpAddr) -> [u8; 6] {
    let bytes = match ip {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(v6) => {
            let [.., a, b, c, d] = v6.octets();
            [a, b, c, d]
        }
    };
    [0x0a, 0x58, bytes[0], bytes[1], bytes[2], bytes[3]]
}
