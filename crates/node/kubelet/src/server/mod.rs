//! The node's HTTPS server.

use crate::config::ServerConfig;
use crate::kubelet::KubeletError;
use crate::pods::PodTable;
use crate::worker::Shared;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(crate) struct Bound {
    address: SocketAddr,
}
impl Bound {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
    pub(crate) async fn run(self, _cancel: CancellationToken) {}
}
pub(crate) async fn bind(
    _s: Arc<Shared>,
    _t: watch::Receiver<Arc<PodTable>>,
    c: &ServerConfig,
) -> Result<Bound, KubeletError> {
    Ok(Bound { address: c.bind })
}
