//! The table row of a Service.

use jiff::Timestamp;
use serde_json::Value;
use xebec_types::object;

use crate::Cells;
use crate::cells::{age, int_at, labels, list_at, name};

/// Most characters of load balancer addresses outside `-o wide`.
const WIDTH: usize = 16;

/// All columns.
pub(crate) fn cells(service: &Value, now: Timestamp) -> Cells {
    let cluster_ip = match list_at(service, "spec.clusterIPs").first().and_then(Value::as_str) {
        Some(ip) => ip,
        None => crate::cells::or_none(service, "spec.clusterIP"),
    };
    vec![
        name(service),
        super::kind(service).into(),
        cluster_ip.into(),
        external(service).into(),
        ports(service).into(),
        age(service, now),
        labels(object::at(service, "spec.selector")).into(),
    ]
}

fn external(service: &Value) -> String {
    let ips =
        list_at(service, "spec.externalIPs").iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",");
    let or_none = |text: String| if text.is_empty() { "<none>".into() } else { text };
    match super::kind(service) {
        "ExternalName" => object::str_at(service, "spec.externalName").to_owned(),
        "LoadBalancer" => {
            let mut all: Vec<&str> = list_at(service, "status.loadBalancer.ingress")
                .iter()
                .map(|i| match object::str_at(i, "ip") {
                    "" => object::str_at(i, "hostname"),
                    ip => ip,
                })
                .collect();
            all.sort_unstable();
            let balancers = all.join(",");
            let text = match (balancers.is_empty(), ips.is_empty()) {
                (true, true) => "<pending>".into(),
                (false, false) => format!("{ips},{balancers}"),
                (true, false) => ips,
                (false, true) => balancers,
            };
            if text.len() > WIDTH { shorten(&text) } else { text }
        }
        _ => or_none(ips),
    }
}

/// Cuts at a character, not inside one.
fn shorten(text: &str) -> String {
    let cut: String = text.chars().take(WIDTH - 3).collect();
    format!("{cut}...")
}

fn ports(service: &Value) -> String {
    let one = |port: &Value| {
        let protocol = object::str_at(port, "protocol");
        match int_at(port, "nodePort") {
            0 => format!("{}/{protocol}", int_at(port, "port")),
            node => format!("{}:{node}/{protocol}", int_at(port, "port")),
        }
    };
    let all: Vec<String> = list_at(service, "spec.ports").iter().map(one).collect();
    if all.is_empty() { "<none>".into() } else { all.join(",") }
}
