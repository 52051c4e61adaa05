//! `port-forward`.

use std::net::SocketAddr;

use clap::Args;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::pods;
use crate::discovery::{items, text};
use crate::duration;
use crate::error::{Error, Result, chain};
use crate::session::Session;
use crate::targets::Found;

/// Connections at once; more wait in the listener's queue.
const CONNECTIONS: usize = 256;

/// Flags of `port-forward`.
#[derive(Clone, Debug, Default, Args)]
pub struct PortForwardArgs {
    /// POD or TYPE/NAME.
    pub pod: String,
    /// [LOCAL:]REMOTE...; an empty LOCAL takes a free port.
    #[arg(required = true)]
    pub ports: Vec<String>,
    /// Addresses to listen on.
    #[arg(long, value_delimiter = ',', default_value = "localhost")]
    pub address: Vec<String>,
    /// How long to wait for a running pod.
    #[arg(long, default_value = "1m")]
    pub pod_running_timeout: String,
}

/// Runs `port-forward` until it is interrupted.
pub async fn run(session: &Session, args: PortForwardArgs) -> Result<i32> {
    let limit = duration::parse(&args.pod_running_timeout)
        .map_err(|e| Error::client(format!("--pod-running-timeout: {e}")))?;
    let target = pods::named(session, &args.pod).await?;
    let pod = pods::one_running(session, &target, limit).await?;
    let mut listeners = Vec::new();
    for spec in &args.ports {
        let (local, remote) = ports(spec, &target, &pod)?;
        for listener in listen(&args.address, local).await? {
            session.line(format!("Forwarding from {} -> {remote}", listener.local_addr()?))?;
            listeners.push((listener, remote));
        }
    }
    let slots = Semaphore::new(CONNECTIONS);
    let serving =
        listeners.into_iter().map(|(listener, remote)| serve(session, listener, &pod, remote, &slots));
    tokio::select! {
        result = futures::future::try_join_all(serving) => result.map(|_| 0),
        _ = tokio::signal::ctrl_c() => Ok(0),
    }
}

/// `LOCAL:REMOTE` with names and Service ports looked up.
fn ports(spec: &str, target: &Found, pod: &Found) -> Result<(u16, u16)> {
    let (local, remote) = spec.split_once(':').unwrap_or((spec, spec));
    let number = if target.resource.kind == "Service" {
        service_port(target, &pod.object, remote)?
    } else {
        container_port(&pod.object, remote)?
    };
    let local = match local {
        "" => 0,
        text => text.parse().or_else(|_| {
            if spec.contains(':') {
                Err(Error::client(format!("invalid local port {local:?}")))
            } else {
                Ok(number)
            }
        })?,
    };
    Ok((local, number))
}

fn container_port(pod: &Value, port: &str) -> Result<u16> {
    if let Ok(number) = port.parse() {
        return Ok(number);
    }
    items(&pod["spec"]["containers"])
        .flat_map(|c| items(&c["ports"]))
        .find(|p| p["name"] == port)
        .and_then(|p| u16::try_from(p["containerPort"].as_u64()?).ok())
        .ok_or_else(|| {
            Error::client(format!(
                "Pod {:?} does not have a named port {port:?}",
                text(&pod["metadata"]["name"])
            ))
        })
}

fn service_port(service: &Found, pod: &Value, port: &str) -> Result<u16> {
    let found = items(&service.object["spec"]["ports"])
        .find(|p| p["name"] == port || port.parse().is_ok_and(|number: u16| p["port"] == number))
        .ok_or_else(|| {
            Error::client(format!("Service {} does not have a service port {port}", service.name))
        })?;
    let headless = service.object["spec"]["clusterIP"] == "None";
    match &found["targetPort"] {
        Value::String(name) => container_port(pod, name),
        Value::Number(number) if !headless => container_port(pod, &number.to_string()),
        _ => container_port(pod, &found["port"].to_string()),
    }
}

/// Listens on all addresses; `localhost` is both loopbacks, of which one must work.
async fn listen(addresses: &[String], port: u16) -> Result<Vec<TcpListener>> {
    let mut listeners: Vec<TcpListener> = Vec::new();
    for address in addresses {
        let names: &[&str] = if address == "localhost" { &["127.0.0.1", "::1"] } else { &[address.as_str()] };
        let (before, mut failure) = (listeners.len(), None);
        let mut port = port;
        for name in names {
            let ip = name.parse().map_err(|_| Error::client(format!("{name} is not a valid IP")))?;
            match TcpListener::bind(SocketAddr::new(ip, port)).await {
                Ok(listener) => {
                    // The second loopback takes the port that the first was given.
                    port = listener.local_addr()?.port();
                    listeners.push(listener);
                }
                Err(error) => failure = Some(format!("unable to listen on port {port}: {name}: {error}")),
            }
        }
        if let Some(failure) = failure.filter(|_| listeners.len() == before) {
            return Err(Error::client(failure));
        }
    }
    Ok(listeners)
}

async fn serve(
    session: &Session,
    listener: TcpListener,
    pod: &Found,
    remote: u16,
    slots: &Semaphore,
) -> Result<()> {
    let mut open = futures::stream::FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = accept(&listener, slots) => {
                let (socket, slot) = accepted?;
                let local = listener.local_addr()?.port();
                session.line(format!("Handling connection for {local}"))?;
                open.push(async move {
                    let result = forward(session, socket, pod, remote).await;
                    drop(slot);
                    result
                });
            }
            Some(result) = futures::StreamExt::next(&mut open), if !open.is_empty() => {
                // One failed connection does not end the others.
                if let Err(error) = result {
                    session.warn(format!("error forwarding port {remote} to pod {}: {error}", pod.name))?;
                }
            }
        }
    }
}

async fn accept<'s>(
    listener: &TcpListener,
    slots: &'s Semaphore,
) -> Result<(TcpStream, tokio::sync::SemaphorePermit<'s>)> {
    let slot = slots.acquire().await.map_err(|e| Error::client(e.to_string()))?;
    Ok((listener.accept().await?.0, slot))
}

async fn forward(session: &Session, mut socket: TcpStream, pod: &Found, remote: u16) -> Result<()> {
    let namespace = pod.namespace.as_deref().unwrap_or(&session.namespace);
    let api: Api<Pod> = Api::namespaced(session.client.clone(), namespace);
    let mut forwarder = api.portforward(&pod.name, &[remote]).await?;
    let failure = forwarder.take_error(remote);
    let mut stream = forwarder
        .take_stream(remote)
        .ok_or_else(|| Error::client("the server opened no stream for the port"))?;
    let copied = tokio::io::copy_bidirectional(&mut socket, &mut stream).await;
    drop(stream);
    let ended = forwarder.join().await;
    if let Some(failure) = failure
        && let Some(Some(message)) = futures::FutureExt::now_or_never(failure)
    {
        return Err(Error::client(message));
    }
    copied?;
    ended.map_err(|error| Error::client(chain(&error)))
}
