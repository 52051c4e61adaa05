//! Tables of what Services come down to.

use super::*;
use crate::model::Transport;

fn node() -> NodeInfo {
    NodeInfo {
        name: "here".into(),
        zone: Some("z1".into()),
        addresses: ["192.0.2.1".parse().unwrap()].into(),
    }
}

fn service() -> ServiceInfo {
    ServiceInfo {
        cluster_ips: vec!["10.96.0.1".parse().unwrap()],
        ports: vec![ServicePortInfo {
            name: "http".into(),
            transport: Transport::Tcp,
            port: 80,
            node_port: 30080,
        }],
        ..ServiceInfo::default()
    }
}

/// `ip flags node`: flags are r(eady), s(erving), t(erminating).
fn endpoint(text: &str) -> SliceEndpoint {
    let mut words = text.split(' ');
    let ip = words.next().unwrap().parse().unwrap();
    let flags = words.next().unwrap_or("rs");
    SliceEndpoint {
        ip,
        ready: flags.contains('r'),
        serving: flags.contains('s'),
        terminating: flags.contains('t'),
        node: words.next().map(str::to_owned),
        zones: vec![],
        nodes: vec![],
    }
}

fn slice(endpoints: &[&str]) -> SliceInfo {
    SliceInfo {
        service: "web".into(),
        ports: vec![("http".into(), Transport::Tcp, 8080)],
        endpoints: endpoints.iter().map(|text| endpoint(text)).collect(),
    }
}

/// Fronts as text: `front chain endpoints | local`.
fn lines(service: &ServiceInfo, slices: &[&SliceInfo]) -> Vec<String> {
    let list = |endpoints: &[Endpoint]| {
        endpoints.iter().map(|endpoint| format!(" {}:{}", endpoint.ip, endpoint.port)).collect::<String>()
    };
    let compiled = compile(service, slices, &node());
    let line = |(key, front): &(FrontKey, Arc<Front>)| {
        let local = if front.local.is_empty() { String::new() } else { format!(" |{}", list(&front.local)) };
        format!("{key} {}{}{local}", front.class.chain(key.ip.is_ipv4()), list(&front.endpoints))
    };
    compiled.fronts.iter().map(line).collect()
}

#[test]
fn ready_endpoints_or_those_that_still_serve() {
    let service = service();
    assert_eq!(
        lines(&service, &[&slice(&["10.0.0.1", "10.0.0.2 st", "10.0.0.3 x"])]),
        ["10.96.0.1:80/Tcp addr4-1 10.0.0.1:8080", "0.0.0.0:30080/Tcp port4-masq-1 10.0.0.1:8080"]
    );
    assert_eq!(
        lines(&service, &[&slice(&["10.0.0.2 st", "10.0.0.3 t"])]),
        ["10.96.0.1:80/Tcp addr4-1 10.0.0.2:8080", "0.0.0.0:30080/Tcp port4-masq-1 10.0.0.2:8080"]
    );
    assert_eq!(lines(&service, &[]), ["10.96.0.1:80/Tcp rejected", "0.0.0.0:30080/Tcp rejected"]);
}

#[test]
fn several_slices_and_named_ports() {
    let mut other = slice(&["10.0.0.9", "10.0.0.1"]);
    other.ports = vec![("http".into(), Transport::Tcp, 9090), ("dns".into(), Transport::Udp, 53)];
    let fronts = lines(&service(), &[&slice(&["10.0.0.1", "fd00::1"]), &other]);
    assert_eq!(fronts[0], "10.96.0.1:80/Tcp addr4-3 10.0.0.1:8080 10.0.0.1:9090 10.0.0.9:9090");
    let mut dual = service();
    dual.cluster_ips.push("fd96::1".parse().unwrap());
    let fronts = lines(&dual, &[&slice(&["fd00::1"])]);
    assert_eq!(fronts[2], "fd96::1:80/Tcp addr6-1 fd00::1:8080");
    assert_eq!(fronts.len(), 4);
}

#[test]
fn local_policies() {
    let mut service = service();
    service.external_local = true;
    service.health_port = 32000;
    let both = slice(&["10.0.0.1 rs here", "10.0.0.2 rs there"]);
    assert_eq!(
        lines(&service, &[&both])[1],
        "0.0.0.0:30080/Tcp port4-local-2-1 10.0.0.1:8080 10.0.0.2:8080 | 10.0.0.1:8080"
    );
    assert_eq!(compile(&service, &[&both], &node()).health, Some((32000, 1)));
    let there = slice(&["10.0.0.2 rs there"]);
    assert_eq!(lines(&service, &[&there])[1], "0.0.0.0:30080/Tcp port4-local-1-0 10.0.0.2:8080");
    assert_eq!(compile(&service, &[&there], &node()).health, Some((32000, 0)));
    // Each of both picks terminating ones for itself.
    let ending = slice(&["10.0.0.1 st here", "10.0.0.2 rs there"]);
    assert_eq!(
        lines(&service, &[&ending])[1],
        "0.0.0.0:30080/Tcp port4-local-1-1 10.0.0.2:8080 | 10.0.0.1:8080"
    );
    assert_eq!(compile(&service, &[&ending], &node()).health, Some((32000, 0)));

    service.internal_local = true;
    assert_eq!(lines(&service, &[&both])[0], "10.96.0.1:80/Tcp addr4-1 10.0.0.1:8080");
    assert_eq!(lines(&service, &[&there])[0], "10.96.0.1:80/Tcp dropped");
    assert_eq!(lines(&service, &[])[0], "10.96.0.1:80/Tcp rejected");
}

#[test]
fn hints_count_when_all_endpoints_have_them() {
    let mut hinted = slice(&["10.0.0.1", "10.0.0.2"]);
    hinted.endpoints[0].zones = vec!["z1".into()];
    let service = service();
    assert!(lines(&service, &[&hinted])[0].contains("addr4-2"), "one endpoint has no hint");
    hinted.endpoints[1].zones = vec!["z2".into()];
    assert_eq!(lines(&service, &[&hinted])[0], "10.96.0.1:80/Tcp addr4-1 10.0.0.1:8080");
    hinted.endpoints[0].zones = vec!["z3".into()];
    assert!(lines(&service, &[&hinted])[0].contains("addr4-2"), "none for our zone");
    hinted.endpoints[0].nodes = vec!["there".into()];
    hinted.endpoints[1].nodes = vec!["here".into()];
    assert_eq!(lines(&service, &[&hinted])[0], "10.96.0.1:80/Tcp addr4-1 10.0.0.2:8080");
}

#[test]
fn balancers_affinity_and_hairpin() {
    let mut service = service();
    service.affinity = 60;
    service.external_ips = vec!["198.51.100.1".parse().unwrap(), "198.51.100.2".parse().unwrap()];
    service.balancer_ips = vec!["198.51.100.2".parse().unwrap()];
    service.source_ranges = vec!["203.0.113.0/24".parse().unwrap(), "203.0.113.7/32".parse().unwrap()];
    let both = slice(&["10.0.0.1 rs here", "192.0.2.1 rs here", "10.0.0.2 rs there"]);
    let compiled = compile(&service, &[&both], &node());
    let chains: Vec<String> = compiled.fronts.iter().map(|(_, front)| front.class.chain(true)).collect();
    assert_eq!(
        chains,
        [
            "addr4-3-affinity-60",
            "addr4-masq-3-affinity-60",
            "addr4-masq-ranges-3-affinity-60",
            "port4-masq-3-affinity-60"
        ]
    );
    assert_eq!(compiled.fronts[2].1.allowed, ["203.0.113.0/24".parse().unwrap()]);
    let hairpin: Vec<String> = compiled.fronts[0].1.hairpin.iter().map(ToString::to_string).collect();
    assert_eq!(hairpin, ["10.0.0.1"], "neither other nodes' pods nor the node itself");
}
