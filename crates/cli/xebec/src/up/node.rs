//! The node: runtime, pod network, kubelet, Services and DNS.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch;
use xebec_auth::pki::{Request, tls};
use xebec_cni::{Network, NetworkConfig};
use xebec_cri::Runtime;
use xebec_images::{ImageStore, ImportOptions};
use xebec_kubelet::Kubelet;
use xebec_lifecycle::Group;
use xebec_netlink::Cidr;
use xebec_runtime::{EmbeddedRuntime, RuntimeConfig, SupervisorClient, SupervisorOptions};
use xebec_service::{Proxy, ProxyConfig};
use xebec_telemetry::Progress;

use super::server::{DOMAIN, Server};
use super::{addons, certificates, control_socket};
use crate::adapters::{LazyNetwork, StoredRootfs};
use crate::datadir::DataDir;
use crate::options::Options;

/// Common name with which the API server comes to kubelets.
const API_SERVER: &str = "kube-apiserver-kubelet-client";

/// Starts the node; on return it is ready.
pub async fn start(
    options: &Options,
    data: &DataDir,
    server: &Server,
    group: &mut Group,
    progress: &Progress,
) -> Result<()> {
    let admin = server.clients.privileged();
    addons::roles(&admin).await?;
    let store = image_store(data, group).await?;
    let (network, lazy) = LazyNetwork::new();
    let runtime = runtime(data, &store, lazy.clone()).await?;
    progress.done("runtime", "embedded, containers held by the supervisor");

    let mut ready = kubelet(
        options,
        data,
        server,
        Runtime { runtime: Arc::new(runtime), images: Arc::new(store) },
        group,
    )?;
    let pod_cidrs = pod_cidrs(server.clients.node(&options.node_name), &options.node_name).await?;
    let gateways = pod_network(options, data, server, pod_cidrs, &lazy, &network).await?;
    group.spawn("pod network", keep(network, group.token()));
    progress.done("network", &format!("bridge xbr0, gateway {}", list(&gateways)));

    let mut synced = proxy(options, server, group)?;
    addons::dns(&admin, options.dns_address(), &options.node_name, &gateways).await?;
    dns(server, &gateways, group)?;
    synced.wait_for(|synced| *synced).await.context("the service proxy did not start")?;
    progress.done("services", "nftables value maps");
    progress.done("dns", &format!("{} for {DOMAIN}", options.dns_address()));

    ready.wait_for(|ready| *ready).await.context("the node did not start")?;
    node_ready(server.clients.node(&options.node_name), &options.node_name).await?;
    progress.done("node", &format!("{} is Ready", options.node_name));
    Ok(())
}

fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

async fn image_store(data: &DataDir, group: &mut Group) -> Result<ImageStore> {
    let store =
        ImageStore::open(data.images(), xebec_images::Options::default()).context("open the image store")?;
    // The archive's own name for the image carries the build, so a new binary brings a new toolbox.
    if store.get(xebec_toolbox::IMAGE).is_none_or(|image| image.id != xebec_toolbox::image_id()) {
        let archive = std::io::Cursor::new(xebec_toolbox::image_archive());
        let options = ImportOptions { pinned: true, ..ImportOptions::default() };
        store.import_reader(archive, &options).await.context("import the toolbox image")?;
    }
    group
        .spawn("image requests", control_socket::listen(data.control_socket(), store.clone(), group.token()));
    Ok(store)
}

async fn runtime(data: &DataDir, store: &ImageStore, network: LazyNetwork) -> Result<EmbeddedRuntime> {
    let supervisor = SupervisorClient::connect_or_start(SupervisorOptions {
        state_dir: data.runtime(),
        cgroup_root: data.cgroup_root(),
        exe: std::env::current_exe().context("find our own binary")?,
    });
    let supervisor = supervisor.await.context("start the supervisor")?;
    let config = RuntimeConfig { name: "xebec".into(), version: env!("CARGO_PKG_VERSION").into() };
    let rootfs = Arc::new(StoredRootfs(store.clone()));
    EmbeddedRuntime::new(config, supervisor, rootfs, Arc::new(network)).await.context("start the runtime")
}

fn kubelet(
    options: &Options,
    data: &DataDir,
    server: &Server,
    runtime: Runtime,
    group: &mut Group,
) -> Result<watch::Receiver<bool>> {
    let request = Request::kubelet_serving(&options.node_name, &server.node_ips);
    let (certificate, renewing) = certificates::serving(server.pki.clone(), request, group.token())?;
    group.spawn("kubelet certificates", renewing);
    let mut config =
        xebec_kubelet::Config::new(options.node_name.clone(), server.node_ips.clone(), data.kubelet());
    config.cluster_dns = vec![options.dns_address()];
    config.cluster_domain = DOMAIN.into();
    config.version = xebec_types::KUBERNETES_VERSION.into();
    config.server = Some(xebec_kubelet::ServerConfig {
        bind: SocketAddr::new(options.bind_address, options.kubelet_port),
        certificate,
        client_ca: Arc::new(tls::roots(server.pki.ca_pem()).context("trust of the kubelet")?),
        api_server_name: API_SERVER.into(),
    });
    let kubelet = Kubelet::new(config, server.clients.node(&options.node_name), runtime);
    let ready = kubelet.ready();
    group.spawn("kubelet", kubelet.run(group.token()));
    Ok(ready)
}

/// Waits until the node has its pod ranges.
async fn pod_cidrs(client: Client, name: &str) -> Result<Vec<Cidr>> {
    let node = wait_for_node(client, name, |node| {
        node.spec.as_ref().and_then(|spec| spec.pod_cidrs.as_ref()).is_some_and(|cidrs| !cidrs.is_empty())
    });
    let cidrs = node.await?.spec.and_then(|spec| spec.pod_cidrs).unwrap_or_default();
    cidrs.iter().map(|cidr| cidr.parse().with_context(|| format!("podCIDR {cidr:?} of the node"))).collect()
}

async fn node_ready(client: Client, name: &str) -> Result<()> {
    let is_ready = |node: &Node| {
        let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
    };
    wait_for_node(client, name, is_ready).await.map(drop)
}

async fn wait_for_node(client: Client, name: &str, wanted: impl Fn(&Node) -> bool) -> Result<Node> {
    let api: Api<Node> = Api::all(client);
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut nodes = std::pin::pin!(watcher(api, config).default_backoff().applied_objects());
    while let Some(node) = nodes.next().await {
        match node {
            Ok(node) if node.name_any() == name && wanted(&node) => return Ok(node),
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "watch of the node"),
        }
    }
    anyhow::bail!("the watch of node {name} ended")
}

/// Sets the pod network up and answers the gateways of its pods.
async fn pod_network(
    options: &Options,
    data: &DataDir,
    server: &Server,
    pod_cidrs: Vec<Cidr>,
    lazy: &LazyNetwork,
    place: &watch::Sender<Option<Network>>,
) -> Result<Vec<IpAddr>> {
    let mut inside = options.cluster_cidrs.clone();
    inside.extend(server.node_ips.iter().map(|ip| Cidr::host(*ip)));
    let mut config = NetworkConfig::new(pod_cidrs, inside, data.addresses());
    config.service_cidrs.clone_from(&options.service_cidrs);
    let gateways = config.gateways().into_iter().map(|cidr| cidr.addr).collect();
    let network = Network::open(config).context("open the pod network")?;
    network.setup().await.context("set up the pod network")?;
    if let Some(live) = lazy.retained() {
        let live: HashSet<String> = live.into_iter().collect();
        network.prune(live).await.context("prune the pod network")?;
    }
    place.send_replace(Some(network));
    Ok(gateways)
}

/// Keeps the network known to the runtime until the end.
async fn keep(
    network: watch::Sender<Option<Network>>,
    token: tokio_util::sync::CancellationToken,
) -> Result<(), std::convert::Infallible> {
    token.cancelled().await;
    drop(network);
    Ok(())
}

fn proxy(options: &Options, server: &Server, group: &mut Group) -> Result<watch::Receiver<bool>> {
    let config = ProxyConfig::new(options.cluster_cidrs.clone(), options.service_cidrs.clone());
    let proxy = Proxy::new(&config).context("start the service proxy")?;
    let synced = proxy.synced();
    let (client, token) = (server.clients.component("system:kube-proxy"), group.token());
    let node = options.node_name.clone();
    group.spawn("services", async move { proxy.run(client, &node, token).await });
    Ok(synced)
}

fn dns(server: &Server, gateways: &[IpAddr], group: &mut Group) -> Result<()> {
    let listen = gateways.iter().map(|gateway| SocketAddr::new(*gateway, 53)).collect();
    let config =
        xebec_dns::Config { domain: DOMAIN.into(), ..xebec_dns::Config::new("/etc/resolv.conf", listen) };
    let client = server.clients.service_account(addons::DNS_ACCOUNT);
    let server = xebec_dns::Server::new(config, client).context("start DNS")?;
    let token = group.token();
    group.spawn("dns", async move {
        server.run(token).await;
        Ok::<_, std::convert::Infallible>(())
    });
    Ok(())
}
