//! `xebec up`: a one-node cluster in the foreground.
//!
//! The order is that of need: certificates, store, API server, controllers and scheduler, then the node. Everything
//! after the API server talks to it through clients that act under an identity of their own, and runs on other
//! threads: a node that starts a hundred pods at once does not keep a request waiting.

mod addons;
mod agents;
mod certificates;
mod clients;
mod control;
mod control_socket;
mod node;
mod server;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::sync::CancellationToken;
use xebec_lifecycle::Group;
use xebec_telemetry::{LogFormat, Progress, init_logs};

use crate::cli::UpArgs;
use crate::datadir::DataDir;
use crate::down::Facts;
use crate::options::Options;
use crate::{host, lock, preflight};

pub use control_socket::{Credentials, ImagesReply, ImagesRequest, ask as ask_images, serve_locally};

/// How long components get to stop.
const GRACE: Duration = Duration::from_secs(5);

/// Runs a cluster until it is interrupted.
pub fn main(args: UpArgs) -> Result<()> {
    init_logs(LogFormat::Compact, "warn");
    let options = Options::resolve(args, &host::name())?;
    preflight::check()?;
    let data = DataDir::new(&options.data_dir);
    data.create()?;
    let _lock = lock::take(&data.lock())?;
    let (server, agents) = (runtime("xebec-server")?, runtime("xebec-agents")?);
    server.block_on(run(options, data, agents.handle()))
}

/// As many threads as there are cores, so called in `top -H`.
fn runtime(name: &str) -> Result<Runtime> {
    Builder::new_multi_thread().thread_name(name).enable_all().build().context("start tokio")
}

async fn run(options: Options, data: DataDir, agents: &Handle) -> Result<()> {
    let progress = Arc::new(Progress::new());
    progress.line(&format!("xebec {} on {}", env!("CARGO_PKG_VERSION"), data.path().display()));
    let token = CancellationToken::new();
    let mut group = Group::new(token.clone());
    stop_on_signal(&token)?;
    Facts::of(&options).write(&data)?;

    let started = start(&options, &data, &mut group, &progress, agents);
    match token.run_until_cancelled(started).await {
        Some(Ok(())) => greet(&options, &progress),
        Some(Err(error)) => {
            token.cancel();
            // What a component failed of is the cause of what `start` failed of.
            return Err(group.run(GRACE).await.map_or_else(anyhow::Error::new, |()| error));
        }
        // Interrupted, or a component failed, which is told below.
        None => {}
    }
    let ended = group.run(GRACE).await;
    progress.line("stopped; pods go on running. `xebec up` takes them up again, `xebec down` stops them.");
    ended.context("the cluster stopped by itself")
}

async fn start(
    options: &Options,
    data: &DataDir,
    group: &mut Group,
    progress: &Arc<Progress>,
    agents: &Handle,
) -> Result<()> {
    let server = server::start(options, data, group, progress).await?;
    let agents = agents::Agents {
        options: options.clone(),
        data: data.clone(),
        server,
        progress: progress.clone(),
        runtime: agents.clone(),
    };
    agents.start(group).await
}

fn stop_on_signal(token: &CancellationToken) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt()).context("handle SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("handle SIGTERM")?;
    let token = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        token.cancel();
    });
    Ok(())
}

fn greet(options: &Options, progress: &Progress) {
    let kubeconfig = options.kubeconfig_out.display();
    progress.line(&format!("ready in {} ms", progress.elapsed_ms()));
    progress.line(&format!("\nkubeconfig: {kubeconfig}\n\nTry, in another terminal:\n"));
    progress.line(&format!("  export KUBECONFIG={kubeconfig}"));
    progress.line("  xebec kubectl get nodes -o wide");
    progress.line("  xebec kubectl create deployment hello --image=xebec/toolbox --replicas=2");
    progress.line("  xebec kubectl expose deployment hello --port=80 --target-port=8080");
    progress.line("  xebec kubectl get pods,services\n");
    progress.line("Ctrl-C stops the control plane and leaves pods running.");
}
