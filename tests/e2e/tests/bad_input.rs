//! What cannot work is refused in words that help.

use anyhow::{Context, Result, ensure};
use xebec_testkit::{Cluster, Options, run};

#[test]
fn second_clusters_and_taken_ports_are_refused() {
    run(Options::default(), async |cluster| {
        let data_dir = cluster.data_dir().display().to_string();
        let said = refused(cluster, &["up", "--data-dir", &data_dir, "--node-name", "n2"]).await?;
        let pid = cluster.agent_pid().context("it runs")?.to_string();
        ensure!(said.contains(&data_dir) && said.contains(&pid), "second up: {said}");

        let other = cluster.scratch().join("other").display().to_string();
        let said = refused(cluster, &["up", "--data-dir", &other, "--node-name", "n2"]).await?;
        ensure!(said.contains("6443") && said.contains("--secure-port"), "port in use: {said}");

        // Neither attempt did the first cluster any harm.
        let nodes = cluster.kubectl(&["get", "nodes", "-o", "name"]).await?;
        ensure!(nodes.trim() == "node/n1", "{nodes}");
        // The second attempt may have made its own directory; nothing else may know of it.
        let output = cluster.xebec(&["uninstall", "--yes", "--data-dir", &other]).await?;
        ensure!(output.success() || output.stderr.contains("no cluster"), "{output:?}");
        let left = xebec_testkit::leftovers::mounts(std::path::Path::new(&other));
        ensure!(left.is_empty(), "left behind: {left:?}");
        let nodes = cluster.kubectl(&["get", "nodes", "-o", "name"]).await?;
        ensure!(nodes.trim() == "node/n1", "{nodes}");
        Ok(())
    });
}

async fn refused(cluster: &Cluster, arguments: &[&str]) -> Result<String> {
    let output = cluster.xebec(arguments).await?;
    ensure!(!output.success(), "{arguments:?} was not refused: {output:?}");
    Ok(output.stderr)
}
