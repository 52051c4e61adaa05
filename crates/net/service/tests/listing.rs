//! What an administrator sees who lists the table with the `nft` tool. Needs root.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    net::IpAddr,
    path::PathBuf,
    process::{Command, Output},
};

use xebec_netlink::NetNs;
use xebec_service::{
    Dataplane, NodeInfo, RuleConfig, ServiceInfo, ServicePortInfo, SliceEndpoint, SliceInfo, Tables, Touched,
    Transport, compile::compile,
};

/// A network namespace that is removed in the end.
struct Net {
    ns: NetNs,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Net {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("xebec-nft-").tempdir_in("/run").unwrap();
        let path = dir.path().join("ns");
        Self { ns: NetNs::create(&path).unwrap(), path, _dir: dir }
    }

    fn nft(&self, arguments: &[&str]) -> Output {
        self.ns.run(|| Command::new("nft").args(arguments).output().unwrap()).unwrap()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let _ = NetNs::remove(&self.path);
    }
}

fn port(transport: Transport) -> ServicePortInfo {
    ServicePortInfo { name: "p".into(), transport, port: 80, node_port: 30080 }
}

/// A Service whose addresses and node ports end with `number`.
fn service(number: u8) -> ServiceInfo {
    let ports = [Transport::Tcp, Transport::Udp, Transport::Sctp]
        .map(|transport| ServicePortInfo { node_port: 30000 + u16::from(number), ..port(transport) });
    ServiceInfo {
        cluster_ips: vec![
            IpAddr::from([10, 98, 0, number]),
            IpAddr::from([0xfd00, 0x98, 0, 0, 0, 0, 0, number.into()]),
        ],
        ports: ports.into(),
        ..ServiceInfo::default()
    }
}

fn slice(count: u16) -> SliceInfo {
    let endpoint = |ip: IpAddr, here: bool| SliceEndpoint {
        ip,
        ready: true,
        serving: true,
        terminating: false,
        node: Some(if here { "here" } else { "there" }.into()),
        zones: vec![],
        nodes: vec![],
    };
    let both = (1..=count).flat_map(|number| {
        let [high, low] = number.to_be_bytes();
        [
            endpoint(IpAddr::from([10, 99, high, low]), number % 2 == 1),
            endpoint(IpAddr::from([0xfd00, 0x99, 0, 0, 0, 0, 0, number]), number % 2 == 1),
        ]
    });
    let ports = [Transport::Tcp, Transport::Udp, Transport::Sctp];
    SliceInfo {
        service: "web".into(),
        ports: ports.map(|transport| ("p".into(), transport, 8080)).into(),
        endpoints: both.collect(),
    }
}

/// One Service for every feature of the compiler.
fn every_feature() -> Vec<(ServiceInfo, SliceInfo)> {
    let balancers = vec!["198.51.100.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
    let ranges = vec!["203.0.113.0/24".parse().unwrap(), "2001:db8:1::/64".parse().unwrap()];
    vec![
        (service(1), slice(1)),
        (service(2), slice(0)),
        (service(3), slice(300)),
        (ServiceInfo { affinity: 10800, ..service(4) }, slice(3)),
        (ServiceInfo { external_local: true, affinity: 7, ..service(5) }, slice(3)),
        (ServiceInfo { internal_local: true, ..service(6) }, slice(2)),
        (
            ServiceInfo {
                external_ips: balancers.clone(),
                balancer_ips: balancers,
                source_ranges: ranges,
                external_local: true,
                ..service(7)
            },
            slice(2),
        ),
    ]
}

fn config() -> RuleConfig {
    RuleConfig {
        table: "xebec".into(),
        mark: 0x4000,
        pod_cidrs: vec!["10.99.0.0/16".parse().unwrap(), "fd00:99::/48".parse().unwrap()],
        service_cidrs: vec!["10.98.0.0/16".parse().unwrap(), "fd00:98::/112".parse().unwrap()],
    }
}

/// `nft` can show the table, and takes what it shows for the table that is there: it may be edited and loaded again.
#[test]
fn the_nft_tool_lists_the_table_and_takes_it_back() {
    if Command::new("nft").arg("--version").output().is_err() {
        eprintln!(
            "skipped: there is no nft on this machine to list the table with (scripts/packages has it)"
        );
        return;
    }
    let (mut tables, mut touched) = (Tables::default(), Touched::default());
    let node = NodeInfo { name: "here".into(), ..NodeInfo::default() };
    for (number, (service, slice)) in every_feature().iter().enumerate() {
        let name = ("ns".to_owned(), format!("s{number}"));
        tables.replace(&mut touched, &name, Some(compile(service, &[slice], &node)));
    }
    let first = Net::new();
    let dataplane = first.ns.run(|| Dataplane::open(config()).unwrap()).unwrap();
    dataplane.adopt(&tables.elements()).unwrap();

    let listing = first.nft(&["list", "table", "inet", "xebec"]);
    let text = String::from_utf8(listing.stdout).unwrap();
    let errors = String::from_utf8_lossy(&listing.stderr).into_owned();
    assert!(listing.status.success() && errors.is_empty(), "{}: {errors}", listing.status);
    // Without /etc/protocols, as on minimal machines, nft shows protocols as numbers.
    assert!(text.contains("10.98.0.1 . tcp . 80") || text.contains("10.98.0.1 . 6 . 80"), "in\n{text}");
    for part in [
        "dnat ip to ip daddr . meta l4proto . th dport . meta priority map @eps4",
        "numgen random mod 300",
        "timeout 3h",
        "vmap @class6",
        "reject with tcp reset",
        "203.0.113.0/24",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    for part in ["@nh,", "@th,", "unknown"] {
        assert!(!text.contains(part), "{part} cannot be read in\n{text}");
    }
    for command in [&["list", "ruleset"][..], &["list", "tables"], &["-a", "list", "chains"]] {
        let listing = first.nft(command);
        assert!(listing.status.success(), "{command:?}: {listing:?}");
    }

    // 1.0.6 shows these, but can load no rule that puts a key of more than four registers into a map: it counts one
    // for every key (`netlink_gen_map_stmt`).
    let text: Vec<&str> = text.lines().filter(|line| !line.contains("@aff6 {")).collect();
    let text = text.join("\n") + "\n";
    let second = Net::new();
    let file = first.path.with_file_name("table.nft");
    std::fs::write(&file, &text).unwrap();
    let loaded = second.nft(&["-f", file.to_str().unwrap()]);
    assert!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));
    let again = String::from_utf8(second.nft(&["list", "table", "inet", "xebec"]).stdout).unwrap();
    let differ = again.lines().zip(text.lines()).find(|(again, text)| again != text);
    assert!(again == text, "first difference: {differ:?}");
    let loaded = second.ns.run(|| Dataplane::open(config()).unwrap().read().unwrap()).unwrap();
    assert_eq!(loaded, tables.elements(), "the elements mean the same");
}
