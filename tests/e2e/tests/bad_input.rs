//! What cannot work is refused in words that help.

use anyhow::{Context, Result, ensure};
use xebec_testkit::{Cluster, Options, Output, binary, run};

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

#[test]
fn unknown_keys_and_options_are_named() -> Result<()> {
    let directory = scratch("keys")?;
    let config = directory.join("config.yaml");
    std::fs::write(&config, "secure-port: 6443\nsecure-prot: 6444\n")?;
    let (config, data) = (config.display().to_string(), directory.join("data").display().to_string());
    let output = xebec(&["up", "--config", &config, "--data-dir", &data])?;
    std::fs::write(&config, "secure-port: many\n")?;
    let value = xebec(&["up", "--config", &config, "--data-dir", &data])?;
    let missing = xebec(&["up", "--config", "/nonexistent.yaml", "--data-dir", &data])?;
    let cidr = xebec(&["up", "--cluster-cidr", "10.244.0.1/16", "--data-dir", &data])?;
    let option = xebec(&["up", "--no-such-option"])?;
    let made = directory.join("data").exists();
    std::fs::remove_dir_all(&directory)?;

    ensure!(!output.success() && output.stderr.contains("secure-prot"), "unknown key: {output:?}");
    ensure!(output.stderr.contains(&config), "the file is named: {output:?}");
    ensure!(!value.success() && value.stderr.contains("secure-port"), "wrong value: {value:?}");
    ensure!(!missing.success() && missing.stderr.contains("/nonexistent.yaml"), "missing file: {missing:?}");
    ensure!(!cidr.success() && cidr.stderr.contains("10.244.0.0/16"), "host bits: {cidr:?}");
    ensure!(!option.success() && option.stderr.contains("--no-such-option"), "unknown option: {option:?}");
    ensure!(!made, "refused input made a data directory");
    Ok(())
}

#[test]
fn a_missing_privilege_is_named() -> Result<()> {
    let directory = scratch("nobody")?;
    let copy = directory.join("xebec");
    // The build directory may be closed to others.
    std::fs::copy(binary()?, &copy)?;
    let (program, data) = (copy.display().to_string(), directory.join("data").display().to_string());
    let words = ["--reuid=65534", "--regid=65534", "--clear-groups", &program, "up", "--data-dir", &data];
    let output = std::process::Command::new("setpriv").args(words).output().context("setpriv")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    std::fs::remove_dir_all(&directory)?;
    ensure!(!output.status.success() && said.contains("root") && said.contains("sudo"), "not root: {said}");
    Ok(())
}

#[test]
fn there_is_nothing_to_remove_where_no_cluster_is() -> Result<()> {
    let directory = scratch("nothing")?;
    let data = directory.display().to_string();
    let (down, uninstall) =
        (xebec(&["down", "--data-dir", &data])?, xebec(&["uninstall", "--yes", "--data-dir", &data])?);
    let kept = directory.exists();
    std::fs::remove_dir_all(&directory)?;
    ensure!(!down.success() && down.stderr.contains(&data), "{down:?}");
    ensure!(!uninstall.success() && uninstall.stderr.contains(&data), "{uninstall:?}");
    ensure!(kept, "uninstall removed a directory that is no cluster's");
    Ok(())
}

async fn refused(cluster: &Cluster, arguments: &[&str]) -> Result<String> {
    let output = cluster.xebec(arguments).await?;
    ensure!(!output.success(), "{arguments:?} was not refused: {output:?}");
    Ok(output.stderr)
}

fn scratch(name: &str) -> Result<std::path::PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let directory = std::env::temp_dir().join(format!("xebec-test-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o755))?;
    Ok(directory)
}

fn xebec(arguments: &[&str]) -> Result<Output> {
    let output = std::process::Command::new(binary()?).args(arguments).output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().unwrap_or(-1);
    Ok(Output { code, stdout: text(&output.stdout), stderr: text(&output.stderr) })
}
