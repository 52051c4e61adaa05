//! The command line where no cluster is: what cannot work is refused in words that help.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};

const XEBEC: &str = env!("CARGO_BIN_EXE_xebec");

#[test]
fn the_name_decides_what_it_is() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let kubectl = directory.path().join("kubectl");
    std::os::unix::fs::symlink(XEBEC, &kubectl)?;
    let output = Command::new(&kubectl).arg("--help").output()?;
    ensure!(output.status.success() && stdout(&output).contains("port-forward"), "{output:?}");
    let output = xebec(&["--version"])?;
    ensure!(stdout(&output).starts_with("xebec "), "{output:?}");
    Ok(())
}

#[test]
fn unknown_keys_and_options_are_named() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let config = directory.path().join("config.yaml");
    std::fs::write(&config, "secure-port: 6443\nsecure-prot: 6444\n")?;
    let (config, data) = (config.display().to_string(), directory.path().join("data").display().to_string());
    let output = xebec(&["up", "--config", &config, "--data-dir", &data])?;
    std::fs::write(&config, "secure-port: many\n")?;
    let value = xebec(&["up", "--config", &config, "--data-dir", &data])?;
    let missing = xebec(&["up", "--config", "/nonexistent.yaml", "--data-dir", &data])?;
    let cidr = xebec(&["up", "--cluster-cidr", "10.244.0.1/16", "--data-dir", &data])?;
    let option = xebec(&["up", "--no-such-option"])?;
    let made = directory.path().join("data").exists();

    ensure!(!output.status.success() && stderr(&output).contains("secure-prot"), "unknown key: {output:?}");
    ensure!(stderr(&output).contains(&config), "the file is named: {output:?}");
    ensure!(!value.status.success() && stderr(&value).contains("secure-port"), "wrong value: {value:?}");
    ensure!(
        !missing.status.success() && stderr(&missing).contains("/nonexistent.yaml"),
        "missing file: {missing:?}"
    );
    ensure!(!cidr.status.success() && stderr(&cidr).contains("10.244.0.0/16"), "host bits: {cidr:?}");
    ensure!(
        !option.status.success() && stderr(&option).contains("--no-such-option"),
        "unknown option: {option:?}"
    );
    ensure!(!made, "refused input made a data directory");
    Ok(())
}

#[test]
fn a_missing_privilege_is_named() -> Result<()> {
    let directory = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir()?;
    let copy = directory.path().join("xebec");
    // The build directory may be closed to others. Copied by another process: what tests beside this one fork would
    // inherit the descriptor written to, and a program that is being written cannot be run (ETXTBSY).
    ensure!(Command::new("cp").arg(XEBEC).arg(&copy).status()?.success(), "cp {XEBEC}");
    let (program, data) = (copy.display().to_string(), directory.path().join("data").display().to_string());
    let words = ["--reuid=65534", "--regid=65534", "--clear-groups", &program, "up", "--data-dir", &data];
    let output = Command::new("setpriv").args(words).output().context("setpriv")?;
    let said = stderr(&output);
    ensure!(!output.status.success() && said.contains("root") && said.contains("sudo"), "not root: {said}");
    Ok(())
}

#[test]
fn there_is_nothing_to_remove_where_no_cluster_is() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let data = directory.path().display().to_string();
    let (down, uninstall) =
        (xebec(&["down", "--data-dir", &data])?, xebec(&["uninstall", "--yes", "--data-dir", &data])?);
    ensure!(!down.status.success() && stderr(&down).contains(&data), "{down:?}");
    ensure!(!uninstall.status.success() && stderr(&uninstall).contains(&data), "{uninstall:?}");
    ensure!(directory.path().exists(), "uninstall removed a directory that is no cluster's");
    Ok(())
}

fn xebec(arguments: &[&str]) -> Result<Output> {
    Command::new(XEBEC).args(arguments).output().context(XEBEC)
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
