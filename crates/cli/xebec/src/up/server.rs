//! Store and API server.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;

use xebec_apiserver::{ApiServer, Config, KubeletDialer, Plain, TokenConfig};
use xebec_auth::pki::{Pki, Request, tls};
use xebec_lifecycle::Group;
use xebec_registry::RegistryConfig;
use xebec_store_embedded::EmbeddedStore;
use xebec_telemetry::Progress;

use super::certificates;
use super::clients::Clients;
use crate::datadir::DataDir;
use crate::options::Options;
use crate::{host, preflight};

/// The cluster's DNS domain.
pub const DOMAIN: &str = "cluster.local";
/// Who issues service-account tokens, and whom they are for.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// What everything else needs of the server.
pub struct Server {
    /// Makes clients.
    pub clients: Clients,
    /// Issues certificates.
    pub pki: Arc<Pki>,
    /// Addresses of the node.
    pub node_ips: Vec<IpAddr>,
}

/// Starts the server; on return it is ready.
pub async fn start(
    options: &Options,
    data: &DataDir,
    group: &mut Group,
    progress: &Progress,
) -> Result<Server> {
    let listener =
        preflight::listen(SocketAddr::new(options.bind_address, options.secure_port), "secure-port")?;
    let node_ips = match options.node_ips.as_slice() {
        [] => host::addresses(options.cluster_cidrs[0].is_ipv4())?,
        given => given.to_vec(),
    };
    let pki = Arc::new(Pki::open(&data.pki(), Timestamp::now()).context("open the PKI")?);
    let store = EmbeddedStore::open(data.store(), xebec_store_embedded::Options::default());
    let store = Arc::new(store.context("open the store")?);
    progress.done("store", "embedded, every write synced");

    let server = api_server(options, store, &pki, node_ips[0], group)?;
    serve(options, &server, &pki, &node_ips, listener, group)?;
    ensure!(server.ready().wait().await, "the API server did not start; see the log above");
    let endpoint = SocketAddr::new(node_ips[0], options.secure_port);
    progress.done("api server", &format!("https://{endpoint}"));
    write_kubeconfig(options, &pki, endpoint)?;

    Ok(Server { clients: Clients::new(server), pki, node_ips })
}

fn api_server(
    options: &Options,
    store: Arc<EmbeddedStore>,
    pki: &Pki,
    node_ip: IpAddr,
    group: &mut Group,
) -> Result<ApiServer> {
    let range = |cidr: &xebec_netlink::Cidr| cidr.to_string().parse();
    let service_cidrs = options.service_cidrs.iter().map(range).collect::<Result<_, _>>();
    let registry =
        RegistryConfig { service_cidrs: service_cidrs.context("service-cidr")?, ..RegistryConfig::default() };
    let identity = pki.identity(&Request::apiserver_kubelet_client(), Timestamp::now());
    let identity = identity.context("issue the API server's client certificate")?;
    let to_kubelets = tls::client_config(pki.ca_pem(), Some(&identity)).context("TLS to kubelets")?;
    let config = Config {
        resources: xebec_registry::builtin(&registry),
        defaults: Arc::new(xebec_registry::type_defaults()),
        transformer: Arc::new(Plain),
        admission: xebec_admission::Chain::standard(),
        tokens: TokenConfig {
            issuer: ISSUER.into(),
            audiences: vec![ISSUER.into()],
            signing_key: pki.signing_key(),
            keys: pki.token_keys(),
        },
        advertise: SocketAddr::new(node_ip, options.secure_port),
        service_address: Some(options.kubernetes_address()),
        kubelets: Some(KubeletDialer::new(Arc::new(to_kubelets))),
    };
    let (server, tasks) = ApiServer::new(config, store);
    group.spawn("api server", tasks.run(group.token()));
    Ok(server)
}

fn serve(
    options: &Options,
    server: &ApiServer,
    pki: &Arc<Pki>,
    node_ips: &[IpAddr],
    listener: std::net::TcpListener,
    group: &mut Group,
) -> Result<()> {
    let mut addresses = node_ips.to_vec();
    addresses.push(options.kubernetes_address());
    if !options.bind_address.is_unspecified() {
        addresses.push(options.bind_address);
    }
    let request = Request::apiserver(DOMAIN, std::slice::from_ref(&options.node_name), &addresses);
    let (certificate, renewing) = certificates::serving(pki.clone(), request, group.token())?;
    group.spawn("certificates", renewing);
    let tls = tls::server_config(certificate, pki.ca_pem()).context("TLS of the API server")?;
    let listener = tokio::net::TcpListener::from_std(listener).context("listen for the API server")?;
    let (server, token) = (server.clone(), group.token());
    group.spawn("https", async move { server.serve(listener, Arc::new(tls), token).await });
    Ok(())
}

fn write_kubeconfig(options: &Options, pki: &Pki, endpoint: SocketAddr) -> Result<()> {
    let path = &options.kubeconfig_out;
    let kubeconfig = pki.kubeconfig(&Request::admin(), &format!("https://{endpoint}"), Timestamp::now());
    let written = kubeconfig.context("issue the administrator's certificate")?.write(path);
    written.with_context(|| format!("kubeconfig-out {}", path.display()))
}
