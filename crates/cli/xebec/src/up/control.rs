//! Controllers and scheduler.

use anyhow::{Context, Result, ensure};
use xebec_controllers::{ClusterCidr, Controllers, Informers};
use xebec_lifecycle::Group;
use xebec_scheduler::Scheduler;
use xebec_telemetry::Progress;

use super::server::Server;
use crate::options::Options;

/// Starts them; on return they work.
pub async fn start(options: &Options, server: &Server, group: &mut Group, progress: &Progress) -> Result<()> {
    let clients = &server.clients;
    let informers = Informers::new();
    let cidrs = options.cluster_cidrs.iter().map(|cidr| ClusterCidr::parse(&cidr.to_string()));
    let config = xebec_controllers::Config {
        cluster_cidrs: cidrs.collect::<Result<_, _>>().context("cluster-cidr")?,
        root_ca: server.pki.ca_pem().to_owned(),
    };
    let maker = clients.clone();
    let controllers = Controllers::new(config, informers.clone(), move |name| maker.service_account(name));
    let token = group.token();
    group.spawn("controllers", async move {
        controllers.run(token).await;
        Ok::<_, std::convert::Infallible>(())
    });
    let scheduler =
        Scheduler::new(clients.component("system:kube-scheduler"), scheduler_informers(&informers));
    let (mut scheduling, token) = (scheduler.readiness(), group.token());
    group.spawn("scheduler", async move {
        scheduler.run(token).await;
        Ok::<_, std::convert::Infallible>(())
    });
    let client = clients.component("system:kube-controller-manager");
    let (running, token) = (informers.clone(), group.token());
    group.spawn("informers", async move {
        running.run(client, token).await;
        Ok::<_, std::convert::Infallible>(())
    });
    ensure!(informers.synced().await, "the controllers did not start");
    progress.done("controllers", "deployments, endpoints, namespaces, nodes, garbage collection");
    ensure!(scheduling.wait().await, "the scheduler did not start");
    progress.done("scheduler", "default-scheduler");
    Ok(())
}

fn scheduler_informers(informers: &Informers) -> xebec_scheduler::Informers {
    xebec_scheduler::Informers {
        pods: informers.pods.clone(),
        nodes: informers.nodes.clone(),
        namespaces: informers.namespaces.clone(),
        services: informers.services.clone(),
        replica_sets: informers.replica_sets.clone(),
    }
}
