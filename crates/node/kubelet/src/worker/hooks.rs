//! Lifecycle hooks, and stopping a container with its preStop hook.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};
use xebec_cri::CriError;

use super::Shared;
use crate::probe::check::Target;
use crate::probe::http;
use crate::spec;

/// A container gets at least this long between its stop signal and SIGKILL, however long its preStop hook took.
const MIN_GRACE: Duration = Duration::from_secs(2);
/// A postStart hook may take its time; it ends with its container.
const HOOK_LIMIT: Duration = Duration::from_secs(3600);

/// Runs a hook to its end.
pub(super) async fn run(
    shared: &Shared,
    hook: &LifecycleHandler,
    container: &Container,
    id: &str,
    ip: Option<IpAddr>,
) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        let output = shared.runtime.runtime.exec_sync(id, &command, HOOK_LIMIT).await;
        return match output {
            Ok(output) if output.code == 0 => Ok(()),
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stderr);
                Err(format!("command '{}' exited with {}: {text}", command.join(" "), output.code))
            }
            Err(error) => Err(error.to_string()),
        };
    }
    if let Some(action) = &hook.http_get {
        let ip = ip.ok_or("the pod has no address")?;
        let target = Target { container, id, ip };
        let uri = http::uri(action, &target)?;
        let answer = http::get(&uri, action, "kube-lifecycle/1.36").await?;
        let status = answer.status.as_u16();
        return if status < 400 { Ok(()) } else { Err(format!("Get \"{uri}\": status {status}")) };
    }
    if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        return Ok(());
    }
    Err("tcpSocket hooks are not supported: use exec, httpGet or sleep".into())
}

/// Stops a container: preStop hook first, within the grace period, then the stop signal with what is left of it.
pub(super) async fn kill(
    shared: &Shared,
    pod: &Pod,
    name: &str,
    id: &str,
    ip: Option<IpAddr>,
    grace_seconds: i64,
) -> Result<(), CriError> {
    let grace = Duration::from_secs(u64::try_from(grace_seconds).unwrap_or(0));
    let began = Instant::now();
    let container = spec::container(pod, name).map(|(_, c)| c);
    let hook = container.and_then(|c| c.lifecycle.as_ref()).and_then(|l| l.pre_stop.as_ref());
    if let (Some(hook), Some(container), true) = (hook, container, grace_seconds > 0) {
        let failure = match tokio::time::timeout(grace, run(shared, hook, container, id, ip)).await {
            Ok(Ok(())) => None,
            Ok(Err(message)) => Some(message),
            Err(_) => Some(format!("not done within the grace period of {grace_seconds}s")),
        };
        if let Some(message) = failure {
            let told = format!("PreStopHook failed: {message}");
            shared.events.pod(pod, Some(name), true, "FailedPreStopHook", told);
        }
    }
    let left = grace.saturating_sub(began.elapsed()).max(MIN_GRACE.min(grace));
    match shared.runtime.runtime.stop_container(id, left).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}
