//! Connection tracking entries over ctnetlink: listing and deleting flows.

use std::net::{IpAddr, SocketAddr};

use crate::{
    cidr::{addr_bytes, addr_from_bytes},
    message::{self, Message},
    socket::{Error, NETFILTER, Socket},
};

const SUBSYSTEM: u16 = 1 << 8;
const MSG_NEW: u16 = SUBSYSTEM;
const MSG_GET: u16 = SUBSYSTEM | 1;
const MSG_DELETE: u16 = SUBSYSTEM | 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const NFGEN_LEN: usize = 4;

/// One tracked flow. Replies come from where the flow was translated to: `reply_source` is the endpoint that a
/// destination translation chose, or `destination` if there was none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// IP protocol number.
    pub protocol: u8,
    /// Who began.
    pub source: SocketAddr,
    /// Whom the first packet was addressed to.
    pub destination: SocketAddr,
    /// Who answers.
    pub reply_source: SocketAddr,
    /// Whom answers are addressed to.
    pub reply_destination: SocketAddr,
    /// The kernel's identity of the entry.
    pub id: u32,
}

/// A handle on the connection table of one network namespace.
#[derive(Debug)]
pub struct Conntrack {
    socket: Socket,
}

impl Conntrack {
    /// A handle on the calling thread's network namespace.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { socket: Socket::open(NETFILTER)? })
    }

    /// All flows of an IP protocol (17 is UDP) and address family.
    pub fn flows(&self, protocol: u8, ipv4: bool) -> Result<Vec<Flow>, Error> {
        let found = std::cell::RefCell::new(Vec::new());
        self.socket.dump(
            "list tracked connections",
            Message::new(MSG_GET, 0, &nfgen(ipv4)),
            || found.borrow_mut().clear(),
            |kind, body| {
                if kind == MSG_NEW {
                    found.borrow_mut().extend(parse_flow(body).filter(|flow| flow.protocol == protocol));
                }
            },
        )?;
        Ok(found.into_inner())
    }

    /// Forgets a flow; one that is gone already is no error.
    pub fn delete(&self, flow: &Flow) -> Result<(), Error> {
        let mut message = Message::new(MSG_DELETE, 0, &nfgen(flow.source.is_ipv4()));
        let tuple = message.begin(CTA_TUPLE_ORIG);
        let ip = message.begin(CTA_TUPLE_IP);
        let (source, destination) = if flow.source.is_ipv4() {
            (CTA_IP_V4_SRC, CTA_IP_V4_DST)
        } else {
            (CTA_IP_V6_SRC, CTA_IP_V6_DST)
        };
        message.attr(source, &addr_bytes(flow.source.ip()));
        message.attr(destination, &addr_bytes(flow.destination.ip()));
        message.end(ip);
        let proto = message.begin(CTA_TUPLE_PROTO);
        message.attr(CTA_PROTO_NUM, &[flow.protocol]);
        message.attr(CTA_PROTO_SRC_PORT, &flow.source.port().to_be_bytes());
        message.attr(CTA_PROTO_DST_PORT, &flow.destination.port().to_be_bytes());
        message.end(proto);
        message.end(tuple);
        // The identity keeps a new flow with the same addresses from being forgotten in its place.
        message.be32(CTA_ID, flow.id);
        match self.socket.request("delete tracked connection", message) {
            Err(error) if error.is_not_found() => Ok(()),
            other => other,
        }
    }

    /// Forgets every flow of `protocol` that `stale` picks and returns how many there were.
    pub fn delete_where(
        &self,
        protocol: u8,
        ipv4: bool,
        stale: impl Fn(&Flow) -> bool,
    ) -> Result<usize, Error> {
        let mut count = 0;
        for flow in self.flows(protocol, ipv4)?.iter().filter(|flow| stale(flow)) {
            self.delete(flow)?;
            count += 1;
        }
        Ok(count)
    }
}

fn nfgen(ipv4: bool) -> [u8; NFGEN_LEN] {
    [if ipv4 { 2 } else { 10 }, 0, 0, 0]
}

fn parse_flow(body: &[u8]) -> Option<Flow> {
    let attrs = body.get(NFGEN_LEN..)?;
    let (protocol, source, destination) = parse_tuple(message::find(attrs, CTA_TUPLE_ORIG)?)?;
    let (_, reply_source, reply_destination) = parse_tuple(message::find(attrs, CTA_TUPLE_REPLY)?)?;
    let id = message::find(attrs, CTA_ID).and_then(message::be32)?;
    Some(Flow { protocol, source, destination, reply_source, reply_destination, id })
}

fn parse_tuple(bytes: &[u8]) -> Option<(u8, SocketAddr, SocketAddr)> {
    let ip = message::find(bytes, CTA_TUPLE_IP)?;
    let proto = message::find(bytes, CTA_TUPLE_PROTO)?;
    let addr = |v4, v6| -> Option<IpAddr> {
        message::find(ip, v4).or_else(|| message::find(ip, v6)).and_then(addr_from_bytes)
    };
    let port = |kind| message::find(proto, kind).and_then(message::be16).unwrap_or(0);
    let number = *message::find(proto, CTA_PROTO_NUM)?.first()?;
    let source = SocketAddr::new(addr(CTA_IP_V4_SRC, CTA_IP_V6_SRC)?, port(CTA_PROTO_SRC_PORT));
    let destination = SocketAddr::new(addr(CTA_IP_V4_DST, CTA_IP_V6_DST)?, port(CTA_PROTO_DST_PORT));
    Some((number, source, destination))
}
