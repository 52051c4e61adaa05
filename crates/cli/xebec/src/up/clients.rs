//! In-process clients, each under an identity of its own.

use kube::Client;
use xebec_apiserver::ApiServer;
use xebec_auth::{UserInfo, groups};

/// Makes clients that reach the API server without a socket and pass the same authorization as any other.
#[derive(Clone)]
pub struct Clients(ApiServer);

impl Clients {
    /// Clients of this server.
    pub fn new(server: ApiServer) -> Self {
        Self(server)
    }

    fn make(&self, user: UserInfo) -> Client {
        Client::new(self.0.service(user), "default")
    }

    /// A component with a user name of its own, as `system:kube-scheduler`.
    pub fn component(&self, name: &str) -> Client {
        self.make(member(name, &[]))
    }

    /// A service account of `kube-system`.
    pub fn service_account(&self, name: &str) -> Client {
        let mut user = UserInfo::service_account("kube-system", name, "");
        user.join(groups::AUTHENTICATED);
        self.make(user)
    }

    /// A node's agent.
    pub fn node(&self, name: &str) -> Client {
        self.make(member(&format!("system:node:{name}"), &[groups::NODES]))
    }

    /// Whoever sets the cluster up.
    pub fn privileged(&self) -> Client {
        self.make(member("system:apiserver", &[groups::MASTERS]))
    }
}

fn member(name: &str, own: &[&str]) -> UserInfo {
    let mut user = UserInfo { name: name.into(), ..UserInfo::default() };
    own.iter().for_each(|group| user.join(group));
    user.join(groups::AUTHENTICATED);
    user
}
