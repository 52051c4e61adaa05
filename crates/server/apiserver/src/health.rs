//! `/healthz`, `/livez` and `/readyz`: named checks, one by one or all together.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use xebec_lifecycle::Readiness;
use xebec_types::Status;

use crate::query::Query;
use crate::reply::{self, Reply};

/// The checks.
#[derive(Default)]
pub struct Health {
    /// What must be ready before requests should come.
    ready: Mutex<Vec<(&'static str, Readiness)>>,
    stopping: AtomicBool,
}

impl Health {
    /// Adds something that must be ready.
    pub fn wait_for(&self, name: &'static str, readiness: Readiness) {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).push((name, readiness));
    }

    /// From now on the server is not ready.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Answers one of the three paths, or one check below it.
    ///
    /// # Errors
    /// 404 for an unknown check.
    pub fn answer(&self, endpoint: &str, rest: &[&str], query: &Query) -> Reply {
        let mut checks = self.checks(endpoint);
        if let Some(name) = (!rest.is_empty()).then(|| rest.join("/")) {
            checks.retain(|(known, _)| *known == name);
            if checks.is_empty() {
                return Err(Status::no_such_resource());
            }
        }
        let excluded: Vec<&str> = query.all("exclude").collect();
        checks.retain(|(name, _)| !excluded.contains(name));
        let good = checks.iter().all(|(_, good)| *good);
        if good && !query.has("verbose") {
            return Ok(reply::text(200, "ok"));
        }
        let mut text = String::new();
        for (name, good) in &checks {
            text.push_str(&match good {
                true => format!("[+]{name} ok\n"),
                false => format!("[-]{name} failed: reason withheld\n"),
            });
        }
        text.push_str(&format!("{endpoint} check {}\n", if good { "passed" } else { "failed" }));
        Ok(reply::text(if good { 200 } else { 500 }, text))
    }

    fn checks(&self, endpoint: &str) -> Vec<(&'static str, bool)> {
        let mut checks = vec![("ping", true), ("log", true)];
        if endpoint != "livez" {
            let ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
            checks.extend(ready.iter().map(|(name, readiness)| (*name, readiness.is_ready())));
        }
        if endpoint == "readyz" {
            checks.push(("shutdown", !self.stopping.load(Ordering::Relaxed)));
        }
        checks
    }
}
