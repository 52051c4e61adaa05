//! Tables of questions and answers.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;
use crate::index::{Key, ServiceData, SliceData};

fn key(name: &str) -> Key {
    ("default".to_owned(), name.to_owned())
}

fn add_service(index: &mut Index, name: &str, spec: Value) {
    let service = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap();
    index.set_service(&key(name), ServiceData::parse(&service));
}

fn add_slice(index: &mut Index, service: &str, endpoints: Value, ports: Value) {
    let slice = serde_json::from_value(json!({
        "metadata": {"name": "s", "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "endpoints": endpoints, "ports": ports
    }))
    .unwrap();
    index.set_slice(&key(&format!("{service}-1")), SliceData::parse(&slice));
}

fn index() -> Index {
    let mut index = Index::default();
    let http = json!([{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]);
    // Endpoints come before and after their Service.
    add_slice(
        &mut index,
        "db",
        json!([
            {"addresses": ["10.1.0.5"], "hostname": "db-0"},
            {"addresses": ["10.1.0.6"], "conditions": {"ready": true}},
            {"addresses": ["10.1.0.7"], "conditions": {"ready": false}}
        ]),
        json!([{"name": "sql", "port": 5432}]),
    );
    add_service(&mut index, "db", json!({"clusterIP": "None", "ports": [{"name": "sql", "port": 1}]}));
    add_service(
        &mut index,
        "web",
        json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"], "ports": http}),
    );
    add_slice(
        &mut index,
        "web",
        json!([{"addresses": ["10.1.0.9"]}]),
        json!([{"name": "http", "port": 8080}]),
    );
    add_service(&mut index, "empty", json!({"clusterIP": "None"}));
    add_service(&mut index, "out", json!({"type": "ExternalName", "externalName": "Example.com"}));
    index
}

fn asked(index: &Index, name: &str, kind: &str) -> String {
    let zone = Zone::new("cluster.local", vec!["10.0.0.10".parse().unwrap()]).unwrap();
    let name = Name::from_ascii(name).unwrap();
    let show = |records: &[Record]| {
        let mut all: Vec<String> = records.iter().map(|r| format!("{}={}", r.name, r.data)).collect();
        all.sort();
        all.join(" ")
    };
    match zone.answer(index, &name, kind.parse().unwrap()) {
        Answer::Records(answers, more) if more.is_empty() => show(&answers),
        Answer::Records(answers, more) => format!("{} + {}", show(&answers), show(&more)),
        Answer::Alias(alias) => format!("{} -> {}", show(&[alias.0]), alias.1),
        Answer::NoData => "nodata".into(),
        Answer::NxDomain => "nxdomain".into(),
        Answer::NotOurs => "not ours".into(),
    }
}

#[test]
fn names_in_the_zone() {
    let index = index();
    let cases = [
        ("web.default.svc.cluster.local.", "A", "web.default.svc.cluster.local.=10.0.0.1"),
        ("WeB.default.svc.cluster.LOCAL.", "A", "WeB.default.svc.cluster.LOCAL.=10.0.0.1"),
        ("web.default.svc.cluster.local.", "AAAA", "web.default.svc.cluster.local.=fd00::1"),
        ("web.default.svc.cluster.local.", "MX", "nodata"),
        ("db.default.svc.cluster.local.", "AAAA", "nodata"),
        (
            "db.default.svc.cluster.local.",
            "A",
            "db.default.svc.cluster.local.=10.1.0.5 db.default.svc.cluster.local.=10.1.0.6",
        ),
        ("db-0.db.default.svc.cluster.local.", "A", "db-0.db.default.svc.cluster.local.=10.1.0.5"),
        ("10-1-0-6.db.default.svc.cluster.local.", "A", "10-1-0-6.db.default.svc.cluster.local.=10.1.0.6"),
        ("10-1-0-7.db.default.svc.cluster.local.", "A", "nxdomain"),
        ("empty.default.svc.cluster.local.", "A", "nxdomain"),
        ("none.default.svc.cluster.local.", "A", "nxdomain"),
        ("web.other.svc.cluster.local.", "A", "nxdomain"),
        ("default.svc.cluster.local.", "A", "nodata"),
        ("other.svc.cluster.local.", "A", "nxdomain"),
        ("svc.cluster.local.", "A", "nodata"),
        ("cluster.local.", "A", "nodata"),
        ("a.b.web.default.svc.cluster.local.", "A", "nxdomain"),
        ("nonsense.cluster.local.", "A", "nxdomain"),
        ("ns.dns.cluster.local.", "A", "ns.dns.cluster.local.=10.0.0.10"),
        ("dns-version.cluster.local.", "TXT", "dns-version.cluster.local.=1.1.0"),
        ("1-2-3-4.default.pod.cluster.local.", "A", "1-2-3-4.default.pod.cluster.local.=1.2.3.4"),
        ("1-2-3-4.default.pod.cluster.local.", "AAAA", "nodata"),
        ("fd00--1.default.pod.cluster.local.", "AAAA", "fd00--1.default.pod.cluster.local.=fd00::1"),
        ("web.default.pod.cluster.local.", "A", "nxdomain"),
        (
            "out.default.svc.cluster.local.",
            "A",
            "out.default.svc.cluster.local.=example.com. -> example.com.",
        ),
        ("example.com.", "A", "not ours"),
    ];
    for (name, kind, wanted) in cases {
        assert_eq!(asked(&index, name, kind), wanted, "{name} {kind}");
    }
}

#[test]
fn services_of_ports() {
    let index = index();
    let cases = [
        (
            "_http._tcp.web.default.svc.cluster.local.",
            "_http._tcp.web.default.svc.cluster.local.=0 100 80 web.default.svc.cluster.local. \
             + web.default.svc.cluster.local.=10.0.0.1 web.default.svc.cluster.local.=fd00::1",
        ),
        (
            "_sql._tcp.db.default.svc.cluster.local.",
            "_sql._tcp.db.default.svc.cluster.local.=0 50 5432 10-1-0-6.db.default.svc.cluster.local. \
             _sql._tcp.db.default.svc.cluster.local.=0 50 5432 db-0.db.default.svc.cluster.local. \
             + 10-1-0-6.db.default.svc.cluster.local.=10.1.0.6 db-0.db.default.svc.cluster.local.=10.1.0.5",
        ),
        ("_http._udp.web.default.svc.cluster.local.", "nxdomain"),
        ("_none._tcp.web.default.svc.cluster.local.", "nxdomain"),
        ("_tcp.web.default.svc.cluster.local.", "nodata"),
        ("_sctp.web.default.svc.cluster.local.", "nxdomain"),
    ];
    for (name, wanted) in cases {
        assert_eq!(asked(&index, name, "SRV"), wanted, "{name}");
    }
    assert_eq!(asked(&index, "_http._tcp.web.default.svc.cluster.local.", "A"), "nodata");
}

#[test]
fn names_of_addresses() {
    let index = index();
    let v6 = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.";
    let cases = [
        ("1.0.0.10.in-addr.arpa.", "web.default.svc.cluster.local."),
        (v6, "web.default.svc.cluster.local."),
        ("5.0.1.10.in-addr.arpa.", "db-0.db.default.svc.cluster.local."),
        ("6.0.1.10.in-addr.arpa.", "10-1-0-6.db.default.svc.cluster.local."),
    ];
    for (name, wanted) in cases {
        assert_eq!(asked(&index, name, "PTR"), format!("{name}={wanted}"), "{name}");
    }
    for name in ["9.0.1.10.in-addr.arpa.", "7.0.1.10.in-addr.arpa.", "1.10.in-addr.arpa."] {
        assert_eq!(asked(&index, name, "PTR"), "not ours", "{name}");
    }
}

#[test]
fn what_is_taken_out_is_gone() {
    let mut index = index();
    index.set_slice(&key("db-1"), None);
    assert_eq!(asked(&index, "db.default.svc.cluster.local.", "A"), "nxdomain");
    assert_eq!(asked(&index, "5.0.1.10.in-addr.arpa.", "PTR"), "not ours");
    index.set_service(&key("web"), None);
    assert_eq!(asked(&index, "1.0.0.10.in-addr.arpa.", "PTR"), "not ours");
    for name in ["db", "empty", "out"] {
        index.set_service(&key(name), None);
    }
    assert_eq!(asked(&index, "default.svc.cluster.local.", "A"), "nxdomain");
}
