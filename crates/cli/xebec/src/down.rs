//! `xebec down` and `xebec uninstall`.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use xebec_cni::{Network, NetworkConfig};
use xebec_cri::{RuntimeService, SandboxFilter};
use xebec_images::ImageStore;
use xebec_netlink::Cidr;
use xebec_runtime::{EmbeddedRuntime, RuntimeConfig, SupervisorClient, SupervisorOptions};
use xebec_service::{Proxy, ProxyConfig};

use crate::adapters::{NoNetwork, StoredRootfs};
use crate::cli::{DataArgs, UninstallArgs};
use crate::datadir::DataDir;
use crate::lock::{self, Lock};
use crate::options::Options;

/// How long a running control plane gets to stop.
const STOP: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// What taking a cluster down needs to know of it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Facts {
    cluster_cidrs: Vec<String>,
    service_cidrs: Vec<String>,
    kubeconfig: PathBuf,
}

impl Facts {
    /// The facts of a cluster with these options.
    pub fn of(options: &Options) -> Self {
        let text = |list: &[Cidr]| list.iter().map(ToString::to_string).collect();
        Self {
            cluster_cidrs: text(&options.cluster_cidrs),
            service_cidrs: text(&options.service_cidrs),
            kubeconfig: options.kubeconfig_out.clone(),
        }
    }

    /// Writes them into the data directory.
    pub fn write(&self, data: &DataDir) -> Result<()> {
        let text = serde_json::to_vec_pretty(self).context("write facts")?;
        let (path, temporary) = (data.facts(), data.facts().with_extension("new"));
        std::fs::write(&temporary, text).with_context(|| format!("write {}", temporary.display()))?;
        std::fs::rename(&temporary, &path).with_context(|| format!("write {}", path.display()))
    }

    fn read(data: &DataDir) -> Result<Option<Self>> {
        let path = data.facts();
        match std::fs::read(&path) {
            Ok(text) => {
                serde_json::from_slice(&text).with_context(|| format!("read {}", path.display())).map(Some)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }
}

/// Stops the control plane, if it runs, and the pods.
pub fn down(args: DataArgs) -> Result<()> {
    let data = existing(&args.data_dir)?;
    let _lock = stop_running(&data)?;
    block_on(async {
        let runtime = runtime(&data).await?;
        let stopped = runtime.list_pod_sandboxes(&SandboxFilter::default()).await.context("list pods")?.len();
        runtime.shutdown(true).await.context("stop pods")?;
        println!("stopped {stopped} pods; `xebec up` starts them again");
        Ok(())
    })
}

/// Removes every trace.
pub fn uninstall(args: UninstallArgs) -> Result<()> {
    let data = existing(&args.data.data_dir)?;
    if !args.yes {
        confirm(&data)?;
    }
    let lock = stop_running(&data)?;
    let facts = Facts::read(&data)?;
    block_on(async {
        runtime(&data).await?.uninstall().await.context("remove pods")?;
        if let Some(facts) = &facts {
            remove_network(&data, facts).await?;
        }
        Ok(())
    })?;
    unmount_below(data.path())?;
    if let Some(facts) = facts {
        remove_file(&facts.kubeconfig)?;
    }
    std::fs::remove_dir_all(data.path()).with_context(|| format!("remove {}", data.path().display()))?;
    drop(lock);
    println!("removed {} and everything that belonged to it", data.path().display());
    Ok(())
}

fn existing(path: &Path) -> Result<DataDir> {
    ensure!(rustix::process::geteuid().is_root(), "root is needed to stop pods; run it with sudo");
    let path = std::path::absolute(path).context("data-dir")?;
    ensure!(
        path.join("lock").exists(),
        "data-dir {}: there is no cluster; name its directory with --data-dir",
        path.display()
    );
    Ok(DataDir::new(path))
}

fn confirm(data: &DataDir) -> Result<()> {
    ensure!(std::io::stdin().is_terminal(), "this removes {}; confirm with --yes", data.path().display());
    print!("This removes all pods and {} for good. Go on? [y/N] ", data.path().display());
    std::io::stdout().flush().context("ask")?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("read answer")?;
    ensure!(matches!(answer.trim(), "y" | "Y" | "yes"), "nothing was removed");
    Ok(())
}

/// Ends a running control plane and takes its lock.
fn stop_running(data: &DataDir) -> Result<Lock> {
    let pid = match lock::try_take(&data.lock())? {
        Ok(lock) => return Ok(lock),
        Err(pid) => pid,
    };
    let running = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let running = running.with_context(|| format!("{} names no process", data.lock().display()))?;
    let process = pidfd_open(running, PidfdFlags::empty()).with_context(|| format!("find pid {pid}"))?;
    println!("stopping the control plane (pid {pid})");
    pidfd_send_signal(&process, Signal::TERM).with_context(|| format!("stop pid {pid}"))?;
    let mut fds = [PollFd::new(&process, PollFlags::IN)];
    let ended = poll(&mut fds, Some(&STOP)).context("wait for the control plane")?;
    ensure!(ended > 0, "the control plane (pid {pid}) does not stop; end it and try again");
    lock::take(&data.lock())
}

fn block_on(work: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.context("start tokio")?.block_on(work)
}

async fn runtime(data: &DataDir) -> Result<EmbeddedRuntime> {
    let supervisor = SupervisorClient::connect_or_start(SupervisorOptions {
        state_dir: data.runtime(),
        cgroup_root: data.cgroup_root(),
        exe: std::env::current_exe().context("find our own binary")?,
    });
    let supervisor = supervisor.await.context("reach the supervisor")?;
    let store =
        ImageStore::open(data.images(), xebec_images::Options::default()).context("open the image store")?;
    let config = RuntimeConfig { name: "xebec".into(), version: env!("CARGO_PKG_VERSION").into() };
    let runtime =
        EmbeddedRuntime::new(config, supervisor, Arc::new(StoredRootfs(store)), Arc::new(NoNetwork)).await;
    runtime.context("reach the runtime")
}

async fn remove_network(data: &DataDir, facts: &Facts) -> Result<()> {
    let parse = |list: &[String]| {
        list.iter().map(|cidr| cidr.parse::<Cidr>()).collect::<Result<Vec<_>, _>>().context("read facts")
    };
    let (cluster, service) = (parse(&facts.cluster_cidrs)?, parse(&facts.service_cidrs)?);
    Proxy::uninstall(&ProxyConfig::new(cluster.clone(), service)).await.context("remove Service rules")?;
    let config = NetworkConfig::new(cluster.clone(), cluster, data.addresses());
    Network::open(config).context("open the pod network")?.teardown().await.context("remove the pod network")
}

/// Unmounts whatever is still mounted below a directory, the deepest first.
fn unmount_below(directory: &Path) -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("read mounts")?;
    let mut below: Vec<PathBuf> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|path| PathBuf::from(path.replace("\\040", " ")))
        .filter(|path| path.starts_with(directory))
        .collect();
    below.reverse();
    for mount in below {
        let unmounted = rustix::mount::unmount(&mount, rustix::mount::UnmountFlags::DETACH);
        unmounted.with_context(|| format!("unmount {}", mount.display()))?;
    }
    Ok(())
}

fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
