//! Measurements of a running cluster: API writes, pod starts, idle cost.
//!
//! Every scenario works against the cluster of a kubeconfig (`$KUBECONFIG`), so that two clusters can be compared
//! in one sitting. Figures go to stdout as one line of JSON per scenario; latencies are in milliseconds.

mod api;
mod idle;
mod pods;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    /// Create COUNT pods that no node runs, so many requests at once, each over its own share of connections.
    Create {
        /// How many.
        count: usize,
        /// Requests in flight.
        #[arg(long, default_value_t = 32)]
        concurrency: usize,
        /// TCP connections to spread the requests over.
        #[arg(long, default_value_t = 4)]
        connections: usize,
    },
    /// Start COUNT toolbox pods, one after the other or all at once, and time each from create to Running.
    Pods {
        /// How many.
        count: usize,
        /// All at once.
        #[arg(long)]
        together: bool,
    },
    /// What processes cost while nothing happens: memory now, CPU over SECONDS.
    Idle {
        /// Process ids.
        #[arg(required = true)]
        pids: Vec<u32>,
        /// How long to look.
        #[arg(long, default_value_t = 20)]
        seconds: u64,
    },
}

#[tokio::main]
async fn main() -> Result<()> {
    // Only the first installation counts.
    drop(rustls::crypto::ring::default_provider().install_default());
    match Args::parse().scenario {
        Scenario::Create { count, concurrency, connections } => {
            api::create(count, concurrency, connections).await
        }
        Scenario::Pods { count, together } => pods::start(count, together).await,
        Scenario::Idle { pids, seconds } => idle::watch(&pids, seconds).await,
    }
}

/// The value below which `percent` of the sorted values lie.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(index).copied().unwrap_or(0.0)
}
