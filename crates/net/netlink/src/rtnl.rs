//! Links, addresses and routes over rtnetlink (`rtnetlink(7)`).

use std::{
    net::IpAddr,
    os::fd::{AsFd, AsRawFd},
};

use crate::{
    cidr::{Cidr, addr_bytes, addr_from_bytes},
    message::{self, CREATE, EXCL, Message, REPLACE},
    netns::NetNs,
    rtnl_types::{Address, Link, LinkSettings, Route},
    socket::{Error, ROUTE, Socket},
};

const AF_UNSPEC: u8 = 0;
const AF_INET: u8 = 2;
const AF_BRIDGE: u8 = 7;
const AF_INET6: u8 = 10;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_EXT_MASK: u16 = 29;
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_BRPORT_MODE: u16 = 4;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
/// The address is usable at once: no duplicate address detection (RFC 4862 §5.4).
const IFA_F_NODAD: u32 = 2;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_TABLE: u16 = 15;
const RT_TABLE_MAIN: u32 = 254;
const RTPROT_STATIC: u8 = 4;
const RTN_UNICAST: u8 = 1;
const SCOPE_UNIVERSE: u8 = 0;
const SCOPE_LINK: u8 = 253;
const RTNH_F_ONLINK: u32 = 4;

const IFINFO_LEN: usize = 16;
const IFADDR_LEN: usize = 8;
const RTMSG_LEN: usize = 12;

/// A handle on the interfaces and routes of one network namespace.
#[derive(Debug)]
pub struct Rtnl {
    socket: Socket,
}

impl Rtnl {
    /// A handle on the calling thread's network namespace.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { socket: Socket::open(ROUTE)? })
    }

    /// Creates a bridge; it is down and without address.
    pub fn add_bridge(&self, name: &str) -> Result<(), Error> {
        let mut message = link_message(RTM_NEWLINK, CREATE | EXCL, 0, None);
        message.text(IFLA_IFNAME, name);
        let info = message.begin(IFLA_LINKINFO);
        message.text(IFLA_INFO_KIND, "bridge");
        message.end(info);
        self.socket.request(&format!("create bridge {name}"), message)
    }

    /// Creates a pair of interfaces, the second one in `peer_ns` from the start, with MTU `mtu` in bytes on both.
    pub fn add_veth(&self, name: &str, peer: &str, peer_ns: &NetNs, mtu: u32) -> Result<(), Error> {
        let mut message = link_message(RTM_NEWLINK, CREATE | EXCL, 0, None);
        message.text(IFLA_IFNAME, name).u32(IFLA_MTU, mtu);
        let info = message.begin(IFLA_LINKINFO);
        message.text(IFLA_INFO_KIND, "veth");
        let data = message.begin(IFLA_INFO_DATA);
        let peer_info = message.begin(VETH_INFO_PEER);
        message.raw(&[0; IFINFO_LEN]);
        message.text(IFLA_IFNAME, peer).u32(IFLA_MTU, mtu);
        message.attr(IFLA_NET_NS_FD, &peer_ns.as_fd().as_raw_fd().to_ne_bytes());
        message.end(peer_info);
        message.end(data);
        message.end(info);
        self.socket.request(&format!("create veth pair {name}, {peer}"), message)
    }

    /// Changes settings of the interface with index `link`.
    pub fn set_link(&self, link: u32, settings: &LinkSettings) -> Result<(), Error> {
        let mut message = link_message(RTM_NEWLINK, 0, link, settings.up);
        if let Some(mtu) = settings.mtu {
            message.u32(IFLA_MTU, mtu);
        }
        if let Some(mac) = settings.mac {
            message.attr(IFLA_ADDRESS, &mac);
        }
        if let Some(master) = settings.master {
            message.u32(IFLA_MASTER, master);
        }
        if let Some(alias) = &settings.alias {
            message.text(IFLA_IFALIAS, alias);
        }
        self.socket.request(&format!("set link {link}"), message)
    }

    /// Lets a bridge send frames back out of the port they came from.
    pub fn set_hairpin(&self, link: u32, on: bool) -> Result<(), Error> {
        let mut body = [0; IFINFO_LEN];
        body[0] = AF_BRIDGE;
        body[4..8].copy_from_slice(&link.to_ne_bytes());
        let mut message = Message::new(RTM_SETLINK, 0, &body);
        let info = message.begin(IFLA_PROTINFO);
        message.attr(IFLA_BRPORT_MODE, &[u8::from(on)]);
        message.end(info);
        self.socket.request(&format!("set hairpin mode of link {link}"), message)
    }

    /// Removes an interface (and the other end of a veth pair).
    pub fn delete_link(&self, link: u32) -> Result<(), Error> {
        self.socket.request(&format!("delete link {link}"), link_message(RTM_DELLINK, 0, link, None))
    }

    /// All interfaces.
    pub fn links(&self) -> Result<Vec<Link>, Error> {
        self.list("list links", get_link(), RTM_NEWLINK, parse_link)
    }

    /// The interface called `name`.
    pub fn link(&self, name: &str) -> Result<Option<Link>, Error> {
        if name.len() >= libc::IFNAMSIZ {
            return Ok(None);
        }
        let mut message = get_link();
        message.text(IFLA_IFNAME, name);
        let mut found = None;
        let answered = self.socket.get(&format!("find link {name}"), message, |kind, body| {
            if kind == RTM_NEWLINK {
                found = parse_link(body);
            }
        });
        match answered {
            Err(error) if error.is_not_found() => Ok(None),
            other => other.map(|()| found),
        }
    }

    /// Gives an interface an address, without duplicate address detection; an address that is there is no error.
    pub fn add_address(&self, link: u32, cidr: Cidr) -> Result<(), Error> {
        let message = address_message(RTM_NEWADDR, CREATE | REPLACE, link, cidr);
        self.socket.request(&format!("add address {cidr} to link {link}"), message)
    }

    /// Takes an address from an interface.
    pub fn delete_address(&self, link: u32, cidr: Cidr) -> Result<(), Error> {
        let message = address_message(RTM_DELADDR, 0, link, cidr);
        self.socket.request(&format!("delete address {cidr} of link {link}"), message)
    }

    /// All addresses of all interfaces.
    pub fn addresses(&self) -> Result<Vec<Address>, Error> {
        let message = Message::new(RTM_GETADDR, 0, &[0; IFADDR_LEN]);
        self.list("list addresses", message, RTM_NEWADDR, parse_address)
    }

    /// Adds a route or replaces the one to the same destination with the same metric.
    pub fn replace_route(&self, route: &Route) -> Result<(), Error> {
        let message = route_message(RTM_NEWROUTE, CREATE | REPLACE, route);
        self.socket.request(&format!("add route to {}", route.destination), message)
    }

    /// Removes a route.
    pub fn delete_route(&self, route: &Route) -> Result<(), Error> {
        let message = route_message(RTM_DELROUTE, 0, route);
        self.socket.request(&format!("delete route to {}", route.destination), message)
    }

    /// All unicast routes of the main table.
    pub fn routes(&self) -> Result<Vec<Route>, Error> {
        let message = Message::new(RTM_GETROUTE, 0, &[0; RTMSG_LEN]);
        self.list("list routes", message, RTM_NEWROUTE, parse_route)
    }

    /// The interface that the default route of a family leaves through.
    pub fn default_link(&self, ipv4: bool) -> Result<Option<u32>, Error> {
        let routes = self.routes()?;
        let best = routes
            .iter()
            .filter(|route| route.destination.prefix == 0 && route.destination.is_ipv4() == ipv4)
            .min_by_key(|route| route.metric);
        Ok(best.map(|route| route.link).filter(|link| *link != 0))
    }

    fn list<T>(
        &self,
        operation: &str,
        message: Message,
        wanted: u16,
        parse: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let found = std::cell::RefCell::new(Vec::new());
        self.socket.dump(
            operation,
            message,
            || found.borrow_mut().clear(),
            |kind, body| {
                if kind == wanted {
                    found.borrow_mut().extend(parse(body));
                }
            },
        )?;
        Ok(found.into_inner())
    }
}

/// A request for one interface or all, without the counters, which cost the kernel most of the answer.
fn get_link() -> Message {
    let mut message = Message::new(RTM_GETLINK, 0, &[0; IFINFO_LEN]);
    message.u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    message
}

fn link_message(kind: u16, flags: u16, index: u32, up: Option<bool>) -> Message {
    let mut body = [0; IFINFO_LEN];
    body[0] = AF_UNSPEC;
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    if let Some(up) = up {
        body[8..12].copy_from_slice(&u32::from(up).to_ne_bytes());
        body[12..16].copy_from_slice(&1u32.to_ne_bytes());
    }
    Message::new(kind, flags, &body)
}

fn family(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { AF_INET } else { AF_INET6 }
}

fn address_message(kind: u16, flags: u16, link: u32, cidr: Cidr) -> Message {
    let mut body = [0; IFADDR_LEN];
    body[0] = family(cidr.addr);
    body[1] = cidr.prefix;
    body[4..8].copy_from_slice(&link.to_ne_bytes());
    let mut message = Message::new(kind, flags, &body);
    let bytes = addr_bytes(cidr.addr);
    message.attr(IFA_LOCAL, &bytes).attr(IFA_ADDRESS, &bytes);
    if kind == RTM_NEWADDR && !cidr.is_ipv4() {
        message.u32(IFA_FLAGS, IFA_F_NODAD);
    }
    message
}

fn route_message(kind: u16, flags: u16, route: &Route) -> Message {
    let mut body = [0; RTMSG_LEN];
    let scope = if route.gateway.is_some() { SCOPE_UNIVERSE } else { SCOPE_LINK };
    body[0] = family(route.destination.addr);
    body[1] = route.destination.prefix;
    body[4] = RT_TABLE_MAIN.to_le_bytes()[0];
    body[5] = RTPROT_STATIC;
    // IPv6 knows no scopes (`inet6_rtm_newroute` ignores the field).
    body[6] = scope;
    body[7] = RTN_UNICAST;
    if route.onlink {
        body[8..12].copy_from_slice(&RTNH_F_ONLINK.to_ne_bytes());
    }
    let mut message = Message::new(kind, flags, &body);
    if route.destination.prefix > 0 {
        message.attr(RTA_DST, &addr_bytes(route.destination.network().addr));
    }
    if let Some(gateway) = route.gateway {
        message.attr(RTA_GATEWAY, &addr_bytes(gateway));
    }
    if route.link != 0 {
        message.u32(RTA_OIF, route.link);
    }
    if let Some(source) = route.source {
        message.attr(RTA_PREFSRC, &addr_bytes(source));
    }
    if route.metric != 0 {
        message.u32(RTA_PRIORITY, route.metric);
    }
    message
}

fn parse_link(body: &[u8]) -> Option<Link> {
    let attrs = body.get(IFINFO_LEN..)?;
    let mut link =
        Link { index: message::u32_at(body, 4)?, flags: message::u32_at(body, 8)?, ..Link::default() };
    for (kind, value) in message::attrs(attrs) {
        match kind {
            IFLA_IFNAME => link.name = message::text(value),
            IFLA_ADDRESS => link.mac = value.to_vec(),
            IFLA_MTU => link.mtu = message::u32_at(value, 0)?,
            IFLA_MASTER => link.master = message::u32_at(value, 0),
            IFLA_IFALIAS => link.alias = message::text(value),
            IFLA_LINKINFO => {
                link.kind = message::find(value, IFLA_INFO_KIND).map(message::text).unwrap_or_default();
            }
            _ => {}
        }
    }
    Some(link)
}

fn parse_address(body: &[u8]) -> Option<Address> {
    let attrs = body.get(IFADDR_LEN..)?;
    // On point-to-point links IFA_ADDRESS is the other end, IFA_LOCAL ours; IPv6 has only IFA_ADDRESS.
    let bytes = message::find(attrs, IFA_LOCAL).or_else(|| message::find(attrs, IFA_ADDRESS))?;
    let cidr = Cidr { addr: addr_from_bytes(bytes)?, prefix: body[1] };
    Some(Address { link: message::u32_at(body, 4)?, cidr, scope: body[3] })
}

fn parse_route(body: &[u8]) -> Option<Route> {
    let attrs = body.get(RTMSG_LEN..)?;
    let table = message::find(attrs, RTA_TABLE).and_then(|value| message::u32_at(value, 0));
    if table.unwrap_or(u32::from(body[4])) != RT_TABLE_MAIN || body[7] != RTN_UNICAST {
        return None;
    }
    let unspecified = match body[0] {
        AF_INET => IpAddr::from([0; 4]),
        AF_INET6 => IpAddr::from([0; 16]),
        _ => return None,
    };
    let addr = |kind| message::find(attrs, kind).and_then(addr_from_bytes);
    let number = |kind| message::find(attrs, kind).and_then(|value| message::u32_at(value, 0)).unwrap_or(0);
    Some(Route {
        destination: Cidr { addr: addr(RTA_DST).unwrap_or(unspecified), prefix: body[1] },
        gateway: addr(RTA_GATEWAY),
        link: number(RTA_OIF),
        source: addr(RTA_PREFSRC),
        onlink: message::u32_at(body, 8)? & RTNH_F_ONLINK != 0,
        metric: number(RTA_PRIORITY),
    })
}
