//! Counters, gauges and histograms in the Prometheus text format, without a registry crate.
//!
//! A metric is a `static` or lives in its component; [`Family`] gives it labels. Updating one is an atomic addition.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// Something that can write itself in the Prometheus text format, below `# HELP` and `# TYPE` lines.
pub trait Metric {
    /// `counter`, `gauge` or `histogram`.
    const KIND: &'static str;
    /// Writes its samples. `labels` is empty or `a="b",c="d"`.
    fn write(&self, name: &str, labels: &str, out: &mut String);
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }
    /// The present value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Metric for Counter {
    const KIND: &'static str = "counter";
    fn write(&self, name: &str, labels: &str, out: &mut String) {
        sample(out, name, labels, self.get());
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Adds `n`, which may be negative.
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }
    /// Sets it.
    pub fn set(&self, n: i64) {
        self.0.store(n, Ordering::Relaxed);
    }
    /// The present value.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Metric for Gauge {
    const KIND: &'static str = "gauge";
    fn write(&self, name: &str, labels: &str, out: &mut String) {
        sample(out, name, labels, self.get());
    }
}

/// Upper bounds of duration buckets, in seconds.
const BOUNDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// Durations in fixed buckets from 1 ms to 30 s.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS.len()],
    count: AtomicU64,
    sum_us: AtomicU64,
}

impl Histogram {
    /// Counts one duration.
    pub fn observe(&self, duration: std::time::Duration) {
        let seconds = duration.as_secs_f64();
        if let Some(bucket) = BOUNDS.iter().position(|bound| seconds <= *bound) {
            self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }
}

impl Metric for Histogram {
    const KIND: &'static str = "histogram";
    fn write(&self, name: &str, labels: &str, out: &mut String) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut below = 0;
        for (bound, bucket) in BOUNDS.iter().zip(&self.buckets) {
            below += bucket.load(Ordering::Relaxed);
            sample(out, &format!("{name}_bucket"), &format!("{labels}{comma}le=\"{bound}\""), below);
        }
        let count = self.count.load(Ordering::Relaxed);
        sample(out, &format!("{name}_bucket"), &format!("{labels}{comma}le=\"+Inf\""), count);
        #[allow(clippy::cast_precision_loss)]
        let sum = self.sum_us.load(Ordering::Relaxed) as f64 / 1e6;
        sample(out, &format!("{name}_sum"), labels, sum);
        sample(out, &format!("{name}_count"), labels, count);
    }
}

fn sample(out: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let written = match labels {
        "" => writeln!(out, "{name} {value}"),
        labels => writeln!(out, "{name}{{{labels}}} {value}"),
    };
    written.expect("invariant: writing to a String does not fail");
}

/// A metric for every combination of label values. The combinations must be bounded by the caller.
#[derive(Debug)]
pub struct Family<M> {
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    members: RwLock<BTreeMap<Vec<String>, Arc<M>>>,
}

impl<M: Metric + Default> Family<M> {
    /// An empty family.
    pub const fn new(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Self {
        Self { name, help, labels, members: RwLock::new(BTreeMap::new()) }
    }

    /// The member with these label values, in the order of the label names.
    pub fn with(&self, values: &[&str]) -> Arc<M> {
        let key: Vec<String> = values.iter().map(|v| (*v).to_owned()).collect();
        if let Some(found) = self.members.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return found.clone();
        }
        self.members.write().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone()
    }

    /// Writes the whole family.
    pub fn write(&self, out: &mut String) {
        let header = writeln!(out, "# HELP {} {}\n# TYPE {} {}", self.name, self.help, self.name, M::KIND);
        header.expect("invariant: writing to a String does not fail");
        for (values, member) in self.members.read().unwrap_or_else(PoisonError::into_inner).iter() {
            let pairs: Vec<String> =
                self.labels.iter().zip(values).map(|(l, v)| format!("{l}=\"{}\"", escape(v))).collect();
            member.write(self.name, &pairs.join(","), out);
        }
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_write_the_text_format() {
        static REQUESTS: Family<Counter> = Family::new("requests_total", "Requests.", &["verb", "code"]);
        REQUESTS.with(&["get", "200"]).add(2);
        REQUESTS.with(&["get", "404"]).inc();
        let mut out = String::new();
        REQUESTS.write(&mut out);
        expect_test::expect![[r#"
            # HELP requests_total Requests.
            # TYPE requests_total counter
            requests_total{verb="get",code="200"} 2
            requests_total{verb="get",code="404"} 1
        "#]]
        .assert_eq(&out);
    }

    #[test]
    fn histograms_are_cumulative() {
        let durations: Family<Histogram> = Family::new("duration_seconds", "Durations.", &[]);
        durations.with(&[]).observe(std::time::Duration::from_millis(3));
        let mut out = String::new();
        durations.write(&mut out);
        assert!(out.contains("duration_seconds_bucket{le=\"0.0025\"} 0"), "{out}");
        assert!(out.contains("duration_seconds_bucket{le=\"0.005\"} 1"), "{out}");
        assert!(out.contains("duration_seconds_count 1"), "{out}");
    }
}
