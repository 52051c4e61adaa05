//! The table row of a pod: upstream's STATUS, READY and RESTARTS.

use jiff::Timestamp;
use serde_json::{Value, json};
use xebec_types::{object, time};

use crate::Cells;
use crate::cells::{age, int_at, list_at, name, or_none};

/// All columns.
pub(crate) fn cells(pod: &Value, now: Timestamp) -> Cells {
    let summary = Summary::of(pod);
    let restarts = match summary.last_restart {
        Some(at) if summary.restarts > 0 => {
            format!("{} ({} ago)", summary.restarts, time::human_duration(now.as_second() - at.as_second()))
        }
        _ => summary.restarts.to_string(),
    };
    let ip = match list_at(pod, "status.podIPs").first().map(|ip| object::str_at(ip, "ip")) {
        None | Some("") => or_none(pod, "status.podIP"),
        Some(ip) => ip,
    };
    vec![
        name(pod),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.into(),
        restarts.into(),
        age(pod, now),
        ip.into(),
        or_none(pod, "spec.nodeName").into(),
        or_none(pod, "status.nominatedNodeName").into(),
        readiness_gates(pod),
    ]
}

fn readiness_gates(pod: &Value) -> Value {
    let gates = list_at(pod, "spec.readinessGates");
    if gates.is_empty() {
        return json!("<none>");
    }
    let is_true = |gate: &&Value| {
        let wanted = object::str_at(gate, "conditionType");
        condition(pod, wanted).is_some_and(|c| object::str_at(c, "status") == "True")
    };
    json!(format!("{}/{}", gates.iter().filter(is_true).count(), gates.len()))
}

fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a Value> {
    list_at(pod, "status.conditions").iter().find(|c| object::str_at(c, "type") == kind)
}

/// What the containers add up to.
struct Summary {
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<Timestamp>,
    reason: String,
}

impl Summary {
    fn of(pod: &Value) -> Self {
        let phase = object::str_at(pod, "status.phase");
        let reason = match object::str_at(pod, "status.reason") {
            "" => phase,
            reason => reason,
        };
        let gated =
            condition(pod, "PodScheduled").is_some_and(|c| object::str_at(c, "reason") == "SchedulingGated");
        let reason = if gated { "SchedulingGated" } else { reason };
        let mut summary = Self {
            ready: 0,
            total: list_at(pod, "spec.containers").len(),
            restarts: 0,
            last_restart: None,
            reason: reason.to_owned(),
        };
        let sidecars = summary.count_sidecars(pod);
        let initializing = summary.init(pod, &sidecars);
        let initialized =
            condition(pod, "Initialized").is_some_and(|c| object::str_at(c, "status") == "True");
        if !initializing || initialized {
            summary.main(pod, &sidecars);
        }
        summary.deleted(pod);
        summary
    }

    fn count_sidecars<'a>(&mut self, pod: &'a Value) -> Vec<&'a str> {
        let inits = list_at(pod, "spec.initContainers").iter();
        let sidecars: Vec<&str> = inits
            .filter(|c| object::str_at(c, "restartPolicy") == "Always")
            .map(|c| object::str_at(c, "name"))
            .collect();
        self.total += sidecars.len();
        sidecars
    }

    /// The init phase; answers whether it still goes on.
    fn init(&mut self, pod: &Value, sidecars: &[&str]) -> bool {
        let total = list_at(pod, "spec.initContainers").len();
        for (i, status) in list_at(pod, "status.initContainerStatuses").iter().enumerate() {
            self.count(status);
            let sidecar = sidecars.contains(&object::str_at(status, "name"));
            if sidecar {
                self.ready += usize::from(is_true(status, "ready") && is_true(status, "started"));
            }
            if let Some(end) = object::at(status, "state.terminated") {
                if int_at(end, "exitCode") == 0 {
                    continue;
                }
                self.reason = format!("Init:{}", ended(end));
            } else if sidecar && is_true(status, "started") {
                continue;
            } else {
                let waiting = object::str_at(status, "state.waiting.reason");
                self.reason = match waiting {
                    "" | "PodInitializing" => format!("Init:{i}/{total}"),
                    reason => format!("Init:{reason}"),
                };
            }
            return true;
        }
        false
    }

    fn main(&mut self, pod: &Value, sidecars: &[&str]) {
        // Once the pod is initialized, only the restarts of what still runs count.
        self.restarts = 0;
        self.last_restart = None;
        for status in list_at(pod, "status.initContainerStatuses") {
            if sidecars.contains(&object::str_at(status, "name")) {
                self.count(status);
            }
        }
        let mut running = false;
        for status in list_at(pod, "status.containerStatuses").iter().rev() {
            self.count(status);
            let waiting = object::str_at(status, "state.waiting.reason");
            if !waiting.is_empty() {
                self.reason = waiting.to_owned();
            } else if let Some(end) = object::at(status, "state.terminated") {
                self.reason = ended(end);
            } else if is_true(status, "ready") && object::at(status, "state.running").is_some() {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" && running {
            let ready = condition(pod, "Ready").is_some_and(|c| object::str_at(c, "status") == "True");
            self.reason = if ready { "Running" } else { "NotReady" }.to_owned();
        }
    }

    fn deleted(&mut self, pod: &Value) {
        if object::deletion_timestamp(pod).is_none() {
            return;
        }
        if object::str_at(pod, "status.reason") == "NodeLost" {
            self.reason = "Unknown".into();
        } else if !["Succeeded", "Failed"].contains(&object::str_at(pod, "status.phase")) {
            self.reason = "Terminating".into();
        }
    }

    fn count(&mut self, status: &Value) {
        self.restarts += int_at(status, "restartCount");
        let finished = time::parse(object::str_at(status, "lastState.terminated.finishedAt"));
        self.last_restart = self.last_restart.max(finished);
    }
}

fn is_true(object: &Value, key: &str) -> bool {
    object.get(key) == Some(&Value::Bool(true))
}

/// Why a container ended, as one word.
fn ended(end: &Value) -> String {
    match (object::str_at(end, "reason"), int_at(end, "signal")) {
        ("", 0) => format!("ExitCode:{}", int_at(end, "exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}
