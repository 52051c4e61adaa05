//! What works through the API server: controllers, scheduler and the node, on threads of their own.

use std::sync::Arc;

use anyhow::Result;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use xebec_lifecycle::{Group, GroupError};
use xebec_telemetry::Progress;

use super::server::Server;
use super::{GRACE, control, node};
use crate::datadir::DataDir;
use crate::options::Options;

/// What the agents are started with.
pub struct Agents {
    /// How.
    pub options: Options,
    /// Where.
    pub data: DataDir,
    /// Whom they work for.
    pub server: Server,
    /// Who tells of it.
    pub progress: Arc<Progress>,
    /// Whose threads they run on.
    pub runtime: Handle,
}

impl Agents {
    /// Starts them as one component of `group`; on return the node is ready.
    pub async fn start(self, group: &mut Group) -> Result<()> {
        let (told, outcome) = oneshot::channel();
        // Of its own, so that one that fails is known as the first to end.
        let own = Group::new(group.token().child_token());
        let running = self.runtime.clone().spawn(self.run(own, told));
        group.spawn("agents", async move {
            running.await.unwrap_or(Err(GroupError::Panicked { component: "agents" }))
        });
        match outcome.await {
            Ok(outcome) => outcome,
            // One of them failed or all are stopped: the group ends and tells why.
            Err(_) => std::future::pending().await,
        }
    }

    async fn run(self, mut group: Group, told: oneshot::Sender<Result<()>>) -> Result<(), GroupError> {
        let token = group.token();
        let started = async {
            control::start(&self.options, &self.server, &mut group, &self.progress).await?;
            node::start(&self.options, &self.data, &self.server, &mut group, &self.progress).await
        };
        if let Some(outcome) = token.run_until_cancelled(started).await {
            // Nobody listens any more if all is being stopped.
            let _ = told.send(outcome);
        }
        group.run(GRACE).await
    }
}
