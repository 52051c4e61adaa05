//! The pod network behind the runtime's seam.

use std::collections::HashSet;
use std::net::IpAddr;

use async_trait::async_trait;
use tokio::sync::watch;
use xebec_cni::{HostPort, Network, Protocol};
use xebec_cri::{CriError, NetworkRequest, PodNetwork, PortMapping};

/// The network of this node once it is known. A node learns its pod range from the API, which is after its runtime has
/// started; whatever needs the network waits for that.
#[derive(Clone)]
pub struct LazyNetwork {
    network: watch::Receiver<Option<Network>>,
    wanted: watch::Sender<Option<Vec<String>>>,
}

impl LazyNetwork {
    /// A network that is not there yet, and the place to put it.
    pub fn new() -> (watch::Sender<Option<Network>>, Self) {
        let (sender, network) = watch::channel(None);
        (sender, Self { network, wanted: watch::Sender::new(None) })
    }

    /// The sandboxes that the runtime told to keep at its start; everything else may be released.
    pub fn retained(&self) -> Option<Vec<String>> {
        self.wanted.borrow().clone()
    }

    async fn get(&self) -> Result<Network, CriError> {
        let mut network = self.network.clone();
        let ready = network.wait_for(Option::is_some).await;
        let gone =
            || CriError::Unavailable("the pod network is not set up: the node has no pod range yet".into());
        ready.map_err(|_| gone())?.clone().ok_or_else(gone)
    }
}

#[async_trait]
impl PodNetwork for LazyNetwork {
    async fn add(&self, request: &NetworkRequest) -> Result<Vec<IpAddr>, CriError> {
        let network = self.get().await?;
        let ports: Vec<HostPort> =
            request.port_mappings.iter().filter(|p| p.host_port != 0).map(host_port).collect();
        let added =
            network.add(&request.sandbox_id, &request.netns, &request.namespace, &request.name, &ports).await;
        added.map(|pod| pod.ips).map_err(|e| CriError::failed("set up pod network", e))
    }

    async fn delete(&self, sandbox_id: &str) -> Result<(), CriError> {
        let network = self.get().await?;
        network.delete(sandbox_id).await.map_err(|e| CriError::failed("tear down pod network", e))
    }

    async fn retain(&self, sandbox_ids: &[String]) -> Result<(), CriError> {
        self.wanted.send_replace(Some(sandbox_ids.to_vec()));
        let network = self.network.borrow().clone();
        if let Some(network) = network {
            let live: HashSet<String> = sandbox_ids.iter().cloned().collect();
            network.prune(live).await.map_err(|e| CriError::failed("prune pod network", e))?;
        }
        Ok(())
    }
}

fn host_port(mapping: &PortMapping) -> HostPort {
    HostPort {
        protocol: match mapping.protocol {
            xebec_cri::Protocol::Tcp => Protocol::Tcp,
            xebec_cri::Protocol::Udp => Protocol::Udp,
            xebec_cri::Protocol::Sctp => Protocol::Sctp,
        },
        host_ip: mapping.host_ip,
        host_port: mapping.host_port,
        container_port: mapping.container_port,
    }
}

/// For taking a node down when its network is taken down as a whole.
pub struct NoNetwork;

#[async_trait]
impl PodNetwork for NoNetwork {
    async fn add(&self, _request: &NetworkRequest) -> Result<Vec<IpAddr>, CriError> {
        Err(CriError::Unavailable("the node is being taken down".into()))
    }

    async fn delete(&self, _sandbox_id: &str) -> Result<(), CriError> {
        Ok(())
    }

    async fn retain(&self, _sandbox_ids: &[String]) -> Result<(), CriError> {
        Ok(())
    }
}
