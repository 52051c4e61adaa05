//! From a name to records, as the Kubernetes DNS specification 1.1.0 says. Where it is silent, as CoreDNS answers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::index::{Entry, Index, Kind, Port};

/// How long answers may be kept, in seconds (CoreDNS's default).
pub const TTL: u32 = 5;
/// The version of the specification, which `dns-version.<zone>` tells.
const DNS_VERSION: &str = "1.1.0";

/// What a zone says about a question.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// These records, and others that will be asked for next.
    Records(Vec<Record>, Vec<Record>),
    /// The name exists, without records of this type.
    NoData,
    /// There is no such name.
    NxDomain,
    /// Another name: this record, and whatever that name has.
    Alias(Box<(Record, Name)>),
    /// The name is none of ours.
    NotOurs,
}

/// The cluster's domain.
#[derive(Debug, Clone)]
pub struct Zone {
    origin: Name,
    /// Labels in lower case, last one first.
    labels: Vec<String>,
    /// Our own addresses, which `ns.dns.<zone>` has.
    addresses: Vec<IpAddr>,
}

/// A question being answered: the name as it was asked, so that records repeat its case.
struct Question<'a> {
    name: &'a Name,
    kind: RecordType,
}

impl Zone {
    /// The zone of a domain such as `cluster.local`. `None`: it is no domain name.
    pub fn new(domain: &str, addresses: Vec<IpAddr>) -> Option<Self> {
        let mut origin = Name::from_ascii(domain).ok()?;
        origin.set_fqdn(true);
        let labels =
            origin.to_lowercase().iter().rev().map(|l| String::from_utf8_lossy(l).into_owned()).collect();
        Some(Self { origin, labels, addresses })
    }

    /// The record that goes with negative answers.
    pub fn soa(&self) -> Record {
        let under = |label: &str| self.under(&[label]);
        let serial = 1;
        let soa = SOA::new(self.under(&["ns", "dns"]), under("hostmaster"), serial, 7200, 1800, 86400, TTL);
        Record::from_rdata(self.origin.clone(), TTL, RData::SOA(soa))
    }

    /// Whether a name lies in the zone.
    pub fn contains(&self, name: &Name) -> bool {
        self.origin.zone_of(name)
    }

    /// Answers a question.
    pub fn answer(&self, index: &Index, name: &Name, kind: RecordType) -> Answer {
        let lower = name.to_lowercase();
        let labels: Vec<&str> = lower.iter().rev().map(|l| std::str::from_utf8(l).unwrap_or("")).collect();
        let question = Question { name, kind };
        if self.labels.len() <= labels.len()
            && self.labels.iter().zip(&labels).all(|(own, label)| own == label)
        {
            return self.inside(index, &question, &labels[self.labels.len()..]);
        }
        if labels.starts_with(&["arpa"]) {
            return self.reverse(index, &question);
        }
        Answer::NotOurs
    }

    /// `path` holds the labels below the zone, last one first.
    fn inside(&self, index: &Index, q: &Question<'_>, path: &[&str]) -> Answer {
        match path {
            [] => self.apex(q),
            ["dns-version"] if q.is(RecordType::TXT) => {
                q.records([RData::TXT(TXT::new(vec![DNS_VERSION.to_owned()]))])
            }
            ["dns-version"] | ["dns"] | ["svc"] | ["pod"] | ["pod", _] => Answer::NoData,
            ["dns", "ns"] => q.addresses(&self.addresses),
            ["svc", namespace] if index.has_namespace(namespace) => Answer::NoData,
            ["pod", _, host] => match undashed(host) {
                Some(ip) => q.addresses(&[ip]),
                None => Answer::NxDomain,
            },
            ["svc", namespace, service, rest @ ..] => match index.service(namespace, service) {
                Some(entry) => self.service(q, (namespace, service), entry, rest),
                None => Answer::NxDomain,
            },
            _ => Answer::NxDomain,
        }
    }

    fn apex(&self, q: &Question<'_>) -> Answer {
        match q.kind {
            RecordType::SOA => Answer::Records(vec![self.soa()], Vec::new()),
            RecordType::NS => {
                let server = self.under(&["ns", "dns"]);
                let addresses = self.addresses.iter().map(|ip| address_record(&server, *ip)).collect();
                let record = Record::from_rdata(q.name.clone(), TTL, RData::NS(NS(server)));
                Answer::Records(vec![record], addresses)
            }
            _ => Answer::NoData,
        }
    }

    fn service(&self, q: &Question<'_>, key: (&str, &str), entry: &Entry, rest: &[&str]) -> Answer {
        if let Kind::External(target) = &entry.data.kind {
            return if rest.is_empty() { alias(q, target) } else { Answer::NxDomain };
        }
        match rest {
            [] if q.is(RecordType::SRV) => self.srv(q, key, entry, |_| true),
            [] => found(entry.addresses(), |ips| q.addresses(ips)),
            [protocol, port] if protocol.starts_with('_') && port.starts_with('_') => {
                let wanted = |p: &Port| p.name == port[1..] && p.protocol == protocol[1..];
                match self.srv(q, key, entry, wanted) {
                    Answer::Records(..) if !q.is(RecordType::SRV) => Answer::NoData,
                    answer => answer,
                }
            }
            [protocol] if protocol.starts_with('_') => {
                let known = entry.data.ports.iter().any(|p| p.protocol == protocol[1..]);
                if known { Answer::NoData } else { Answer::NxDomain }
            }
            [host] => {
                let of_host = entry.hosts.iter().filter(|e| e.host == *host);
                found(of_host.map(|e| e.ip).collect(), |ips| q.addresses(ips))
            }
            _ => Answer::NxDomain,
        }
    }

    fn srv(
        &self,
        q: &Question<'_>,
        (namespace, service): (&str, &str),
        entry: &Entry,
        wanted: impl Fn(&Port) -> bool,
    ) -> Answer {
        let mut targets: Vec<(Name, u16, Vec<IpAddr>)> = Vec::new();
        match &entry.data.kind {
            Kind::ClusterIp(ips) => {
                let ports = entry.data.ports.iter().filter(|p| wanted(p));
                let name = self.under(&[service, namespace, "svc"]);
                targets.extend(ports.map(|p| (name.clone(), p.number, ips.clone())));
            }
            _ => {
                let hosts = entry.endpoints_with(wanted);
                targets.extend(
                    hosts.into_iter().map(|((host, port), ips)| {
                        (self.under(&[host, service, namespace, "svc"]), port, ips)
                    }),
                );
            }
        }
        if targets.is_empty() {
            return Answer::NxDomain;
        }
        let weight = u16::try_from(100 / targets.len()).unwrap_or(1).max(1);
        let (mut answers, mut more) = (Vec::new(), Vec::new());
        for (target, port, ips) in targets {
            for record in ips.into_iter().map(|ip| address_record(&target, ip)) {
                if !more.contains(&record) {
                    more.push(record);
                }
            }
            let srv = RData::SRV(SRV::new(0, weight, port, target));
            answers.push(Record::from_rdata(q.name.clone(), TTL, srv));
        }
        Answer::Records(answers, more)
    }

    /// Addresses of Services and of endpoints of headless Services have names; others are the upstream's.
    fn reverse(&self, index: &Index, q: &Question<'_>) -> Answer {
        let Some(ip) = address_of(q.name) else { return Answer::NotOurs };
        let mut names = Vec::new();
        for ((namespace, service), entry) in index.of_address(ip) {
            match &entry.data.kind {
                Kind::ClusterIp(_) => names.push(self.under(&[service, namespace, "svc"])),
                _ => {
                    let hosts = entry.hosts.iter().filter(|e| e.ip == ip);
                    names.extend(hosts.map(|e| self.under(&[&e.host, service, namespace, "svc"])));
                }
            }
        }
        match (names.is_empty(), q.is(RecordType::PTR)) {
            (true, _) => Answer::NotOurs,
            (false, true) => q.records(names.into_iter().map(|name| RData::PTR(PTR(name)))),
            (false, false) => Answer::NoData,
        }
    }

    fn under(&self, labels: &[&str]) -> Name {
        let labels = labels.iter().map(|l| l.as_bytes()).chain(self.origin.iter());
        Name::from_labels(labels).unwrap_or_else(|_| self.origin.clone())
    }
}

impl Question<'_> {
    fn is(&self, kind: RecordType) -> bool {
        self.kind == kind || self.kind == RecordType::ANY
    }

    fn records(&self, data: impl IntoIterator<Item = RData>) -> Answer {
        let records = data.into_iter().map(|data| Record::from_rdata(self.name.clone(), TTL, data));
        Answer::Records(records.collect(), Vec::new())
    }

    fn addresses(&self, ips: &[IpAddr]) -> Answer {
        let wanted = |ip: &&IpAddr| self.is(if ip.is_ipv4() { RecordType::A } else { RecordType::AAAA });
        let records: Vec<Record> =
            ips.iter().filter(wanted).map(|ip| address_record(self.name, *ip)).collect();
        if records.is_empty() { Answer::NoData } else { Answer::Records(records, Vec::new()) }
    }
}

fn found(ips: Vec<IpAddr>, then: impl FnOnce(&[IpAddr]) -> Answer) -> Answer {
    if ips.is_empty() { Answer::NxDomain } else { then(&ips) }
}

fn alias(q: &Question<'_>, target: &str) -> Answer {
    let Ok(mut target) = Name::from_ascii(target) else { return Answer::NoData };
    target.set_fqdn(true);
    let record = Record::from_rdata(q.name.clone(), TTL, RData::CNAME(CNAME(target.clone())));
    Answer::Alias(Box::new((record, target)))
}

fn address_record(name: &Name, ip: IpAddr) -> Record {
    let data = match ip {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    };
    Record::from_rdata(name.clone(), TTL, data)
}

/// The address that a pod's name spells.
fn undashed(label: &str) -> Option<IpAddr> {
    let v4 = label.replace('-', ".").parse::<Ipv4Addr>().map(IpAddr::V4);
    v4.or_else(|_| label.replace('-', ":").parse::<Ipv6Addr>().map(IpAddr::V6)).ok()
}

/// The address that a whole reverse name spells.
fn address_of(name: &Name) -> Option<IpAddr> {
    let net = name.parse_arpa_name().ok()?;
    let whole = if net.addr().is_ipv4() { 32 } else { 128 };
    (net.prefix_len() == whole).then(|| net.addr())
}

#[cfg(test)]
#[path = "zone_tests.rs"]
mod tests;
