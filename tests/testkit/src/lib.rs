//! Clusters in their own namespaces and directories, cleaned up even on panic.
//!
//! A test says what it wants of a cluster and gets one of its own:
//!
//! ```no_run
//! xebec_testkit::run(xebec_testkit::Options::default(), async |cluster| {
//!     cluster.kubectl(&["get", "nodes"]).await?;
//!     Ok(())
//! });
//! ```
//!
//! Each cluster is a real `xebec up` in a network namespace that only it uses, joined to the machine by one veth pair,
//! so that clusters run side by side and the machine's own links and rules stay as they are. When the test ends, in
//! whatever way, the cluster is uninstalled and [`leftovers`] of it fail the test. Root is needed; a test without it
//! fails and says so.

mod agent;
mod bed;
mod cluster;
mod command;
mod kubectl;
pub mod leftovers;
mod running;
mod slot;
mod wait;

pub use agent::binary;
pub use cluster::{Cluster, NODE, Options};
pub use command::Output;
pub use kubectl::Kubectl;
pub use running::Running;
pub use wait::{wait_for, wait_gone, wait_list};

/// How long a condition may take on a busy machine before a test gives up on it.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// Runs one scenario on a cluster of its own, then removes the cluster.
///
/// # Panics
/// If the scenario fails, or if the cluster leaves anything behind. The agent's log is printed before.
pub fn run<F>(options: Options, scenario: F)
where
    F: AsyncFnOnce(&mut Cluster) -> anyhow::Result<()>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = runtime.expect("invariant: tokio starts").block_on(async {
        let mut cluster = Cluster::start(options).await?;
        let result = scenario(&mut cluster).await;
        if result.is_err() {
            cluster.print_log();
        }
        let removed = cluster.remove();
        // The scenario's own error is the one to tell first.
        result.and(removed)
    });
    if let Err(error) = result {
        panic!("{error:#}");
    }
}
