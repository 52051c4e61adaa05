//! Services with real packets through real namespaces. Needs root.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../cni/tests/lab/mod.rs"]
mod lab;

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{IpAddr, TcpStream, UdpSocket},
    path::PathBuf,
    time::{Duration, Instant},
};

use lab::{Lab, TIMEOUT, serve, tcp, udp};
use xebec_cni::Network;
use xebec_netlink::{NetNs, Rtnl};
use xebec_service::{
    Changes, Dataplane, FlowCheck, NodeInfo, RuleConfig, ServiceInfo, ServicePortInfo, SliceEndpoint,
    SliceInfo, Tables, Touched, Transport, compile::compile,
};

const VIP: &str = "10.98.0.10";

/// A node with pods `a`, `b` and `client`, and a Service with TCP and UDP on one port.
struct World {
    lab: Lab,
    pods: Vec<(NetNs, IpAddr, IpAddr)>,
    client: NetNs,
    client_ip: String,
    dataplane: Dataplane,
    tables: Tables,
    _network: Network,
}

impl World {
    fn new() -> Self {
        let mut lab = Lab::new();
        let network = lab.network();
        let made: Vec<(PathBuf, NetNs)> = ["a", "b", "client"].map(|name| lab.pod(name)).into();
        let addresses: Vec<_> = lab.block_on(async {
            network.setup().await.unwrap();
            let mut all = Vec::new();
            for (index, (path, _)) in made.iter().enumerate() {
                all.push(network.add(&format!("pod{index}"), path, "ns", "pod", &[]).await.unwrap());
            }
            all
        });
        let mut pods: Vec<_> =
            made.into_iter().zip(addresses).map(|((_, ns), pod)| (ns, pod.ips[0], pod.ips[1])).collect();
        let (client, client_ip, _) = pods.pop().unwrap();
        serve(&pods[0].0, 8080, "a ");
        serve(&pods[1].0, 8080, "b ");
        let dataplane = lab.node.run(|| Dataplane::open(config("xebec")).unwrap()).unwrap();
        dataplane.adopt(&Tables::default().elements()).unwrap();
        let client_ip = client_ip.to_string();
        Self { lab, pods, client, client_ip, dataplane, tables: Tables::default(), _network: network }
    }

    fn slice(&self, pods: &[usize]) -> SliceInfo {
        let ends = pods.iter().flat_map(|index| [self.pods[*index].1, self.pods[*index].2]);
        let endpoint = |ip| SliceEndpoint {
            ip,
            ready: true,
            serving: true,
            terminating: false,
            node: Some("node".into()),
            zones: vec![],
            nodes: vec![],
        };
        let both = [Transport::Tcp, Transport::Udp].map(|transport| ("p".to_owned(), transport, 8080));
        SliceInfo { service: "web".into(), ports: both.into(), endpoints: ends.map(endpoint).collect() }
    }

    fn set(&mut self, service: &ServiceInfo, pods: &[usize]) -> Changes {
        let slice = self.slice(pods);
        self.set_slice(service, &slice)
    }

    fn set_slice(&mut self, service: &ServiceInfo, slice: &SliceInfo) -> Changes {
        let node = NodeInfo { name: "node".into(), ..NodeInfo::default() };
        let mut touched = Touched::default();
        let name = ("ns".to_owned(), "web".to_owned());
        self.tables.replace(&mut touched, &name, Some(compile(service, &[slice], &node)));
        let changes = self.tables.changes(&touched);
        self.dataplane.apply(&changes).unwrap();
        self.dataplane.check_flows(&FlowCheck::of_changed(&self.tables, &touched)).unwrap();
        assert_eq!(self.dataplane.read().unwrap(), self.tables.elements(), "the kernel holds the tables");
        changes
    }

    fn answers(&self, from: &NetNs, target: &str, count: usize) -> BTreeSet<String> {
        (0..count).map(|_| tcp(from, target).unwrap()).collect()
    }
}

fn config(table: &str) -> RuleConfig {
    RuleConfig {
        table: table.into(),
        mark: 0x4000,
        pod_cidrs: vec!["10.99.0.0/16".parse().unwrap(), "fd00:99::/48".parse().unwrap()],
        service_cidrs: vec!["10.98.0.0/16".parse().unwrap(), "fd00:98::/112".parse().unwrap()],
    }
}

fn service() -> ServiceInfo {
    let port = |transport| ServicePortInfo { name: "p".into(), transport, port: 80, node_port: 30080 };
    ServiceInfo {
        cluster_ips: vec![VIP.parse().unwrap(), "fd00:98::10".parse().unwrap()],
        ports: vec![port(Transport::Tcp), port(Transport::Udp), port(Transport::Sctp)],
        ..ServiceInfo::default()
    }
}

/// Elapsed time matters: a refusal comes at once, a drop never.
fn fails(from: &NetNs, target: &str) -> Duration {
    let start = Instant::now();
    assert!(tcp(from, target).is_err(), "{target} should not answer");
    start.elapsed()
}

#[test]
fn cluster_ips_and_node_ports_reach_all_endpoints() {
    let mut world = World::new();
    world.set(&service(), &[0, 1]);
    let ip = world.client_ip.clone();
    let both = BTreeSet::from([format!("a {ip}"), format!("b {ip}")]);
    assert_eq!(world.answers(&world.client, "10.98.0.10:80", 30), both, "pods keep their address");
    let udp_answers: BTreeSet<_> = (0..30).map(|_| udp(&world.client, "10.98.0.10:80").unwrap()).collect();
    assert_eq!(udp_answers, both);
    let node = world.answers(&world.lab.node, "10.98.0.10:80", 30);
    assert_eq!(node, BTreeSet::from(["a 10.99.1.1".to_owned(), "b 10.99.1.1".to_owned()]));
    udp(&world.lab.node, "10.98.0.10:80").unwrap();
    assert!(tcp(&world.client, "[fd00:98::10]:80").unwrap().contains("fd00:99::"));
    // From outside the answers have to come back through this node: its address is the client.
    let outside = world.answers(&world.lab.outside, "203.0.113.2:30080", 30);
    assert_eq!(outside, BTreeSet::from(["a 10.99.1.1".to_owned(), "b 10.99.1.1".to_owned()]));
    assert!(udp(&world.lab.outside, "203.0.113.2:30080").unwrap().ends_with("10.99.1.1"));
    assert!(tcp(&world.lab.outside, "[2001:db8::2]:30080").unwrap().ends_with("fd00:99::1"));
    for target in ["203.0.113.2:30080", "10.99.1.1:30080"] {
        tcp(&world.lab.node, target).unwrap();
        tcp(&world.client, target).unwrap();
    }
    assert!(fails(&world.lab.node, "127.0.0.1:30080") < TIMEOUT, "not on loopback");
    // A pod that reaches itself sees another address than its own.
    let own = world.pods[0].1.to_string();
    let hairpin = world.answers(&world.pods[0].0, "10.98.0.10:80", 30);
    assert_eq!(hairpin, BTreeSet::from(["a 10.99.1.1".to_owned(), format!("b {own}")]));
}

#[test]
fn ports_and_addresses_without_endpoints() {
    let mut world = World::new();
    world.set(&service(), &[]);
    for from in [&world.client, &world.lab.node] {
        assert!(fails(from, "10.98.0.10:80") < TIMEOUT / 2, "no endpoints: refused");
        assert!(fails(from, "10.98.0.10:81") < TIMEOUT / 2, "undefined port: refused");
        for target in ["10.98.0.10:80", "10.98.0.10:81", "[fd00:98::10]:80", "203.0.113.2:30080"] {
            let refused = udp(from, target).unwrap_err();
            assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "{target}: {refused}");
        }
        assert!(fails(from, "10.98.0.99:80") >= TIMEOUT - Duration::from_millis(100), "unallocated: dropped");
    }
    assert!(fails(&world.lab.outside, "203.0.113.2:30080") < TIMEOUT / 2);
    // A local sender that was refused is served as soon as there is somebody to serve it.
    let sender = world.lab.node.run(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
    sender.set_read_timeout(Some(TIMEOUT)).unwrap();
    sender.connect("10.98.0.10:80").unwrap();
    let ask = || sender.send(b"ping").and_then(|_| sender.recv(&mut [0; 64]));
    assert_eq!(ask().unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    world.set(&service(), &[0]);
    tcp(&world.client, "10.98.0.10:80").unwrap();
    ask().unwrap();
}

#[test]
fn affinity_holds_ends_and_switches() {
    let mut world = World::new();
    let sticky = ServiceInfo { affinity: 2, ..service() };
    world.set(&sticky, &[0, 1]);
    for target in ["10.98.0.10:80", "203.0.113.2:30080", "[fd00:98::10]:80"] {
        assert_eq!(world.answers(&world.client, target, 20).len(), 1, "{target}");
    }
    assert_eq!(world.answers(&world.lab.outside, "203.0.113.2:30080", 20).len(), 1);
    // The endpoint goes: clients move to one that lives.
    let held = tcp(&world.client, "10.98.0.10:80").unwrap();
    let (other, name) = if held.starts_with('a') { (1, "b ") } else { (0, "a ") };
    world.set(&sticky, &[other]);
    let moved = world.answers(&world.client, "10.98.0.10:80", 5);
    assert!(moved.iter().all(|answer| answer.starts_with(name)), "{moved:?}");
    world.set(&sticky, &[0, 1]);
    assert_eq!(world.answers(&world.client, "10.98.0.10:80", 20), moved, "and stay there");
    // Off: both again. On: one again.
    world.set(&service(), &[0, 1]);
    assert_eq!(world.answers(&world.client, "10.98.0.10:80", 40).len(), 2);
    assert_eq!(world.answers(&world.lab.outside, "203.0.113.2:30080", 40).len(), 2);
    world.set(&sticky, &[0, 1]);
    assert_eq!(world.answers(&world.client, "10.98.0.10:80", 20).len(), 1);
    // After the time without a connection the choice is free: seen within some rounds.
    let nft = world.lab.node.run(|| xebec_netlink::Nft::open().unwrap()).unwrap();
    let table = config("xebec").table();
    let start = Instant::now();
    let first = tcp(&world.client, "10.98.0.10:80").unwrap();
    let mut second = first.clone();
    while second == first && start.elapsed() < Duration::from_secs(60) {
        while !nft.elements(&table, "aff4").unwrap().is_empty() {
            std::thread::yield_now();
        }
        second = tcp(&world.client, "10.98.0.10:80").unwrap();
    }
    assert_ne!(first, second);
}

#[test]
fn udp_flows_follow_their_service() {
    let mut world = World::new();
    world.set(&service(), &[0]);
    for (ns, target) in [(&world.client, "10.98.0.10:80"), (&world.lab.outside, "203.0.113.2:30080")] {
        assert!(udp(ns, target).unwrap().starts_with("a "));
    }
    let open = |ns: &NetNs, target: &'static str| {
        ns.run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            socket.connect(target).unwrap();
            socket
        })
        .unwrap()
    };
    let ask = |socket: &UdpSocket| -> std::io::Result<String> {
        socket.send(b"ping")?;
        let mut buffer = [0; 64];
        let len = socket.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..len]).into_owned())
    };
    let inside = open(&world.client, "10.98.0.10:80");
    let outside = open(&world.lab.outside, "203.0.113.2:30080");
    assert!(ask(&inside).unwrap().starts_with("a ") && ask(&outside).unwrap().starts_with("a "));
    world.set(&service(), &[1]);
    assert!(ask(&inside).unwrap().starts_with("b "), "the same socket reaches the new endpoint");
    assert!(ask(&outside).unwrap().starts_with("b "));
    world.set(&service(), &[]);
    assert!(ask(&inside).is_err() && ask(&outside).is_err());
    world.set(&service(), &[0]);
    // The refusal of before is still queued on the socket.
    let answer = ask(&inside).or_else(|_| ask(&inside)).unwrap();
    assert!(answer.starts_with("a "));
}

#[test]
fn local_policy_keeps_the_client_and_ranges_hold() {
    let mut world = World::new();
    let balancer: IpAddr = "203.0.113.50".parse().unwrap();
    let allowed = |range: &str| ServiceInfo {
        external_local: true,
        external_ips: vec![balancer],
        balancer_ips: vec![balancer],
        source_ranges: vec![range.parse().unwrap(), "10.99.0.0/16".parse().unwrap()],
        ..service()
    };
    // The outside host sends packets to the balancer's address here.
    world
        .lab
        .outside
        .run(|| {
            let rtnl = Rtnl::open().unwrap();
            let route = xebec_netlink::Route {
                destination: "203.0.113.50/32".parse().unwrap(),
                gateway: Some("203.0.113.2".parse().unwrap()),
                link: rtnl.link("eth0").unwrap().unwrap().index,
                source: None,
                onlink: false,
                metric: 0,
            };
            rtnl.replace_route(&route).unwrap();
        })
        .unwrap();
    world.set(&allowed("203.0.113.0/30"), &[0]);
    assert_eq!(tcp(&world.lab.outside, "203.0.113.2:30080").unwrap(), "a 203.0.113.1");
    assert_eq!(tcp(&world.lab.outside, "203.0.113.50:80").unwrap(), "a 203.0.113.1");
    assert_eq!(tcp(&world.client, "203.0.113.50:80").unwrap(), format!("a {}", world.client_ip));
    world.set(&allowed("198.51.100.0/24"), &[0]);
    assert!(fails(&world.lab.outside, "203.0.113.50:80") >= TIMEOUT - Duration::from_millis(100));
    tcp(&world.lab.outside, "203.0.113.2:30080").expect("ranges are for the balancer's address");
    // The only endpoint is elsewhere: outside clients wait, those inside are served.
    let mut elsewhere = world.slice(&[0]);
    elsewhere.endpoints.iter_mut().for_each(|endpoint| endpoint.node = Some("other".into()));
    world.set_slice(&allowed("203.0.113.0/30"), &elsewhere);
    assert!(fails(&world.lab.outside, "203.0.113.2:30080") >= TIMEOUT - Duration::from_millis(100));
    tcp(&world.client, "203.0.113.2:30080").unwrap();
    tcp(&world.lab.node, "203.0.113.2:30080").unwrap();
    tcp(&world.client, "10.98.0.10:80").unwrap();
}

#[test]
fn restart_adopts_and_connections_live() {
    let mut world = World::new();
    world.set(&service(), &[0]);
    let mut stream = world
        .client
        .run(|| TcpStream::connect_timeout(&"10.98.0.10:80".parse().unwrap(), TIMEOUT).unwrap())
        .unwrap();
    // Nothing to do: nothing is done.
    let again = world.lab.node.run(|| Dataplane::open(config("xebec")).unwrap()).unwrap();
    assert_eq!(again.adopt(&world.tables.elements()).unwrap(), 0);
    // What changed meanwhile is changed, no more: a front's endpoint in two families and protocols, and hairpins.
    let mut touched = Touched::default();
    let node = NodeInfo { name: "node".into(), ..NodeInfo::default() };
    let slice = world.slice(&[1]);
    let name = ("ns".to_owned(), "web".to_owned());
    world.tables.replace(&mut touched, &name, Some(compile(&service(), &[&slice], &node)));
    let expected = world.tables.changes(&touched).len();
    assert_eq!(again.adopt(&world.tables.elements()).unwrap(), expected);
    assert!(tcp(&world.client, "10.98.0.10:80").unwrap().starts_with("b "));
    // Rules of another configuration are replaced in one piece.
    let mut other = config("xebec");
    other.mark = 0x8000;
    let other = world.lab.node.run(|| Dataplane::open(other).unwrap()).unwrap();
    assert!(other.adopt(&world.tables.elements()).unwrap() > expected);
    assert!(tcp(&world.client, "10.98.0.10:80").unwrap().starts_with("b "));
    // The connection from before all that still reaches its endpoint.
    stream.write_all(b"ping").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("a "), "{answer}");
    other.uninstall().unwrap();
    let family = xebec_netlink::nft::Family::Inet;
    let tables = world.lab.node.run(|| xebec_netlink::Nft::open().unwrap().tables(family).unwrap()).unwrap();
    assert_eq!(tables, ["xebec-pods"]);
}

#[test]
fn ten_thousand_services_load_and_change() {
    let mut world = World::new();
    let mut touched = Touched::default();
    let node = NodeInfo { name: "node".into(), ..NodeInfo::default() };
    let name = |index: u32| ("ns".to_owned(), format!("s{index}"));
    let make = |index: u32, endpoints: u32| {
        let [_, _, high, low] = index.to_be_bytes();
        let mut service = service();
        service.cluster_ips = vec![IpAddr::from([10, 98, high + 100, low])];
        service.ports.truncate(1);
        service.ports[0].node_port = 0;
        let slice = SliceInfo {
            service: String::new(),
            ports: vec![("p".into(), Transport::Tcp, 8080)],
            endpoints: (0..endpoints)
                .map(|number| SliceEndpoint {
                    ip: IpAddr::from((0x0a63_8000 + index * 3 + number).to_be_bytes()),
                    ready: true,
                    serving: true,
                    terminating: false,
                    node: None,
                    zones: vec![],
                    nodes: vec![],
                })
                .collect(),
        };
        compile(&service, &[&slice], &node)
    };
    let start = Instant::now();
    for index in 0..10_000 {
        world.tables.replace(&mut touched, &name(index), Some(make(index, 10)));
    }
    let compiled = start.elapsed();
    let added = world.dataplane.adopt(&world.tables.elements()).unwrap();
    assert!(added > 110_000, "{added}");
    println!("10,000 Services × 10: compiled in {compiled:?}, loaded after {:?}", start.elapsed());
    let mut touched = Touched::default();
    let start = Instant::now();
    world.tables.replace(&mut touched, &name(77), Some(make(77, 9)));
    let changes = world.tables.changes(&touched);
    assert_eq!(changes.len(), 3, "one endpoint less, another class for the front, that class: {changes:?}");
    assert_eq!(changes.added.len(), 1, "and its chain");
    world.dataplane.apply(&changes).unwrap();
    println!("one change while the kernel is still tidying up after the load: {:?}", start.elapsed());
    for endpoints in [8, 9, 10, 9] {
        let mut touched = Touched::default();
        let start = Instant::now();
        world.tables.replace(&mut touched, &name(77), Some(make(77, endpoints)));
        world.dataplane.apply(&world.tables.changes(&touched)).unwrap();
        println!("one change, to {endpoints} endpoints: {:?}", start.elapsed());
    }
    let start = Instant::now();
    assert_eq!(world.dataplane.adopt(&world.tables.elements()).unwrap(), 0);
    println!("adopted after {:?}", start.elapsed());
    world.set(&service(), &[0, 1]);
    tcp(&world.client, "10.98.0.10:80").unwrap();
}
