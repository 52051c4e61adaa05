//! The example with real servers: Debian's packages in images of our own making, pulled from Debian's registry,
//! deployed, scaled, updated and rolled back.

use anyhow::{Context, Result, ensure};
use xebec_testkit::{Cluster, Options, binary, run};

/// The script checks every step itself and fails with what it saw.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/guestbook/run.sh");

#[test]
fn the_guestbook_runs_with_our_own_client() {
    run(Options::default(), async |cluster| guestbook(cluster).await);
}

async fn guestbook(cluster: &mut Cluster) -> Result<()> {
    let binary = binary()?;
    let client = format!("KUBECTL={} kubectl", binary.to_str().context("the binary's path is text")?);
    let kubeconfig = format!("KUBECONFIG={}", cluster.kubeconfig().display());
    let done = cluster.run_in_netns(&["env", &client, &kubeconfig, "bash", SCRIPT]).await?;
    ensure!(done.success(), "the guestbook failed:\n{}", done.both());
    Ok(())
}
