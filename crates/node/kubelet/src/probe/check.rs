//! One probe, once.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};
use tokio::net::TcpStream;
use xebec_cri::{CriError, RuntimeService};

use super::{grpc, http};
use crate::spec;

/// Output of a failed probe that events show, in bytes.
const MAX_OUTPUT: usize = 1024;

/// What a probe says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// All is well.
    Healthy,
    /// Well, with something to tell.
    Warning(String),
    /// Not well, and what it said.
    Unhealthy(String),
    /// The probe itself could not run.
    Broken(String),
}

/// Whom a probe asks.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The container.
    pub container: &'a Container,
    /// Its id.
    pub id: &'a str,
    /// Its pod's address.
    pub ip: IpAddr,
}

/// Runs a probe once, within the limit.
pub async fn check(
    probe: &Probe,
    target: &Target<'_>,
    runtime: &dyn RuntimeService,
    limit: Duration,
) -> Verdict {
    if let Some(exec) = &probe.exec {
        let command = exec.command.clone().unwrap_or_default();
        return run(&command, target, runtime, limit).await;
    }
    if let Some(action) = &probe.http_get {
        return http::probe(action, target, limit).await;
    }
    let checked = async {
        if let Some(action) = &probe.tcp_socket {
            let Some(port) = spec::resolve_port(target.container, &action.port) else {
                return Verdict::Broken(format!("port {:?} not found", action.port));
            };
            let host = action.host.clone().unwrap_or_else(|| spec::bracketed(target.ip));
            return match TcpStream::connect(format!("{host}:{port}")).await {
                Ok(_) => Verdict::Healthy,
                Err(e) => Verdict::Unhealthy(format!("dial tcp {host}:{port}: {e}")),
            };
        }
        match &probe.grpc {
            Some(action) => grpc::probe(action, target.ip).await,
            None => Verdict::Broken("missing probe handler".into()),
        }
    };
    match tokio::time::timeout(limit, checked).await {
        Ok(verdict) => verdict,
        Err(_) => {
            Verdict::Unhealthy(format!("timed out after {}s: context deadline exceeded", limit.as_secs()))
        }
    }
}

async fn run(
    command: &[String],
    target: &Target<'_>,
    runtime: &dyn RuntimeService,
    limit: Duration,
) -> Verdict {
    match runtime.exec_sync(target.id, command, limit).await {
        Ok(output) if output.code == 0 => Verdict::Healthy,
        Ok(output) => {
            let mut text = output.stdout;
            text.extend(output.stderr);
            text.truncate(MAX_OUTPUT);
            Verdict::Unhealthy(String::from_utf8_lossy(&text).into_owned())
        }
        Err(CriError::Timeout { .. }) => {
            Verdict::Unhealthy(format!("command timed out: {command:?} timed out after {}s", limit.as_secs()))
        }
        Err(error) => Verdict::Broken(error.to_string()),
    }
}
