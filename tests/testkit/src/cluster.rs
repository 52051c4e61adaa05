//! One cluster for one test.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::AttachParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use tokio::io::AsyncReadExt;

use crate::agent::{Agent, binary};
use crate::bed::Bed;
use crate::command::{self, Output, run_blocking};
use crate::kubectl::Kubectl;
use crate::leftovers;
use crate::running::Running;
use crate::slot::Slot;

/// Name of a cluster's one node.
pub const NODE: &str = "n1";

/// What a test wants of its cluster.
#[derive(Debug, Default)]
pub struct Options {
    /// Further arguments of `xebec up`.
    pub arguments: Vec<String>,
}

/// A running cluster. Removed when it is dropped, also by a panic.
pub struct Cluster {
    agent: Option<Agent>,
    client: Client,
    data_dir: PathBuf,
    arguments: Vec<String>,
    binary: PathBuf,
    removed: bool,
    // In this order: what is below goes after what needs it.
    bed: Bed,
    directory: tempfile::TempDir,
    slot: Slot,
}

impl Cluster {
    /// Starts a cluster and waits until it is ready.
    ///
    /// # Errors
    /// Without root, without the binary, or if the cluster does not become ready; the log is printed then.
    pub async fn start(options: Options) -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "end-to-end tests make namespaces and mounts: run them as root"
        );
        let binary = binary()?;
        let mut slot = Slot::take().await?;
        if let Some(stale) = slot.stale() {
            remove_stale(&binary, &stale, slot.number);
        }
        let directory =
            tempfile::Builder::new().prefix("xebec-test-").tempdir().context("make a directory")?;
        slot.note(Some(directory.path()))?;
        let bed = Bed::new(slot.number)?;
        let data_dir = directory.path().join("data");
        let mut cluster = Self {
            agent: None,
            client: placeholder()?,
            data_dir,
            arguments: options.arguments,
            binary,
            removed: false,
            bed,
            directory,
            slot,
        };
        if let Err(error) = cluster.up().await {
            cluster.print_log();
            return Err(error);
        }
        let groups = leftovers::cgroups(&cluster.data_dir);
        ensure!(!groups.is_empty(), "the cluster's control groups are not where the testkit looks for them");
        Ok(cluster)
    }

    /// Runs `xebec up` (again) and waits until it is ready.
    ///
    /// # Errors
    /// If it runs already, or does not become ready.
    pub async fn up(&mut self) -> Result<()> {
        ensure!(self.agent.is_none(), "xebec up runs already");
        let mut words = self.bed.enter().to_vec();
        words.push(self.binary.display().to_string());
        words.extend(["up", "--node-name", NODE, "--data-dir"].map(ToOwned::to_owned));
        words.push(self.data_dir.display().to_string());
        words.extend(self.arguments.iter().cloned());
        self.agent = Some(Agent::start(&words, self.directory.path(), &self.log_path()).await?);
        self.removed = false;
        self.client = client(&self.kubeconfig()).await?;
        Ok(())
    }

    /// A client with the administrator's rights, from outside the namespace.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.data_dir.join("kubeconfig")
    }

    /// The cluster's data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// A directory that goes away with the cluster, outside its data directory.
    pub fn scratch(&self) -> &Path {
        self.directory.path()
    }

    /// The node's address, which the machine reaches.
    pub fn address(&self) -> IpAddr {
        self.bed.address()
    }

    /// The machine's address towards the node.
    pub fn host_address(&self) -> IpAddr {
        self.bed.host_address()
    }

    /// Name of the node's network namespace.
    pub fn netns(&self) -> String {
        self.bed.name()
    }

    /// Where the node's network namespace can be opened.
    pub fn netns_path(&self) -> PathBuf {
        self.bed.path()
    }

    /// Process id of `xebec up`, while it runs.
    pub fn agent_pid(&self) -> Option<u32> {
        self.agent.as_ref().map(Agent::pid)
    }

    /// Kills `xebec up` with SIGKILL.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill_agent(&mut self) -> Result<()> {
        self.agent.take().context("xebec up does not run")?.kill()
    }

    /// Stops `xebec up` with SIGTERM.
    ///
    /// # Errors
    /// If it does not run, or does not end well.
    pub async fn stop_agent(&mut self) -> Result<()> {
        self.agent.take().context("xebec up does not run")?.stop().await
    }

    /// Stops `xebec up` with SIGTERM and runs it again.
    ///
    /// # Errors
    /// As [`Self::stop_agent`] and [`Self::up`].
    pub async fn restart(&mut self) -> Result<()> {
        self.stop_agent().await?;
        self.up().await
    }

    /// Runs upstream's newest kubectl and wants it to succeed. Answers its standard output.
    ///
    /// # Errors
    /// If it fails, with what it said.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.run_kubectl(Kubectl::Newest, arguments).await
    }

    /// Runs upstream's newest kubectl with text on its standard input.
    ///
    /// # Errors
    /// If there is none, or it takes too long.
    pub async fn try_kubectl(&self, arguments: &[&str], input: &str) -> Result<Output> {
        self.try_run_kubectl(Kubectl::Newest, arguments, input).await
    }

    /// Runs `xebec kubectl` and wants it to succeed. Answers its standard output.
    ///
    /// # Errors
    /// If it fails, with what it said.
    pub async fn own_kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.run_kubectl(Kubectl::Own, arguments).await
    }

    /// Runs `xebec kubectl` with text on its standard input.
    ///
    /// # Errors
    /// If it takes too long.
    pub async fn try_own_kubectl(&self, arguments: &[&str], input: &str) -> Result<Output> {
        self.try_run_kubectl(Kubectl::Own, arguments, input).await
    }

    /// Runs a kubectl and wants it to succeed. Answers its standard output.
    ///
    /// # Errors
    /// If it fails, with what it said.
    pub async fn run_kubectl(&self, kubectl: Kubectl, arguments: &[&str]) -> Result<String> {
        succeeded(kubectl.name(), arguments, self.try_run_kubectl(kubectl, arguments, "").await?)
    }

    /// Runs a kubectl with text on its standard input.
    ///
    /// # Errors
    /// If there is none, or it takes too long.
    pub async fn try_run_kubectl(&self, kubectl: Kubectl, arguments: &[&str], input: &str) -> Result<Output> {
        command::run(&mut self.command(kubectl, arguments)?, input).await
    }

    /// Starts a kubectl that goes on while the test talks to it.
    ///
    /// # Errors
    /// If there is none, or it cannot be started.
    pub fn start_kubectl(&self, kubectl: Kubectl, arguments: &[&str]) -> Result<Running> {
        Running::start(&mut self.command(kubectl, arguments)?)
    }

    /// Starts a kubectl in a terminal of 24 lines and 80 columns.
    ///
    /// # Errors
    /// If there is none, or it cannot be started.
    pub fn start_in_terminal(&self, kubectl: Kubectl, arguments: &[&str]) -> Result<Running> {
        Running::start_in_terminal(&self.command(kubectl, arguments)?, 24, 80)
    }

    fn command(&self, kubectl: Kubectl, arguments: &[&str]) -> Result<tokio::process::Command> {
        let mut program = kubectl.command(&self.binary)?;
        // A home of its own keeps the discovery cache from other clusters at the same address.
        let home = self.directory.path().join(format!("home-{kubectl:?}").to_lowercase());
        program.args(arguments).env("KUBECONFIG", self.kubeconfig()).env("HOME", home);
        Ok(program)
    }

    /// `kubectl apply` of a manifest.
    ///
    /// # Errors
    /// If it fails, with what it said.
    pub async fn apply(&self, manifest: &str) -> Result<String> {
        succeeded("kubectl", &["apply"], self.try_kubectl(&["apply", "-f", "-"], manifest).await?)
    }

    /// Runs a program in the node's network namespace.
    ///
    /// # Errors
    /// If it cannot be started or takes too long.
    pub async fn run_in_netns(&self, words: &[&str]) -> Result<Output> {
        let [nsenter, net] = self.bed.enter();
        let mut program = tokio::process::Command::new(nsenter);
        self.environment(program.arg(net));
        command::run(program.args(words), "").await
    }

    /// Starts a program in the node's network namespace that goes on while the test talks to it.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_in_netns(&self, words: &[&str]) -> Result<Running> {
        let [nsenter, net] = self.bed.enter();
        let mut program = tokio::process::Command::new(nsenter);
        self.environment(program.arg(net));
        Running::start(program.args(words))
    }

    /// Runs the binary under test in the node's network namespace.
    ///
    /// # Errors
    /// If it cannot be started or takes too long.
    pub async fn xebec(&self, arguments: &[&str]) -> Result<Output> {
        self.xebec_with_input(arguments, "").await
    }

    /// Runs the binary under test in the node's network namespace with text on its standard input.
    ///
    /// # Errors
    /// If it cannot be started or takes too long.
    pub async fn xebec_with_input(&self, arguments: &[&str], input: &str) -> Result<Output> {
        let [nsenter, net] = self.bed.enter();
        let mut program = tokio::process::Command::new(nsenter);
        self.environment(program.arg(net).arg(&self.binary));
        command::run(program.args(arguments), input).await
    }

    /// Runs a program in a pod of the namespace `default`.
    ///
    /// # Errors
    /// If the exec itself fails; the program's exit code is part of the answer.
    pub async fn exec(&self, pod: &str, words: &[&str]) -> Result<Output> {
        let pods: Api<Pod> = Api::default_namespaced(self.client());
        let parameters = AttachParams::default().stdin(false).stdout(true).stderr(true);
        let mut process = pods.exec(pod, words.to_vec(), &parameters).await.context("exec")?;
        let (mut stdout, mut stderr) = (String::new(), String::new());
        let mut out = process.stdout().expect("invariant: asked for");
        let mut err = process.stderr().expect("invariant: asked for");
        let status = process.take_status().expect("invariant: taken once");
        let (out, err, status) =
            tokio::join!(out.read_to_string(&mut stdout), err.read_to_string(&mut stderr), status);
        out.and(err).context("read what exec says")?;
        let status = status.context("exec ended without a status")?;
        let causes = status.details.and_then(|details| details.causes).unwrap_or_default();
        let code = causes.iter().find(|cause| cause.reason.as_deref() == Some("ExitCode"));
        let code = code.and_then(|cause| cause.message.as_deref()).and_then(|code| code.parse().ok());
        let code = if status.status.as_deref() == Some("Success") { Some(0) } else { code };
        let code = code.with_context(|| format!("exec failed: {:?}", status.message))?;
        Ok(Output { code, stdout, stderr })
    }

    /// What a container of the namespace `default` wrote so far.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn logs(&self, pod: &str) -> Result<String> {
        let pods: Api<Pod> = Api::default_namespaced(self.client());
        pods.logs(pod, &kube::api::LogParams::default()).await.with_context(|| format!("logs of {pod}"))
    }

    /// `xebec down`: also ends a running `xebec up`.
    ///
    /// # Errors
    /// If it fails, with what it said.
    pub async fn down(&mut self) -> Result<String> {
        self.end(&["down"]).await
    }

    /// `xebec uninstall`: also ends a running `xebec up`.
    ///
    /// # Errors
    /// If it fails, with what it said.
    pub async fn uninstall(&mut self) -> Result<String> {
        let said = self.end(&["uninstall", "--yes"]).await?;
        self.removed = true;
        Ok(said)
    }

    async fn end(&mut self, verb: &[&str]) -> Result<String> {
        let data_dir = self.data_dir.display().to_string();
        let arguments = [verb, &["--data-dir", &data_dir]].concat();
        let output = self.xebec(&arguments).await?;
        // It has ended by now; this reaps it.
        self.agent = None;
        succeeded("xebec", &arguments, output)
    }

    /// Prints what the agent and the supervisor said, for whoever reads a failed test.
    pub fn print_log(&self) {
        for path in [self.log_path(), self.data_dir.join("runtime/supervisor.log")] {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let from = lines.len().saturating_sub(200);
            eprintln!("--- {} (last lines)\n{}", path.display(), lines[from..].join("\n"));
        }
    }

    /// Removes the cluster, unless that was done.
    ///
    /// # Errors
    /// If removing fails, or with what was left behind.
    pub fn remove(mut self) -> Result<()> {
        self.clean()
    }

    /// What is still there of the cluster, in words. Complete only after an uninstall.
    pub fn leftovers(&self) -> Vec<String> {
        let say =
            |what: &str, list: Vec<String>| list.into_iter().map(|item| format!("{what} {item}")).collect();
        let paths = |list: Vec<PathBuf>| list.into_iter().map(|path| path.display().to_string()).collect();
        let netns = self.bed.name();
        let mut all: Vec<String> = say("mount", paths(leftovers::mounts(&self.data_dir)));
        all.extend::<Vec<_>>(say("control group", paths(leftovers::cgroups(&self.data_dir))));
        all.extend::<Vec<_>>(say("process", leftovers::processes(&self.data_dir, &self.bed.path())));
        all.extend::<Vec<_>>(say("link", leftovers::links(&netns)));
        all.extend::<Vec<_>>(say("route", leftovers::routes(&netns)));
        all.extend::<Vec<_>>(say("nftables", leftovers::tables(&self.bed.path())));
        if self.data_dir.exists() {
            all.push(format!("directory {}", self.data_dir.display()));
        }
        all
    }

    fn clean(&mut self) -> Result<()> {
        self.agent = None;
        let mut result = Ok(());
        if !self.removed && self.data_dir.join("lock").exists() {
            let [nsenter, net] = self.bed.enter();
            let (binary, data_dir) = (self.binary.display().to_string(), self.data_dir.display().to_string());
            let words = [&nsenter, &net, &binary, "uninstall", "--yes", "--data-dir", &data_dir];
            result = run_blocking(&words).map(drop);
        }
        self.removed = true;
        let left = self.leftovers();
        if result.is_ok() && !left.is_empty() {
            result = Err(anyhow::anyhow!("uninstall left behind:\n{}", left.join("\n")));
        }
        self.bed.remove();
        if result.is_ok() {
            self.slot.note(None)?;
        }
        result
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("agent.log")
    }

    fn environment(&self, program: &mut tokio::process::Command) {
        // A home of its own keeps kubectl's discovery cache from other clusters at the same address.
        program.env("KUBECONFIG", self.kubeconfig()).env("HOME", self.directory.path());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.removed && self.agent.is_none() && !self.data_dir.exists() {
            return;
        }
        if std::thread::panicking() {
            self.print_log();
        }
        if let Err(error) = self.clean() {
            eprintln!("removing the cluster: {error:#}");
        }
    }
}

async fn client(kubeconfig: &Path) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).context("read the kubeconfig")?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    Client::try_from(config.context("read the kubeconfig")?).context("make a client")
}

/// Until the first start gives a real one.
fn placeholder() -> Result<Client> {
    Client::try_from(Config::new("https://127.0.0.1:1".parse()?)).context("make a client")
}

fn succeeded(program: &str, arguments: &[&str], output: Output) -> Result<String> {
    let said = output.both();
    ensure!(output.success(), "{program} {}: exit code {}: {said}", arguments.join(" "), output.code);
    Ok(output.stdout)
}

/// What a killed test left: its agent, its pods, its files.
fn remove_stale(binary: &Path, directory: &Path, slot: u8) {
    let data_dir = directory.join("data");
    let netns = format!("--net=/run/netns/xebec-test-{slot}");
    let (binary, data_dir) = (binary.display().to_string(), data_dir.display().to_string());
    let words = ["nsenter", &netns, &binary, "uninstall", "--yes", "--data-dir", &data_dir];
    // Best effort: what stays cannot be in the way of a cluster with another directory.
    drop(run_blocking(&words));
    if leftovers::mounts(directory).is_empty() && directory.starts_with(std::env::temp_dir()) {
        drop(std::fs::remove_dir_all(directory));
    }
}
