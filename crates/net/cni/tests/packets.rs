//! Real packets through real namespaces. Needs root.
#![allow(clippy::unwrap_used, missing_docs)]

mod lab;

use std::{collections::HashSet, net::IpAddr};

use lab::{Lab, serve, tcp, udp};
use xebec_cni::{HostPort, PodAddresses, Protocol};
use xebec_netlink::{NetNs, Rtnl};

fn v4(pod: &PodAddresses) -> IpAddr {
    pod.ips[0]
}

#[test]
fn pods_reach_pods_node_and_outside() {
    let mut lab = Lab::new();
    let network = lab.network();
    let (path_a, a) = lab.pod("a");
    let (path_b, b) = lab.pod("b");
    let (pod_a, pod_b) = lab.block_on(async {
        network.setup().await.unwrap();
        let one = network.add("a", &path_a, "ns", "a", &[]).await.unwrap();
        (one, network.add("b", &path_b, "ns", "b", &[]).await.unwrap())
    });
    assert_eq!(pod_a.gateways, ["10.99.1.1".parse::<IpAddr>().unwrap(), "fd00:99::1".parse().unwrap()]);
    for ns in [&b, &lab.node, &lab.outside] {
        serve(ns, 7, "");
    }
    let (ip_a, ip_b) = (v4(&pod_a).to_string(), v4(&pod_b).to_string());
    assert_eq!(tcp(&a, &format!("{ip_b}:7")).unwrap(), ip_a, "no NAT between pods");
    assert_eq!(udp(&a, &format!("{ip_b}:7")).unwrap(), ip_a);
    assert_eq!(tcp(&a, &format!("[{}]:7", pod_b.ips[1])).unwrap(), pod_a.ips[1].to_string());
    assert_eq!(tcp(&a, "10.99.1.1:7").unwrap(), ip_a, "no NAT to the node");
    assert_eq!(tcp(&a, "203.0.113.2:7").unwrap(), ip_a, "no NAT to the node's uplink address");
    assert_eq!(tcp(&lab.node, &format!("{ip_b}:7")).unwrap(), "10.99.1.1");
    assert_eq!(tcp(&a, "203.0.113.1:7").unwrap(), "203.0.113.2", "masquerade to the outside");
    assert_eq!(udp(&a, "203.0.113.1:7").unwrap(), "203.0.113.2");
    assert_eq!(tcp(&a, "[2001:db8::1]:7").unwrap(), "2001:db8::2");
    let mtu = a.run(|| Rtnl::open().unwrap().link("eth0").unwrap().unwrap().mtu).unwrap();
    assert_eq!(mtu, 1400, "the uplink's MTU");
}

#[test]
fn host_ports_lead_to_their_pod() {
    let mut lab = Lab::new();
    let network = lab.network();
    let (path, pod) = lab.pod("web");
    let port = |host_ip: Option<&str>, host_port, protocol| HostPort {
        host_ip: host_ip.map(|ip| ip.parse().unwrap()),
        host_port,
        protocol,
        container_port: 7,
    };
    let ports = [
        port(None, 8080, Protocol::Tcp),
        port(Some("0.0.0.0"), 8080, Protocol::Udp),
        port(Some("203.0.113.2"), 8081, Protocol::Tcp),
        port(Some("10.99.1.1"), 8082, Protocol::Tcp),
    ];
    let address = lab.block_on(async {
        network.setup().await.unwrap();
        network.add("web", &path, "ns", "web", &ports).await.unwrap()
    });
    serve(&pod, 7, "");
    assert_eq!(tcp(&lab.outside, "203.0.113.2:8080").unwrap(), "203.0.113.1", "the client's address is kept");
    assert_eq!(udp(&lab.outside, "203.0.113.2:8080").unwrap(), "203.0.113.1");
    assert_eq!(tcp(&lab.outside, "[2001:db8::2]:8080").unwrap(), "2001:db8::1");
    assert_eq!(tcp(&lab.outside, "203.0.113.2:8081").unwrap(), "203.0.113.1");
    assert!(tcp(&lab.outside, "203.0.113.2:8082").is_err(), "only on the given address");
    tcp(&lab.node, "203.0.113.2:8080").unwrap();
    tcp(&pod, "203.0.113.2:8080").expect("a pod reaches itself through its host port");

    let error = lab.block_on(async {
        let path = &path;
        network.add("other", path, "ns", "other", &ports[..1]).await.unwrap_err()
    });
    assert!(error.to_string().contains("hostPort 8080/TCP is already used by sandbox web"), "{error}");
    // A restarted agent knows the ports and takes them away with the pod.
    let again = lab.network();
    lab.block_on(async {
        again.setup().await.unwrap();
        again.check("web").await.unwrap();
    });
    assert_eq!(again.addresses("web"), Some(address));
    tcp(&lab.outside, "203.0.113.2:8080").unwrap();
    lab.block_on(async { again.delete("web").await.unwrap() });
    assert!(tcp(&lab.outside, "203.0.113.2:8080").is_err());
}

#[test]
fn links_survive_restart_and_leave_no_trace() {
    let mut lab = Lab::new();
    let network = lab.network();
    let (path_a, a) = lab.pod("a");
    let (path_b, _b) = lab.pod("b");
    let before = lab.block_on(async {
        network.setup().await.unwrap();
        let first = network.add("a", &path_a, "ns", "a", &[]).await.unwrap();
        assert_eq!(network.add("a", &path_a, "ns", "a", &[]).await.unwrap(), first, "idempotent");
        network.add("b", &path_b, "ns", "b", &[]).await.unwrap();
        first
    });
    let index = |ns: &NetNs| ns.run(|| Rtnl::open().unwrap().link("eth0").unwrap().unwrap().index).unwrap();
    let link = index(&a);
    drop(network);
    let network = lab.network();
    // The namespace of b goes behind our back.
    NetNs::remove(&path_b).unwrap();
    drop(_b);
    lab.block_on(async {
        network.setup().await.unwrap();
        assert_eq!(network.add("a", &path_a, "ns", "a", &[]).await.unwrap(), before);
        assert_eq!(index(&a), link, "the same link, not a new one");
        assert_eq!(network.prune(HashSet::from(["a".to_owned()])).await.unwrap(), ["b"]);
        network.delete("b").await.unwrap();
        assert!(network.check("b").await.is_err());
        // Broken by hand, then repaired by asking again.
        a.run(|| {
            let rtnl = Rtnl::open().unwrap();
            rtnl.delete_link(rtnl.link("eth0").unwrap().unwrap().index).unwrap();
        })
        .unwrap();
        assert!(network.check("a").await.unwrap_err().to_string().contains("is missing"));
        network.add("a", &path_a, "ns", "a", &[]).await.unwrap();
        network.check("a").await.unwrap();
        network.teardown().await.unwrap();
    });
    let (links, tables) = lab
        .node
        .run(|| {
            let links = Rtnl::open().unwrap().links().unwrap();
            let tables =
                xebec_netlink::Nft::open().unwrap().tables(xebec_netlink::nft::Family::Inet).unwrap();
            (links.into_iter().map(|link| link.name).collect::<HashSet<_>>(), tables)
        })
        .unwrap();
    assert_eq!(links, HashSet::from(["lo".to_owned(), "up0".to_owned()]));
    assert_eq!(tables, Vec::<String>::new());
    assert!(!lab.dir.path().join("pods.json").exists());
}

#[test]
fn failures_release_what_they_took() {
    let lab = Lab::new();
    let network = lab.network();
    lab.block_on(async {
        network.setup().await.unwrap();
        let missing = lab.dir.path().join("missing");
        let error = network.add("x", &missing, "ns", "x", &[]).await.unwrap_err();
        assert!(error.to_string().contains("open network namespace"), "{error}");
        assert!(network.list().is_empty());
    });
}
