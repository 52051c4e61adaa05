//! NodePorts: a port of a node is taken once.

use crate::framework::Filter;
use crate::pod::{HostPort, PodInfo};
use crate::snapshot::Snapshot;

const ANY: &str = "0.0.0.0";

/// The pod's host ports must be free.
pub fn filter<'a>(pod: &'a PodInfo, _snapshot: &'a Snapshot) -> Filter<'a> {
    if pod.ports.is_empty() {
        return Filter::Pass;
    }
    Filter::Each(Box::new(move |node| {
        let taken = pod.ports.iter().any(|port| node.ports.iter().any(|other| conflict(port, other)));
        if taken {
            return Err(vec!["node(s) didn't have free ports for the requested pod ports".into()]);
        }
        Ok(())
    }))
}

fn conflict(a: &HostPort, b: &HostPort) -> bool {
    a.port == b.port && a.protocol == b.protocol && (a.ip == b.ip || a.ip == ANY || b.ip == ANY)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{cluster, node, pod, verdict};

    fn with_port(port: Value) -> Value {
        json!({"containers": [{"name": "c", "ports": [port]}]})
    }

    #[test]
    fn ports_conflict_by_address_protocol_and_number() {
        let mut snapshot = cluster(&[node("n1", json!({}), json!({}))]);
        snapshot.place(
            pod("one", with_port(json!({"containerPort": 80, "hostPort": 80, "hostIP": "10.0.0.1"}))),
            "n1",
        );
        snapshot.place(
            pod("all", with_port(json!({"containerPort": 1, "hostPort": 53, "protocol": "UDP"}))),
            "n1",
        );
        let cases = [
            (json!({"containerPort": 80}), true),
            (json!({"containerPort": 80, "hostPort": 81}), true),
            (json!({"containerPort": 80, "hostPort": 80}), false),
            (json!({"containerPort": 80, "hostPort": 80, "hostIP": "10.0.0.1"}), false),
            (json!({"containerPort": 80, "hostPort": 80, "hostIP": "10.0.0.2"}), true),
            (json!({"containerPort": 80, "hostPort": 80, "protocol": "UDP"}), true),
            (json!({"containerPort": 80, "hostPort": 53, "protocol": "UDP", "hostIP": "10.0.0.2"}), false),
            (json!({"containerPort": 80, "hostPort": 53, "protocol": "TCP"}), true),
        ];
        for (port, fits) in cases {
            let pod = pod("p", with_port(port.clone()));
            assert_eq!(verdict(&filter(&pod, &snapshot), &snapshot, "n1").is_ok(), fits, "{port}");
        }
    }
}
