//! Request metrics, under upstream's names.

use std::time::Duration;

use xebec_telemetry::metrics::{Counter, Family, Gauge, Histogram, Metric};

use crate::request::RequestInfo;

/// What is counted.
pub struct Metrics {
    requests: Family<Counter>,
    durations: Family<Histogram>,
    /// Requests in flight that are not long-running.
    pub in_flight: Gauge,
    /// Watches open.
    pub long_running: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Family::new(
                "apiserver_request_total",
                "Requests by verb, resource, scope and code.",
                &["verb", "group", "version", "resource", "subresource", "scope", "code"],
            ),
            durations: Family::new(
                "apiserver_request_duration_seconds",
                "Duration of requests other than watches and streams.",
                &["verb", "resource", "scope"],
            ),
            in_flight: Gauge::default(),
            long_running: Gauge::default(),
        }
    }
}

impl Metrics {
    /// Counts a request. Only names the catalog knows become labels, so that their number is bounded.
    pub fn count(&self, info: &RequestInfo, known: bool, code: u16, took: Duration) {
        let verb = match (info.verb, info.name.is_empty()) {
            ("create", _) => "POST",
            ("update", _) => "PUT",
            (verb, _) => verb,
        }
        .to_ascii_uppercase();
        let code = code.to_string();
        let (group, version, resource, subresource) = match known {
            true => (&*info.group, &*info.version, &*info.resource, &*info.subresource),
            false => ("", "", "", ""),
        };
        let scope = info.scope();
        self.requests.with(&[&verb, group, version, resource, subresource, scope, &code]).inc();
        if !info.long_running() {
            self.durations.with(&[&verb, resource, scope]).observe(took);
        }
    }

    /// The Prometheus text.
    pub fn write(&self) -> String {
        let mut out = String::new();
        self.requests.write(&mut out);
        self.durations.write(&mut out);
        for (name, help, gauge) in [
            ("apiserver_current_inflight_requests", "Requests in flight.", &self.in_flight),
            ("apiserver_longrunning_requests", "Watches and streams open.", &self.long_running),
        ] {
            out.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {}\n", Gauge::KIND));
            gauge.write(name, "", &mut out);
        }
        out
    }
}
